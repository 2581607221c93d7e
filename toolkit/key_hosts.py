"""Which secret may go to which server: pairs of an environment variable and an address that its user allows.

``TOOLKIT_KEY_HOSTS`` lists them, for example
``OPENAI_API_KEY=https://gateway.example:8443,PGPASSWORD=postgresql://db.example:5432``. Knows no client.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

ALLOWED = "TOOLKIT_KEY_HOSTS"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}


def is_allowed(variable: str, place: str) -> bool:
    """Whether the user's environment pairs this variable with this origin."""
    pairs = (pair.strip().partition("=") for pair in os.environ.get(ALLOWED, "").split(","))
    return any(name == variable and mark and origin(host) == place for name, mark, host in pairs)


def origin(url: str) -> str:
    """Scheme, host and port of an address, such as ``https://api.openai.com``; empty for what is none."""
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{shown}"
