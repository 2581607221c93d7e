"""Claims about the vectors themselves: which dimensions there are, how they are cut, what they take to store."""

from __future__ import annotations

import numpy as np

from toolkit.claims.bench import SUBJECT, SUBJECT_SPEC, Bench
from toolkit.claims.claim import FAILS, HOLDS, OPEN, Claim, Finding
from toolkit.embedding.config import LocalConfig, parse_spec
from toolkit.errors import ServerError
from toolkit.measure.storage import bytes_per_vector
from toolkit.space import Role
from toolkit.vectors import truncate

_CLAIMED_RANGE = (32, 2560)
_CLAIMED_DEFAULT = 1024
_SAME_COSINE = 0.999  # bfloat16 keeps a vector's direction to better than this
_UNIT_TOLERANCE = 1e-3
_STORED = 1_000


def _other_model(bench: Bench, figure: str, sample: str, measured: dict[str, object]) -> Finding:
    return Finding(
        OPEN,
        figure,
        sample=sample,
        why=f"the claim is about {SUBJECT}; measured was {bench.model}",
        measured=measured,
        needs=f"--embedder {SUBJECT_SPEC}",
    )


def dimension_range(bench: Bench) -> Finding:
    """Cut to every whole number of dimensions, and ask whether each gives unit rows."""
    if bench.server is not None:
        return _range_of_server(bench)
    rows = bench.rows(bench.seen_texts[:20]).rows
    low, full = bench.embedder.space.min_dim, bench.full_dim
    unusable = [
        dim
        for dim in range(1, full + 1)
        if not np.allclose(np.linalg.norm(truncate(rows, dim), axis=1), 1.0, atol=_UNIT_TOLERANCE)
    ]
    first = next((dim for dim in range(low, full + 1) if dim not in unusable), full)
    figure = (
        f"every whole number {first}..{full}"
        if not unusable
        else f"{len(unusable)} of {full} give no unit row"
    )
    sample = f"{full} dimensions, {len(rows)} texts"
    measured = {"stated_minimum": low, "full_dim": full, "unusable_dims": unusable}
    if not bench.is_subject:
        return _other_model(bench, figure, sample, measured)
    within = low <= _CLAIMED_RANGE[0] and full >= _CLAIMED_RANGE[1] and not [d for d in unusable if d >= low]
    return Finding(HOLDS if within else FAILS, figure, sample=sample, measured=measured)


def _range_of_server(bench: Bench) -> Finding:
    """Ask the server for every whole number of dimensions, one request each."""
    unusable: dict[int, str] = {}
    with bench.asked() as server:
        full = server.alone(["a text"]).shape[1]
        low = min(bench.embedder.space.min_dim, full)
        for dim in range(low, full + 1):
            answer = server.ask(["a text"], dimensions=dim)
            if answer.rows is None:
                unusable[dim] = answer.why
            elif answer.rows.shape != (1, dim):
                unusable[dim] = f"{answer.rows.shape[1]} numbers"
            elif abs(float(np.linalg.norm(answer.rows)) - 1.0) > _UNIT_TOLERANCE:
                unusable[dim] = f"norm {float(np.linalg.norm(answer.rows)):.4f}"
    figure = f"{full - low + 1 - len(unusable):,} of {full - low + 1:,} whole numbers {low}..{full} give unit vectors"
    sample = f"one request for each dimension, {bench.server_name}"
    measured = {"full_dim": full, "unusable": dict(list(unusable.items())[:20])}
    if not bench.server_is_subject:
        return _other_model(bench, figure, sample, measured)
    within = low <= _CLAIMED_RANGE[0] and full >= _CLAIMED_RANGE[1] and not unusable
    return Finding(HOLDS if within else FAILS, figure, sample=sample, measured=measured)


def default_dimension(bench: Bench) -> Finding:
    """The length of a vector nobody asked a dimension of."""
    if bench.server is None:
        length, subject = int(bench.embedder.encode(["a text"]).shape[1]), bench.is_subject
        sample = "one text"
    else:
        with bench.asked() as server:
            length, subject = server.alone(["a text"]).shape[1], bench.server_is_subject
        sample = f"one request without `dimensions`, {bench.server_name}"
    figure, measured = f"{length:,} numbers", {"default_dim": length}
    if not subject:
        return _other_model(bench, figure, sample, measured)
    return Finding(HOLDS if length == _CLAIMED_DEFAULT else FAILS, figure, sample=sample, measured=measured)


def more_than_truncation(bench: Bench) -> Finding:
    """Vectors that the model's own software, or the server, cuts, beside normalized prefixes of the full ones."""
    texts = bench.seen_texts[:50]
    full = bench.rows(texts).rows
    dims = bench.dims[:-1]
    own, whose = _cut_elsewhere(bench, texts, dims)
    if own is None:
        return Finding(OPEN, why=whose, needs="--embedder static")
    cosines = {dim: float((rows * truncate(full, dim)).sum(axis=1).min()) for dim, rows in own.items()}
    worst = min(cosines.values())
    return Finding(
        FAILS if worst >= _SAME_COSINE else HOLDS,
        f"smallest cosine to the normalized prefix {worst:.6f}",
        sample=f"{len(texts)} texts at {len(own)} dimensions, cut by {whose}",
        why="a shorter vector is the beginning of the full one, normalized again"
        if worst >= _SAME_COSINE
        else "what was cut elsewhere points in another direction",
        measured={"smallest_cosine_by_dim": cosines},
    )


