"""How much a setting's first search compares at a corpus size, as its backend counts it.

Knows no times.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from toolkit.experiment.setting import Setting
from toolkit.search.backend import AUTO, Backend, IndexSpec, Scaling, get_backend


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

    def at(self, documents: int, *, measured: int) -> Work:
        """The work of the setting one would run there; see `scaled_setting`."""
        return replace(self, setting=scaled_setting(self.setting, documents, measured=measured))

    def _counted(self, documents: int) -> tuple[float, float]:
        setting = self.setting
        return _backend(setting).compared(
            _spec(setting), dict(setting.search_args), documents=documents, k=self.handed_on
        )


def scaled_setting(setting: Setting, documents: int, *, measured: int) -> Setting:
    """What one would run over `documents` in place of a setting measured at `measured` documents.

    Lists, probes, graph width and links grow by the backend's rules; dimension, precision and later stages stay.
    """
    backend = _backend(setting)
    if not isinstance(backend, Scaling):
        return setting
    spec, arguments = backend.scaled(
        _spec(setting), dict(setting.search_args), measured=measured, documents=documents
    )
    return replace(setting, index=spec.index, search_args=tuple(sorted(arguments.items())))


def bytes_added(setting: Setting, scaled: Setting, documents: int) -> float:
    """Bytes that a scaled setting's index takes beyond what the measured one's would over so many documents."""
    backend = _backend(setting)
    if not isinstance(backend, Scaling):
        return 0.0
    return backend.bytes_added(_spec(setting), _spec(scaled), documents=documents)


def _backend(setting: Setting) -> Backend:
    # By its notation alone: FAISS need not be installed where its measurements are read.
    return get_backend("faiss" if setting.backend == AUTO else setting.backend)


def _spec(setting: Setting) -> IndexSpec:
    return IndexSpec(setting.index, setting.precision, setting.dim, dict(setting.build_args))
