"""From an index and a precision to one FAISS factory string, and whether FAISS would build it.

Knows the notation only: nothing here holds a vector. FAISS's own strings are the notation
(https://github.com/facebookresearch/faiss/wiki/The-index-factory); a precision fills in how the
stored vectors are encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType

from toolkit.errors import MissingPackageError, PlanError
from toolkit.search.backend import PRECISIONS

# Numbers in one sub-quantizer of a product quantizer: 8 bits for 4 numbers, 16 times below float32.
PQ_NUMBERS_PER_BYTE = 4

_SCALAR_CODES = {"float16": "SQfp16", "bfloat16": "SQbf16", "int8": "SQ8", "uint4": "SQ4"}
# Index names without an encoding of their own: the precision completes them.
_FAMILIES = re.compile(r"Flat|HNSW\d*|IVF\d+(_HNSW\d+)?(,Flat)?")
_BINARY = re.compile(r"BFlat|BHNSW\d*|BIVF\d+(_HNSW\d+)?")

# Numbers in a factory string that FAISS takes without a look, and then divides by or allocates for:
# (what, pattern, least, most).
_BOUNDS = (
    ("links of a node (HNSW<links>)", re.compile(r"HNSW(\d+)"), 2, 1_024),
    ("lists (IVF<lists>)", re.compile(r"IVF(\d+)"), 1, 1 << 24),
    ("bytes of a code (PQ<parts>)", re.compile(r"(?<!O)PQ(\d+)"), 1, 1 << 16),
    ("bits of a part (PQ<parts>x<bits>)", re.compile(r"(?<!O)PQ\d+x(\d+)"), 1, 16),
    ("parts of a rotation (OPQ<parts>)", re.compile(r"OPQ(\d+)"), 1, 1 << 16),
    (
        "dimensions kept (PCA<n>, RR<n>)",
        re.compile(r"(?:PCAW?R?|RR)(\d+)"),
        1,
        1 << 20,
    ),
)

BUILD_ARGUMENTS = {"efConstruction": "HNSW", "niter": "IVF", "on_disk": "IVF"}
# Arguments that are said or left out; others are numbers.
_SWITCHES = ("on_disk",)
SEARCH_ARGUMENTS = {"efSearch": "HNSW", "nprobe": "IVF"}


def load_faiss() -> ModuleType:
    """The faiss module; raises MissingPackageError naming the extra that has it."""
    try:
        import faiss
    except ImportError:
        raise MissingPackageError("faiss", needed_for="searching an index", extra="cpu") from None
    return faiss


def factory_string(index: str, precision: str, dim: int) -> str:
    """The FAISS factory string of `index` with stored vectors of `precision` at dimension `dim`.

    index : ``Flat``, ``HNSW32``, ``IVF256`` (any numbers), their binary forms ``BFlat``, ``BHNSW32``,
        ``BIVF256``, or any other FAISS factory string, which must then carry its own encoding.
    precision : one of PRECISIONS; an index with an encoding of its own takes ``float32``, or
        ``binary`` for the binary forms.

    >>> factory_string("HNSW32", "int8", 256), factory_string("IVF64", "binary", 256)
    ('HNSW32_SQ8', 'BIVF64')

    Raises PlanError for a pair that has no factory string.
    """
    if precision not in PRECISIONS:
        raise PlanError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    if _BINARY.fullmatch(index):
        if precision != "binary":
            raise PlanError(
                f"index {index!r} stores one bit per number, not {precision}; choose precision 'binary'"
            )
        return index
    if not _FAMILIES.fullmatch(index):
        if precision != "float32":
            raise PlanError(
                f"index {index!r} has an encoding of its own and cannot also store {precision}; "
                "choose precision 'float32', or index Flat, HNSW<links> or IVF<lists>"
            )
        return index
    family = index.removesuffix(",Flat")
    if precision == "binary":
        return f"B{family}"
    if precision == "float32":
        return f"{family},Flat" if family.startswith("IVF") else family
    return _encoded(family, precision, dim)


def _encoded(family: str, precision: str, dim: int) -> str:
    before, code = "", _SCALAR_CODES.get(precision)
    if precision in ("pq", "opq"):
        if dim % PQ_NUMBERS_PER_BYTE:
            raise PlanError(
                f"precision {precision!r} stores {PQ_NUMBERS_PER_BYTE} numbers per byte and cannot cut "
                f"dimension {dim}; choose a multiple of {PQ_NUMBERS_PER_BYTE}, or name the index: PQ<bytes>x8"
            )
        parts = dim // PQ_NUMBERS_PER_BYTE
        code, before = f"PQ{parts}x8", f"OPQ{parts}," if precision == "opq" else ""
    elif precision == "rabitq":
        if family.startswith("HNSW"):
            raise PlanError(f"FAISS has no {family} over RaBitQ codes; choose index Flat or IVF<lists>")
        # The code's error bound holds after a random rotation (Gao and Long 2024, RaBitQ).
        code, before = "RaBitQ", "RR,"
    if family == "Flat":
        return f"{before}{code}"
    return f"{before}{family}{'_' if family.startswith('HNSW') else ','}{code}"


def is_binary(factory: str) -> bool:
    """Whether the factory string is of a binary index: packed bits and Hamming distance."""
    return _BINARY.fullmatch(factory) is not None


def check_setting(index: str, precision: str, dim: int, n_docs: int) -> str:
    """The factory string, after making sure that FAISS would build it over `n_docs` vectors.

    An index is made but holds no vector. Raises PlanError with what FAISS, the dimension or the
    corpus stands against, MissingPackageError without FAISS.
    """
    factory = factory_string(index, precision, dim)
    empty = make_index(factory, dim)
    lists = getattr(inner_index(empty), "nlist", 0)
    if lists > n_docs:
        raise PlanError(
            f"index {factory!r} has {lists} lists, more than the corpus's {n_docs} documents; "
            f"choose IVF{max(1, int(n_docs**0.5))} or fewer"
        )
    bits = re.search(r"PQ\d+(?:x(\d+))?(?![\dx])", factory)
    if bits and 2 ** int(bits[1] or 8) > n_docs:
        raise PlanError(
            f"index {factory!r} needs {2 ** int(bits[1] or 8)} documents to train its product quantizer, "
            f"the corpus has {n_docs}; choose int8 or uint4"
        )
    return factory


def make_index(factory: str, dim: int):
    """An empty, untrained FAISS index with inner product (Hamming for binary). Raises PlanError."""
    faiss = load_faiss()
    binary = is_binary(factory)
    if binary and dim % 8:
        raise PlanError(f"index {factory!r} packs 8 numbers per byte; dimension {dim} is not a multiple of 8")
    _check_numbers(factory, dim)
    try:
        if binary:
            made = faiss.index_binary_factory(dim, factory)
        else:
            made = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError:
        raise PlanError(
            f"FAISS has no index {factory!r} at dimension {dim}; "
            "see its wiki page 'The index factory' for the strings there are"
        ) from None
    return made


def _check_numbers(factory: str, dim: int) -> None:
    """FAISS ends the process for HNSW0, and takes 100 GB for IVF with too many zeros."""
    for what, pattern, least, most in _BOUNDS:
        for number in map(int, pattern.findall(factory)):
            if not least <= number <= most:
                raise PlanError(f"index {factory!r}: {number} {what} cannot work; choose {least}..{most}")
    parts = re.fullmatch(r"(?:IVF\d+(?:_HNSW\d+)?,|HNSW\d*_)?PQ(\d+)(?:x\d+)?", factory)
    if parts and dim % int(parts[1]):
        raise PlanError(
            f"index {factory!r} cuts a vector into {parts[1]} equal parts, which {dim} numbers cannot be; "
            f"choose a divisor of {dim}"
        )


def check_arguments(factory: str, arguments: Mapping[str, int], *, known: Mapping[str, str]) -> None:
    """Raise PlanError for an argument that is unknown, or that this index would ignore."""
    for name, value in arguments.items():
        if name not in known:
            raise PlanError(f"unknown argument {name!r} of index {factory!r}; choose from {', '.join(known)}")
        if known[name] not in factory:
            raise PlanError(f"index {factory!r} has no {name}; it belongs to {known[name]} indexes")
        if value < 1:
            raise PlanError(f"{name}={value} of index {factory!r} must be at least 1")
        if name in _SWITCHES and value != 1:
            raise PlanError(f"{name}={value} of index {factory!r} must be 1, or be left out")


def reason_of(error: Exception) -> str:
    """What a FAISS error says in words, without the C++ it comes from."""
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return said.rsplit("failed: ", 1)[-1].rsplit("Error: ", 1)[-1].strip("'")


def inner_index(index):  # noqa: ANN001
    """The index inside transforms, as its own type."""
    faiss = load_faiss()
    if isinstance(index, faiss.IndexBinary):
        return faiss.downcast_IndexBinary(index)
    index = faiss.downcast_index(index)
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index
