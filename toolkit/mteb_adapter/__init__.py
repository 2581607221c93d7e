"""The toolkit and mteb together: embedders as mteb encoders, local data as mteb tasks, dimension sweeps.

The only place that imports mteb; its private names are all in `compat`. Raises MissingPackageError where
mteb is not installed.
"""

from toolkit.errors import require_package

require_package("mteb", needed_for="running mteb tasks", extra="mteb")

from toolkit.mteb_adapter.encoder import MtebEncoder
from toolkit.mteb_adapter.frame import benchmark_means, language_matrix, main_scores, read_frame, score_kept
from toolkit.mteb_adapter.local import local_task, open_tasks
from toolkit.mteb_adapter.sweep import sweep_tasks

__all__ = [
    "MtebEncoder",
    "benchmark_means",
    "language_matrix",
    "local_task",
    "main_scores",
    "open_tasks",
    "read_frame",
    "score_kept",
    "sweep_tasks",
]
