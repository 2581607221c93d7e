"""A plan laid out whole and checked: which indexes to build, and which settings each of them serves.

What an index is and which arguments it takes is its backend's affair; so are the checks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise, product

from toolkit.errors import InstructionWarning, PlanError
from toolkit.experiment.plan import FEWEST_NEIGHBOURS, IndexPlan, StagePlan, SweepPlan
from toolkit.experiment.setting import RescoreStage, Setting
from toolkit.search.backend import AUTO, Backend, IndexSpec, backend_of, get_backend
from toolkit.space import EmbeddingSpace, Instruction, Role

# A plain scan of more float32 bytes than these copies nothing: it reads the vectors where they lie.
SCANNED_BYTES = 4 << 30


@dataclass(frozen=True)
class Build:
    """One index to build, and the settings it serves: its search arguments, second stages, instructions.

    backend : name of the backend that builds it.
    places : numbers of the plan's `indexes` that ask for it; none for the reference alone.
    """

    backend: str
    spec: IndexSpec
    settings: tuple[Setting, ...]
    places: tuple[int, ...] = ()

    @property
    def dim(self) -> int:
        """Dimension of the vectors it holds."""
        return self.spec.dim

    @property
    def slug(self) -> str:
        """A short file name that no other build has."""
        return self.settings[0].build.slug

    @property
    def searches(self) -> list[Setting]:
        """The settings that differ in more than their instruction, which no search sees."""
        return list(dict.fromkeys(setting.search for setting in self.settings))

    def __hash__(self) -> int:
        return hash(self.settings)


def labels_of(plan: SweepPlan, space: EmbeddingSpace | None = None) -> list[str]:
    """The plan's instructions by label, each once.

    space : of the model, if it is known: of instructions that give the same query texts, the first.
    """
    labels = dict.fromkeys(Instruction.of(text).label for text in plan.instructions)
    return list(labels) if space is None else list(_by_query_text(labels, space).values())


def same_instructions(plan: SweepPlan, space: EmbeddingSpace) -> list[str]:
    """A sentence for each instruction that `labels_of` leaves out."""
    first = _by_query_text(labels_of(plan), space)
    return [
        f"instructions {first[text]!r} and {label!r} give {space.model} the same queries; "
        f"they are measured once, as {first[text]!r}"
        for label in labels_of(plan)
        if first[text := _query_text(label, space)] != label
    ]


def _by_query_text(labels: Iterable[str], space: EmbeddingSpace) -> dict[str, str]:
    first: dict[str, str] = {}
    for label in labels:
        first.setdefault(_query_text(label, space), label)
    return first


def _query_text(label: str, space: EmbeddingSpace) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InstructionWarning)  # said where the queries are embedded
        return space.render("", Role.QUERY, label)


def lay_out(
    plan: SweepPlan,
    dims: Sequence[int],
    full_dim: int,
    *,
    labels: Sequence[str] | None = None,
    documents: int = 0,
) -> list[Build]:
    """Every build of a plan, by dimension, with the exact full-dimension reference among its settings.

    labels : the instructions to measure; the plan's own if not given. What the plan names twice is there
    once, with the search arguments of both.
    documents : of the corpus. ``Flat`` of float32 that would take many GiB is scanned where its vectors lie, by the
        exact backend, unless the plan names another.
    """
    labels = labels_of(plan) if labels is None else labels
    builds: dict[Setting, Build] = {}
    for dim, precision, (place, index) in product(dims, plan.precisions, enumerate(plan.indexes)):
        with _place(f"indexes[{place}]"):
            spec = IndexSpec(index.factory, precision, dim, index.build)
            backend = _backend(index.backend, spec, documents)
        searches = index.search or backend.searches(spec)
        settings = _settings(plan, index, spec, searches, labels, full_dim)
        before = builds.setdefault(settings[0].build, Build(backend.name, spec, ()))
        joined = tuple(dict.fromkeys((*before.settings, *settings)))
        builds[settings[0].build] = replace(before, settings=joined, places=(*before.places, place))
    reference = Setting(full_dim)
    exact = IndexSpec("Flat", "float32", full_dim)
    flat = builds.setdefault(reference, Build(_backend(AUTO, exact, documents).name, exact, ()))
    wanted = (replace(reference, instruction=label) for label in labels)
    builds[reference] = replace(flat, settings=tuple(dict.fromkeys((*flat.settings, *wanted))))
    return list(builds.values())


def _backend(name: str, spec: IndexSpec, documents: int) -> Backend:
    plain = name == AUTO and (spec.index, spec.precision) == ("Flat", "float32") and not spec.build_args
    if plain and 4 * spec.dim * documents > SCANNED_BYTES:
        return get_backend("exact")
    return backend_of(name, spec.index)


def check_grid(plan: SweepPlan, builds: Sequence[Build], *, documents: int) -> None:
    """Raise PlanError, with the place in the plan, for whatever of it cannot work; builds nothing.

    Every backend checks its own indexes, over the whole corpus and over each part that is timed.
    """
    if documents < FEWEST_NEIGHBOURS:
        raise PlanError(
            f"the corpus holds {documents} documents; quality is measured among the first "
            f"{FEWEST_NEIGHBOURS} found, so it needs as many at least"
        )
    if plan.k > documents:
        raise PlanError(
            f"k {plan.k} is more than the corpus's {documents} documents; "
            f"choose {FEWEST_NEIGHBOURS}..{documents}, or leave it out"
        )
    smallest = min([documents, *smaller_sizes(plan, documents)])
    for place, share in enumerate(plan.timing.filters):
        if smallest * share < 1:
            raise PlanError(
                f"timing.filters[{place}] = {share} lets none of {smallest} documents pass; "
                f"choose {1 / smallest:g} or more"
            )
    for place, stages in enumerate(plan.rescore):
        _check_funnel(stages, where=f"rescore[{place}]", k=plan.k)
    sizes = [(documents, "")] + [
        (size, f"timing.fractions[{number}] = {fraction} leaves {size} documents: ")
        for number, (fraction, size) in enumerate(
            zip(plan.timing.fractions, smaller_sizes(plan, documents), strict=True)
        )
    ]
    for build in builds:
        backend = backend_of(build.backend, build.spec.index)
        named = f"indexes[{build.places[0]}]" if build.places else "the exact reference"
        for size, where in sizes:
            with _place(f"{where}{named}"):
                backend.check(build.spec, documents=size, k=plan.k)
        for place in build.places:
            for number, arguments in enumerate(plan.indexes[place].search):
                with _place(f"indexes[{place}].search[{number}]"):
                    backend.check_search(build.spec, arguments)


def smaller_sizes(plan: SweepPlan, documents: int) -> list[int]:
    """Documents of each part of the corpus that is timed too, in the plan's order; at least k."""
    return [max(plan.k, round(documents * fraction)) for fraction in plan.timing.fractions]


