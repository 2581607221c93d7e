"""A plan laid out: which indexes to build, and which settings each of them serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from toolkit.errors import PlanError
from toolkit.experiment.plan import IndexPlan, StagePlan, SweepPlan
from toolkit.experiment.setting import RescoreStage, Setting
from toolkit.search.faiss.factory import BUILD_ARGUMENTS, SEARCH_ARGUMENTS, check_arguments, check_setting
from toolkit.space import Instruction


@dataclass(frozen=True)
class Build:
    """One index to build, and the settings it serves: its search arguments, second stages, instructions."""

    dim: int
    precision: str
    index: IndexPlan
    settings: tuple[Setting, ...]

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


def lay_out(plan: SweepPlan, dims: Sequence[int], full_dim: int) -> list[Build]:
    """Every build of a plan, by dimension, with the exact full-dimension reference among its settings."""
    labels = [Instruction.of(text).label for text in plan.instructions]
    builds = [
        Build(dim, precision, index, tuple(_settings(plan, dim, precision, index, labels, full_dim)))
        for dim in dims
        for precision in plan.precisions
        for index in plan.indexes
    ]
    references = {Setting(full_dim, instruction=label) for label in labels}
    if references <= {setting for build in builds for setting in build.settings}:
        return builds
    flat = IndexPlan(factory="Flat")
    return [*builds, Build(full_dim, "float32", flat, tuple(sorted(references)))]


def check_grid(plan: SweepPlan, builds: Sequence[Build], *, documents: int) -> None:
    """Raise PlanError for a `k` beyond the corpus or a build FAISS would refuse; builds nothing."""
    k = plan.k
    if k > documents:
        raise PlanError(f"k {k} is more than the corpus holds; choose 10..{documents}")
    for number, stages in enumerate(plan.rescore):
        _check_funnel(stages, where=f"rescore[{number}]", k=k)
    for build in builds:
        factory = check_setting(build.index.factory, build.precision, build.dim, documents)
        check_arguments(factory, build.index.build, known=BUILD_ARGUMENTS)
        for search in build.index.searches:
            check_arguments(factory, search, known=SEARCH_ARGUMENTS)


def _check_funnel(stages: Sequence[StagePlan], *, where: str, k: int) -> None:
    for place, stage in enumerate(stages):
        if min(stage.numbers) < k:
            few = min(stage.numbers)
            raise PlanError(
                f"{where}[{place}].candidates = {few} is below k = {k}: it counts documents, whatever k is "
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
    plan: SweepPlan, dim: int, precision: str, index: IndexPlan, labels: list[str], full_dim: int
) -> list[Setting]:
    funnels: list[tuple[RescoreStage, ...]] = [()]
    for stages in plan.rescore:
        dims = [full_dim if stage.dim == "full" else stage.dim for stage in stages]
        # A stage that sees no more of a vector than the one before it cannot change the order.
        if dims[-1] > dim or precision != "float32":
            funnels += [
                tuple(map(RescoreStage, dims, handed))
                for handed in product(*(stage.numbers for stage in stages))
                if list(handed) == sorted(handed, reverse=True)
            ]
    return [
        Setting(
            dim=dim,
            precision=precision,
            index=index.factory,
            build_args=index.build,
            search_args=search,
            rescore=funnel,
            instruction=label,
        )
        for label in labels
        for search in index.searches
        for funnel in funnels
    ]