def _cut_elsewhere(
    bench: Bench, texts: list[str], dims: list[int]
) -> tuple[dict[int, np.ndarray] | None, str]:
    """Vectors of each dimension by software that is not this package's, and its name; None and why not."""
    if bench.server is not None and not bench.serves_embedder:
        return _cut_by_server(bench, texts, dims), bench.server_name
    if bench.embedder.space.engine == "wordllama":
        from importlib.resources import files
        from pathlib import Path

        from wordllama import WordLlama

        cache = Path(str(files("wordllama")))
        # WordLlama comes in 64, 128 and 256; each is loaded as its makers cut it.
        own = {
            dim: WordLlama.load(cache_dir=cache, dim=256, trunc_dim=dim, disable_download=True)
            for dim in dims
            if dim in (64, 128)
        }
        return {dim: model.embed(texts, norm=True) for dim, model in own.items()}, "wordllama's own trunc_dim"
    config = parse_spec(bench.spec) if bench.spec.startswith("local:") else None
    if isinstance(config, LocalConfig):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(config.model)
        render = bench.embedder.space.renderer(Role.DOCUMENT)
        rendered = [render(text) for text in texts]
        own = {
            dim: model.encode(rendered, truncate_dim=dim, normalize_embeddings=True, show_progress_bar=False)
            for dim in dims
        }
        return own, "sentence-transformers' truncate_dim"
    return None, "no other software that cuts this embedder's vectors is at hand"


def _cut_by_server(bench: Bench, texts: list[str], dims: list[int]) -> dict[int, np.ndarray]:
    rows = {}
    with bench.asked() as server:
        for dim in dims:
            answer = server.ask(texts, dimensions=dim)
            if answer.rows is None or answer.rows.shape != (len(texts), dim):
                found = answer.why if answer.rows is None else f"rows of shape {answer.rows.shape}"
                raise ServerError(f"{server.address.url} does not give dimension {dim}: {found}")
            rows[dim] = answer.rows
    return rows


def prefix_norms(bench: Bench) -> Finding:
    """How long a prefix is before it is normalized again."""
    rows = bench.rows(bench.seen_texts).rows
    norms = {dim: float(np.linalg.norm(rows[:, :dim], axis=1).mean()) for dim in bench.dims}
    full = np.linalg.norm(rows, axis=1)
    off = float(np.abs(full[full > 0] - 1.0).max())
    short = bench.dims[0]
    return Finding(
        HOLDS if off <= _UNIT_TOLERANCE else FAILS,
        f"norm of the full vector 1 ± {off:.1e}; of its first {short} numbers {norms[short]:.3f} on average",
        sample=f"{len(rows)} texts",
        why="so a prefix must be normalized again, or an inner product of it is no cosine",
        measured={"largest_deviation_from_1": off, "mean_prefix_norm_by_dim": norms},
    )


def storage_saved(_: Bench) -> Finding:
    """Bytes of a stored vector at each dimension the claim names, against 1,024."""
    rng = np.random.default_rng(0)
    each = {
        dim: bytes_per_vector(rng.random((_STORED, dim), dtype=np.float32).nbytes, _STORED)
        for dim in (32, 128, 1024, 2048)
    }
    saved = {dim: 100 * (1 - size / each[1024]) for dim, size in each.items()}
    right = abs(saved[32] - 87.5) < 0.05 and abs(saved[128] - 92.2) < 0.05 and saved[2048] >= 0
    return Finding(
        HOLDS if right else FAILS,
        f"32 saves {saved[32]:.1f} %, 128 saves {saved[128]:.1f} %; 2048 takes {-saved[2048]:.0f} % more",
        sample=f"{_STORED:,} float32 vectors at four dimensions",
        why="a longer vector never saves storage, and the shortest saves most",
        measured={"bytes_per_vector": each, "saved_percent_against_1024": saved},
    )


CLAIMS = (
    Claim(
        "dimension-range",
        "Any dimension from 32 to 2560, in steps of 1, can be chosen per request.",
        "holds if every whole number from 32 to 2560 gives unit vectors",
        dimension_range,
    ),
    Claim(
        "default-dimension",
        "The default dimension is 1024.",
        "holds if a text without a stated dimension gets 1024 numbers",
        default_dimension,
    ),
    Claim(
        "not-truncation",
        "A shorter vector is not simply a truncated one.",
        "does not hold if vectors cut by other software equal the normalized prefix (cosine of at least 0.999)",
        more_than_truncation,
    ),
    Claim(
        "unit-norm",
        "Vectors have norm 1, so an inner product is a cosine.",
        "holds if the full vectors' norms are within 0.001 of 1",
        prefix_norms,
    ),
    Claim(
        "storage-saved",
        "Against 1024 dimensions, 32 to 128 save 87.5 to 92.2 % of the storage, and 1024 to 2048 save 0 to 80 %.",
        "holds if bytes of stored vectors give these shares",
        storage_saved,
    ),
)
