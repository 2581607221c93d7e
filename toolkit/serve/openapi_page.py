"""The OpenAPI document as a page for people, from this server alone: no script, nothing from another host."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_MOST_CHOICES = 12


def page(api: Mapping[str, Any]) -> bytes:
    """HTML, in UTF-8."""
    from jinja2 import Environment

    template = files("toolkit.serve").joinpath("openapi.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(api=api, words=in_words).encode()


def in_words(schema: Mapping[str, Any]) -> str:
    """A schema as one reads it: ``1..256, a list of 1 to 64 of 1..256 or null``."""
    if "anyOf" in schema:
        *most, last = map(in_words, schema["anyOf"])
        return f"{', '.join(most)} or {last}"
    if "enum" in schema:
        shown = [
            "null" if one is None else str(one).lower() if one is True else one for one in schema["enum"]
        ]
        return ", ".join(shown[:_MOST_CHOICES]) + (" .." if len(shown) > _MOST_CHOICES else "")
    kind = schema.get("type")
    if kind == "array":
        most = schema.get("maxItems")
        count = f"{schema.get('minItems', 0)} {f'to {most:,}' if most else 'or more'}"
        return f"a list of {count}: {in_words(schema['items'])}"
    if kind == "integer":
        return f"{schema['minimum']}..{schema.get('maximum', '')}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