@contextmanager
def _place(where: str) -> Iterator[None]:
    """Say where in the plan it is that cannot work."""
    try:
        yield
    except PlanError as error:
        raise PlanError(f"{where}: {error}") from None


def _check_funnel(stages: Sequence[StagePlan], *, where: str, k: int) -> None:
    for place, stage in enumerate(stages):
        few = min(stage.numbers)
        stage_at = f"{where}[{place}]" if len(stages) > 1 else where
        if few < k:
            raise PlanError(
                f"{stage_at}.candidates = {few} is below k = {k}: it counts documents, whatever k is "
                f"(plans of older versions counted multiples of k: {few} there is {few * k} now); "
                f"choose {k} or more"
            )
    for place, (before, after) in enumerate(pairwise(stages), start=1):
        if min(after.numbers) > max(before.numbers):
            raise PlanError(
                f"{where}[{place}].candidates = {min(after.numbers)} is more than the "
                f"{max(before.numbers)} of the stage before it; a later stage sees the same number or fewer"
            )


def _settings(
    plan: SweepPlan,
    index: IndexPlan,
    spec: IndexSpec,
    searches: Sequence[Mapping[str, int]],
    labels: Sequence[str],
    full_dim: int,
) -> list[Setting]:
    return [
        Setting(
            dim=spec.dim,
            precision=spec.precision,
            index=index.factory,
            build_args=index.build,
            search_args=search,
            rescore=funnel,
            instruction=label,
            backend=index.backend,
        )
        for label in labels
        for search in searches
        for funnel in _funnels(plan, spec, full_dim)
    ]


def _funnels(plan: SweepPlan, spec: IndexSpec, full_dim: int) -> list[tuple[RescoreStage, ...]]:
    """No later stage at all, and each of the plan's with each of its numbers of candidates."""
    funnels: list[tuple[RescoreStage, ...]] = [()]
    for stages in plan.rescore:
        dims = [full_dim if stage.dim == "full" else stage.dim for stage in stages]
        # A stage that sees no more of a vector than the one before it cannot change the order.
        if dims[-1] > spec.dim or spec.precision != "float32":
            funnels += [
                tuple(map(RescoreStage, dims, handed))
                for handed in product(*(stage.numbers for stage in stages))
                if list(handed) == sorted(handed, reverse=True)
            ]
    return funnels
