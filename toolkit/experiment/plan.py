"""What a sweep is to measure: typed, read from TOML, and checked whole before any model loads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from toolkit.embedding.config import EmbedderConfig, parse_spec
from toolkit.embedding.keys import check_key_of_file
from toolkit.errors import DimensionError, PlanError
from toolkit.files import parse_toml
from toolkit.measure.metrics import metric_named
from toolkit.redact import redacted
from toolkit.search.backend import AUTO, Precision
from toolkit.search.filters import GRAINS
from toolkit.space import EmbeddingSpace

_SMALLEST_AUTO_DIM = 32
# As the quality measures look at the first 10.
FEWEST_NEIGHBOURS = 10
# How a plan names an embedder or a set that was handed over as an object; it cannot be opened again.
OBJECT_SPEC = "object:"


class _Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IndexPlan(_Plan):
    """One index: how it is built, and each way it is searched.

    factory : the index as its backend names it: for FAISS a factory string, ``Flat``, ``HNSW32``,
        ``IVF256`` ..; the precision is swept apart. ``<backend>:<index>`` names both, ``exact`` is the
        exact scan, which needs no FAISS. ``<backend>@<uri>:<index>`` names the server too.
    build : build arguments, for example ``{efConstruction = 80}``; ``{on_disk = 1}`` keeps the lists of FAISS's IVF
        indexes in a file.
    search : search arguments, one setting each, for example ``[{efSearch = 32}, {efSearch = 128}]``;
        empty means the backend's curve for that kind of index.
    backend : ``faiss``, ``exact`` or any other that is installed; ``auto`` is FAISS, or for ``Flat`` where
        FAISS is not installed, the exact scan. A database at an address is ``<backend>@<uri>``; in a plan, `uri` may
        stand apart: ``{factory = "HNSW32", backend = "milvus", uri = "http://host:19530"}``. An address with a
        password is refused, because results keep the plan.
    """

    factory: str
    build: dict[str, int] = Field(default_factory=dict)
    search: list[dict[str, int]] = Field(default_factory=list)
    backend: str = AUTO

    @model_validator(mode="before")
    @classmethod
    def _named_with_its_backend(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw input
        if not isinstance(value, dict) or not isinstance(value.get("factory"), str):
            return value
        backend, mark, index = value["factory"].rpartition(":")
        if value["factory"] == "exact":
            backend, mark, index = "exact", ":", "Flat"
        named = value | {"backend": backend, "factory": index} if mark else dict(value)
        uri = named.pop("uri", None)
        if uri is not None:
            named["backend"] = f"{named.get('backend', AUTO)}@{uri}"
        return named

    @field_validator("factory")
    @classmethod
    def _one_word(cls, value: str) -> str:
        if not re.fullmatch(r"[^\s:]+", value):
            raise ValueError("an index is one word, <backend>:<index> or <backend>@<uri>:<index>")
        return value

    @field_validator("backend")
    @classmethod
    def _address_without_secrets(cls, value: str) -> str:
        if not re.fullmatch(r"[^\s:@]+(@\S+)?", value):
            raise ValueError("a backend is one word, or <backend>@<uri> without blanks")
        if redacted(value) != value:
            raise ValueError(
                "an address with a user or a password in it would be kept in the results; name the user as "
                "?user=<name>, and leave secrets to MILVUS_TOKEN, PGPASSWORD or ~/.pgpass"
            )
        return value


class StagePlan(_Plan):
    """A later stage of a search: the best candidates of the stage before it, scored again exactly.

    dim : dimension of this stage; ``"full"`` is the model's.
    candidates : how many documents it is handed, whatever k is; at least k. A list tries each number.
    """

    dim: Annotated[int, Field(ge=1)] | Literal["full"] = "full"
    candidates: (
        Annotated[int, Field(ge=1)] | Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    ) = 400

    @property
    def numbers(self) -> list[int]:
        """The numbers of candidates to try."""
        return self.candidates if isinstance(self.candidates, list) else [self.candidates]


class TimingPlan(_Plan):
    """How latency and throughput are measured.

    queries : single queries timed in each round.
    rounds : passes over all settings; interleaved, so that drift hits all alike.
    threads : thread counts, 0 for every core; single queries are reported at the first, batches at the last.
    fractions : further corpus sizes to time at, as parts of the whole; with two of them, latency at
        another corpus size can be extrapolated. Each builds every index once more.
    filters : searches among a part of the corpus that a filter lets pass, by its share: ``[0.01, 0.1, 0.5]``. Times
        single queries without later stages, and compares what they find with the exact search of that part.
    """

    queries: Annotated[int, Field(ge=1)] = 200
    rounds: Annotated[int, Field(ge=1)] = 3
    threads: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [1, 0]
    fractions: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=list)
    filters: list[Annotated[float, Field(ge=1 / GRAINS, lt=1)]] = Field(default_factory=list)


class SweepPlan(_Plan):
    """Dimension x precision x index x instruction, on one data set with one embedder.

    embedder : a spec (``static``, ``local:<id>``, ``http://host/v1#model``) or an engine's config.
    data : a spec (``builtin``, ``beir:<folder>``, ``texts:<file>``, ``pairs:<file>``, ``mteb:<task>``).
    dims : embedding dimensions, or ``"auto"``: 32, 48, 64, 96, .. up to the full one.
    instructions : ``default`` is the model's own, ``none`` no instruction, else the text.
    rescore : later stages to try beside plain one-stage search: ``{dim = "full", candidates = 400}``, or a
        list of such stages for a longer funnel. They read float32 rows from a memory-mapped file.
    k : neighbours kept; at least 10, as the quality measures look at the first 10 or 100. The default is no
        more than the corpus holds.
    metrics : quality measures: ``ndcg@10``, ``recall@100``, ``mrr@10``, ``map@100``; ``kept_ndcg@10``, ``overlap@10``,
        ``rbo@10``, ``safe_ndcg@10``, which need no judgements. The first is what settings are judged by. ``"auto"`` is
        nDCG@10, recall@1, @10 and @100, MRR@10, MAP@k and overlap@10, as far as k goes; on a set without judgements
        the four that need none; on a set of pairs, its one measure.
    max_queries : larger sets are sampled to this many queries or pairs, with `seed`; 0 measures all.
    unlabelled : a file of queries without judgements (``.txt``, one per line; ``.csv``, ``.tsv``, ``.jsonl`` or
        ``.parquet`` with a column ``text`` or ``query``), searched too, for what rankings alone can tell. Else those of
        the data set that nobody judged; else sentences of its documents stand in for them.
    max_unlabelled : at most so many of them, sampled with `seed`; 0 searches none.
    clusters : a file of query ids and their clusters, between tabs: queries of one cluster are not independent.
    """

    embedder: str | EmbedderConfig = "static"
    data: str = "builtin"
    dims: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | Literal["auto"] = "auto"
    precisions: Annotated[list[Precision], Field(min_length=1)] = ["float32"]
    indexes: Annotated[list[IndexPlan], Field(min_length=1)] = [IndexPlan(factory="Flat")]
    instructions: Annotated[list[str], Field(min_length=1)] = ["default"]
    rescore: list[Annotated[list[StagePlan], Field(min_length=1)]] = Field(default_factory=list)
    k: Annotated[int, Field(ge=FEWEST_NEIGHBOURS)] = 100
    metrics: Annotated[list[str], Field(min_length=1)] | Literal["auto"] = "auto"
    max_queries: Annotated[int, Field(ge=0)] = 2_000
    unlabelled: str | None = None
    max_unlabelled: Annotated[int, Field(ge=0)] = 2_000
    clusters: str | None = None
    timing: TimingPlan = Field(default_factory=TimingPlan)
    seed: int = 0

    @field_validator("indexes", mode="before")
    @classmethod
    def _factory_alone(cls, value: Any) -> Any:  # noqa: ANN401 - pydantic hands over raw input
        """A bare factory string stands for an index with default arguments."""
        if isinstance(value, list):
            return [{"factory": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("rescore", mode="before")
    @classmethod
    def _stage_alone(cls, value: Any) -> Any:  # noqa: ANN401
        """A stage that stands alone is a funnel of one."""
        if isinstance(value, list):
            return [[item] if isinstance(item, dict | StagePlan) else item for item in value]
        return value

    @field_validator("embedder")
    @classmethod
    def _known_spec(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, str) and not value.startswith(OBJECT_SPEC):
            parse_spec(value)
        return value

    @field_validator("max_queries")
    @classmethod
    def _enough_queries(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one query has no spread; choose at least 2, or 0 for all")
        return value

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            for name in value:
                metric_named(name)
        return value

    @field_validator("dims", "instructions", "precisions", "metrics")
    @classmethod
    def _distinct(cls, value: Any) -> Any:  # noqa: ANN401
        return list(dict.fromkeys(value)) if isinstance(value, list) else value

    def dims_within(self, full_dim: int) -> list[int]:
        """The plan's dimensions, ascending; the full one is always among them.

        Raises DimensionError for one beyond `full_dim`, a later stage's included.
        """
        named = [] if self.dims == "auto" else self.dims
        later = [stage.dim for stages in self.rescore for stage in stages if stage.dim != "full"]
        beyond = [dim for dim in [*named, *later] if dim > full_dim]
        if beyond:
            raise DimensionError(
                f"dimension {beyond[0]} is outside the embedder's range; choose 1..{full_dim}"
            )
        return sorted({*named, full_dim}) if named else auto_dims(full_dim)

    @property
    def least_full_dim(self) -> int:
        """The smallest full dimension that an embedder must have for this plan."""
        named = [] if self.dims == "auto" else self.dims
        later = [stage.dim for stages in self.rescore for stage in stages if stage.dim != "full"]
        return max([*named, *later], default=_SMALLEST_AUTO_DIM)

    def dims_for(self, space: EmbeddingSpace) -> list[int]:
        """`dims_within` a model's range, with a warning for each one named that it was not trained for."""
        if self.dims != "auto":
            for dim in self.dims:
                space.check_dim(dim)
        return self.dims_within(space.full_dim)

    def for_corpus(self, documents: int) -> SweepPlan:
        """The plan for a corpus of that size: a `k` that nobody chose is no larger than the corpus."""
        if "k" in self.model_fields_set or not FEWEST_NEIGHBOURS <= documents < self.k:
            return self
        return self.model_copy(update={"k": documents})

    def to_toml(self) -> str:
        """The plan as TOML that `read_plan` reads back to an equal plan."""
        fields = self.model_dump(exclude_none=True)
        if isinstance(fields["embedder"], dict):
            fields["embedder"].pop("api_key_env", None)  # which key went there is not a file's to say
        return tomli_w.dumps(fields)


def auto_dims(full_dim: int) -> list[int]:
    """32, 48, 64, 96, 128, .. below the full dimension, and the full one."""
    steps, step = [], _SMALLEST_AUTO_DIM
    while step < full_dim:
        steps += [step, step * 3 // 2]
        step *= 2
    return [dim for dim in steps if dim < full_dim] + [full_dim]


def make_plan(**fields: Any) -> SweepPlan:  # noqa: ANN401 - each field has its type in SweepPlan
    """A SweepPlan, with pydantic's findings as one-line PlanErrors."""
    try:
        return SweepPlan(**fields)
    except ValidationError as error:
        raise PlanError(_one_line(error, SweepPlan, fields)) from None


def read_fields(path: str | Path) -> dict[str, Any]:
    """What stands in a plan's file, unchecked; raises PlanError if it is no TOML."""
    try:
        return parse_toml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"plan {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PlanError(f"plan {path} is not valid TOML: {error}") from None


def read_plan(path: str | Path) -> SweepPlan:
    """Read a plan from a TOML file; raises PlanError naming the file and the key."""
    fields = read_fields(path)
    if "embedders" in fields or isinstance(fields.get("data"), list):
        raise PlanError(f"plan {path} names several embedders or data sets; toolkit.sweep_several takes it")
    try:
        check_key(fields)
        return make_plan(**fields)
    except PlanError as error:
        raise PlanError(f"plan {path}: {error}") from None


def check_key(fields: Mapping[str, Any]) -> None:
    """Raise PlanError for a file's plan that says which key goes to its server: that is its user's to say."""
    embedder = fields.get("embedder")
    if isinstance(embedder, Mapping) and embedder.get("api_key_env") is not None:
        check_key_of_file(str(embedder["api_key_env"]), str(embedder.get("base_url", "")))


def _one_line(error: ValidationError, model: type[BaseModel], given: Mapping[str, Any]) -> str:
    findings: dict[str, str] = {}
    for problem in error.errors():
        where = _path(problem["loc"], given) or "plan"
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            allowed = sorted(model.model_fields) if len(problem["loc"]) == 1 else []
            near = get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            keys = f"; allowed: {', '.join(allowed)}" if allowed else ""
            findings[where] = f"unknown key {where!r}{hint}{keys}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            value = problem.get("input")
            shown = "" if isinstance(value, dict) else f" (got {redacted(repr(value))})"
            # Where a key takes one of two types, each says what it misses.
            before = findings.get(where)
            said = f"{where}: {message}{shown}"
            findings[where] = f"{before.removesuffix(shown)}, or: {message}{shown}" if before else said
    # What is wrong inside a list says more than that the whole should have been of another type.
    inner = [
        said
        for where, said in findings.items()
        if not any(other != where and other.startswith((f"{where}[", f"{where}.")) for other in findings)
    ]
    return "; ".join(inner)


def _path(location: Sequence[int | str], given: object) -> str:
    """``indexes[1].search[0].nprobe``: pydantic's location without the names of types it tried."""
    path = ""
    for place, part in enumerate(location, start=1):
        if isinstance(part, int) and isinstance(given, Mapping):
            continue  # one that stands for a list of one
        if isinstance(part, int):
            path += f"[{part}]"
            given = given[part] if isinstance(given, list | tuple) and part < len(given) else None
        elif isinstance(given, Mapping) and (part in given or place == len(location)):
            path += f".{part}" if path else part
            given = given.get(part)
    return path


def resolve_plan(plan: SweepPlan | str | Path | None = None, **fields: Any) -> SweepPlan:  # noqa: ANN401
    """A plan, or the TOML file of one, with some fields replaced; raises PlanError."""
    if plan is None:
        return make_plan(**fields)
    base = plan if isinstance(plan, SweepPlan) else read_plan(plan)
    return make_plan(**(base.model_dump(exclude_unset=True) | fields)) if fields else base


def parse_dims(text: str) -> list[int] | Literal["auto"]:
    """``auto``, or whole numbers between commas."""
    if text == "auto":
        return "auto"
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(
            f"dims {text!r} is neither auto nor whole numbers between commas: 32,64,128"
        ) from None
