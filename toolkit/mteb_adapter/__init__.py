"""The toolkit and mteb together: embedders as mteb encoders, local data as mteb tasks, dimension sweeps.

The only place that imports mteb's model side.
"""

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
