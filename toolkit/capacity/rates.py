"""Measured rates that an estimate rests on: those recorded with the package, or a file of one's own.

    measured.json    written by benchmarks/capacity_rates.py from the recorded results

Knows no corpus size and no price.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.embedding.config import LocalConfig, parse_spec
from toolkit.embedding.packed.shape import QWEN3_SHAPES, DecoderShape, supports
from toolkit.errors import PlanError
from toolkit.files import parse_json

MEASURED = Path(__file__).with_name("measured.json")
_DTYPES = {"bf16": "bfloat16", "fp8": "fp8"}


@dataclass(frozen=True)
class Pace:
    """Encoding at one length of text: tokens per text, and tokens per second of one device."""

    tokens: float
    tok_s: float


@dataclass(frozen=True)
class EncodeRates:
    """What one device encodes of one model.

    paces : by length, shortest first.
    device : its name; ``cpu`` is the machine with all its cores.
    """

    model: str
    dtype: str
    device: str
    cores: int
    full_dim: int
    paces: tuple[Pace, ...]
    source: str

    def seconds_per_text(self, tokens: float) -> float:
        """Seconds of one device for a text of that many tokens.

        Seconds per token, linear between two measured lengths: attention is all that grows with the length. Beyond
        the measured lengths those of the nearest one.
        """
        import numpy as np

        lengths = [pace.tokens for pace in self.paces]
        return tokens * float(np.interp(tokens, lengths, [1.0 / pace.tok_s for pace in self.paces]))

    def covers(self, tokens: float) -> bool:
        """Whether that length lies between measured ones."""
        return self.paces[0].tokens <= tokens <= self.paces[-1].tokens


@dataclass(frozen=True)
class IndexRates:
    """What one core does for an index; see benchmarks/capacity_rates.py for where each is from.

    kmeans_flop_s : distances between rows and centroids, in operations per second.
    code_numbers_s : numbers of rows turned into codes per second.
    graph_numbers_s : numbers of rows per second that a graph takes in, by the logarithm of its size.
    search_numbers_s : numbers compared per second by index and precision, of queries on one thread.
    measured_documents : corpus of the searches; probes and width grow from there.
    """

    kmeans_flop_s: float
    code_numbers_s: float
    graph_numbers_s: float
    search_numbers_s: Mapping[str, Mapping[str, float]]
    measured_documents: int
    source: str


def index_rates() -> IndexRates:
    """Those recorded with the package."""
    return IndexRates(**parse_json(MEASURED.read_bytes())["index"])


def encode_rates(embedder: str, file: str | Path | None = None) -> EncodeRates:
    """The rates of an embedder spec: from a file, else those recorded with the package.

    file : what `toolkit bench encode` wrote, or a record of benchmarks/encode.py.

    Raises PlanError for a file that holds no rates of this embedder, and where there are none and none are given.
    """
    config = parse_spec(embedder)
    if file is None:
        found = _of_shapes(parse_json(MEASURED.read_bytes())["encode"], config, embedder)
        if found is None:
            raise PlanError(
                f"no rates of {embedder!r} are recorded; write them with toolkit bench encode where it would run, "
                "as JSON, and give that file (rates=)"
            )
        return found
    try:
        stored = parse_json(Path(file).read_bytes())
    except OSError as error:
        raise PlanError(f"rates file {file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"rates file {file} is not valid JSON: {error}") from None
    try:
        found = _of_bench(stored, embedder, str(file)) if "spec" in stored else None
        found = found or _of_shapes(stored, config, embedder)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        raise PlanError(
            f"rates file {file} is neither of toolkit bench encode nor of benchmarks/encode.py; give one of "
            "them"
        ) from None
    if found is None:
        of = stored.get("spec") or "models of Qwen3-Embedding's shapes"
        raise PlanError(f"rates file {file} is of {of}, not of {embedder!r}; measure that one")
    return found


def _of_bench(stored: Mapping[str, Any], embedder: str, source: str) -> EncodeRates | None:
    if stored["spec"] != embedder:
        return None
    pace = Pace(float(stored["tokens_per_text"]), float(stored["texts_s"]) * float(stored["tokens_per_text"]))
    if not (pace.tokens > 0 and pace.tok_s > 0):
        raise ValueError("rates are above 0")
    return EncodeRates(
        model=str(stored["embedder"]),
        dtype=str(stored["dtype"]),
        device=str(stored["device"]),
        cores=int(stored["cores"]),
        full_dim=int(stored["full_dim"]),
        paces=(pace,),
        source=source,
    )


def _of_shapes(stored: Mapping[str, Any], config: object, embedder: str) -> EncodeRates | None:
    """Of a record of benchmarks/encode.py, whose models are called by the size of their shape."""
    size = _size_of(config)
    wanted = config.dtype if isinstance(config, LocalConfig) and config.dtype != "auto" else "bfloat16"
    rates: dict[str, Sequence[Pace]] = {}
    for name, row in stored.items():
        parts = name.split("/")
        if parts[0] == "toolkit" and len(parts) == 4 and parts[1] == size and _DTYPES[parts[2]] == wanted:
            pace = Pace(float(row["tok_s"]) / float(row["texts_s"]), float(row["tok_s"]))
            rates.setdefault(wanted, []).append(pace)
    if not rates:
        return None
    (dtype, paces), *_ = rates.items()
    return EncodeRates(
        model=embedder.removeprefix("local:"),
        dtype=dtype,
        device=str(stored["hardware"]["gpu"]),
        cores=int(stored["hardware"]["cores"]),
        full_dim=QWEN3_SHAPES[size].hidden,
        paces=tuple(sorted(paces, key=lambda pace: pace.tokens)),
        source=f"{stored['command']}, {stored['date']}",
    )


def _size_of(config: object) -> str | None:
    """The name of a local model's shape if it is one of Qwen3-Embedding's: from its folder, else from its name."""
    if not isinstance(config, LocalConfig):
        return None
    try:
        about = parse_json((Path(config.model).expanduser() / "config.json").read_bytes())
    except (OSError, ValueError):
        named = re.search(r"Qwen3-Embedding-([\d.]+b)$", config.model, re.IGNORECASE)
        size = named[1].lower() if named else None
        return size if size in QWEN3_SHAPES else None
    if not isinstance(about, dict) or not supports(about):
        return None
    shape = DecoderShape.from_config(about)
    same = [
        size
        for size, known in QWEN3_SHAPES.items()
        if (known.layers, known.layer_parameters, known.q_width)
        == (shape.layers, shape.layer_parameters, shape.q_width)
    ]
    return same[0] if same else None
