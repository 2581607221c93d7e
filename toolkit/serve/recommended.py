"""The setting that a results folder recommends, as the defaults of a name that clients ask for.

A sweep compares stored vectors with queries in the way of its index: FAISS quantizes documents to 8 and 4 bits and
keeps queries as floats; of bits it compares bits. So the type of a query's vector is not always that of a document's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.decide.recommend import recommend
from toolkit.decide.recommendation import Candidate
from toolkit.embedding.protocol import Embedder
from toolkit.errors import PlanError, ResultsError
from toolkit.experiment.results import Results
from toolkit.experiment.setting import Setting
from toolkit.judge.sources import measured_data
from toolkit.serve.calibration import Calibration, trained_as
from toolkit.serve.model import Alias
from toolkit.space import EmbeddingSpace
from toolkit.wire.codes import RANGED

SUFFIX = "#recommended"

# What the server sends for each precision of stored vectors, to be stored and to be searched with. Product codes and
# RaBitQ are the index's own work, from floats.
_TYPES = {
    "float16": ("float16", "float"),
    "int8": ("int8", "float"),
    "uint4": ("uint4", "float"),
    "binary": ("ubinary", "ubinary"),
}


@dataclass(frozen=True)
class RecommendedSetting:
    """What `toolkit recommend` advises for a folder, its likely setting where that is cheaper than the proven one."""

    results: Results
    advised: Candidate

    @classmethod
    def of(cls, folder: Path) -> RecommendedSetting:
        """Read and weigh a results folder; raises ResultsError if it recommends nothing."""
        results = Results.load(folder)
        advised = recommend(results).advised
        if advised is None:
            raise ResultsError(
                f"{folder} recommends no setting, as none keeps the quality; sweep more settings into it"
            )
        return cls(results, advised)

    @property
    def setting(self) -> Setting:
        """As the sweep measured it."""
        return Setting.parse(self.advised.setting)

    @property
    def types(self) -> tuple[str, str]:
        """Of a document's vector and of a query's."""
        return _TYPES.get(self.setting.precision, ("float", "float"))

    @property
    def needs_ranges(self) -> bool:
        """Whether its vectors are quantized with a calibration."""
        return self.types[0] in RANGED

    def check(self, space: EmbeddingSpace) -> str | None:
        """A warning where another space is served than was measured; raises PlanError for another model."""
        then = self._space
        if (then.get("model"), then.get("full_dim")) != (space.model, space.full_dim):
            raise PlanError(
                f"{self.results.folder} was measured with {then.get('model')} ({then.get('full_dim')} dimensions), and "
                f"{space.model} ({space.full_dim}) is served; serve the embedder that was measured, or sweep this one"
            )
        if then.get("fingerprint") == space.fingerprint:
            return None
        changed = ", ".join(
            f"{name} {then.get(name)!r} then, {getattr(space, name)!r} now"
            for name in ("revision", "engine", "engine_version", "dtype", "pooling", "max_tokens")
            if then.get(name) != getattr(space, name)
        )
        return (
            f"warning: the space is not the one that {self.results.folder} measured ({changed}); its vectors "
            "need not be alike: compare them, or serve as it was measured"
        )

    def alias(self) -> Alias:
        """Its dimension, types and instruction, and what /v1/models says of it."""
        setting, (document, query) = self.setting, self.types
        about: dict[str, Any] = {
            "setting": setting.key,
            "verdict": self.advised.verdict,
            "retained": self.advised.retained,
            "dimensions": setting.dim,
            "embedding_types": {"document": document, "query": query},
            "instruction": setting.instruction,
            "index": setting.index,
            "rescore": [
                {"dimensions": stage.dim, "candidates": stage.candidates} for stage in setting.rescore
            ],
            "measured_fingerprint": self._space.get("fingerprint"),
        }
        instruction = None if setting.instruction == "default" else setting.instruction
        return Alias(setting.dim, instruction, document, query, {"recommended": about})

    def calibration(self, engine: Embedder) -> Calibration:
        """The ranges that the sweep's indexes of codes were trained to; raises ResultsError if its texts are gone."""
        results = self.results
        return trained_as(
            engine, measured_data(results), dim=self.setting.dim, seed=results.plan.seed, source=results.name
        )

    @property
    def _space(self) -> dict[str, Any]:
        then = self.results.environment.get("space")
        return then if isinstance(then, dict) else {}
