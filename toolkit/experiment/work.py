"""How much a setting's first search compares at a corpus size, as its backend counts it.

Knows no times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.experiment.setting import Setting
from toolkit.search.backend import AUTO, IndexSpec, get_backend


@dataclass(frozen=True)
class Work:
    """The first search of one setting.

    handed_on : neighbours it has to find: k, or the candidates of the first later stage.
    """

    setting: Setting
    handed_on: int

    @classmethod
    def of_row(cls, row: Mapping[str, object], *, k: int) -> Work:
        """Of a row of a table of measurements; k is its sweep's."""
        # Tables of older versions count candidates another way; they say as much about the work.
        first = re.match(r"\d+@(\d+)", str(row["rescore"]))
        setting = Setting.from_columns({**row, "rescore": ""})
        return cls(setting, int(first[1]) if first else k)

    def compared(self, documents: int) -> float:
        """Vectors that one search compares with its query in a corpus of that size."""
        return self._counted(documents)[0]

    @property
    def bytes_each(self) -> float:
        """Bytes that one comparison reads."""
        return self._counted(1)[1]

    def _counted(self, documents: int) -> tuple[float, float]:
        setting = self.setting
        spec = IndexSpec(setting.index, setting.precision, setting.dim, dict(setting.build_args))
        # By its notation alone: FAISS need not be installed where its measurements are read.
        backend = get_backend("faiss" if setting.backend == AUTO else setting.backend)
        return backend.compared(spec, dict(setting.search_args), documents=documents, k=self.handed_on)
