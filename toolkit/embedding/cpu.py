"""What the processor can do, as the operating system tells it. Knows nothing of models."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def cpu_instructions() -> frozenset[str]:
    """Names of its instruction sets (``avx512_bf16``, ``amx_bf16``, on Arm ``bf16``); empty where not told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()  # not Linux
    # x86 calls the line flags, Arm Features.
    named = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(named[0].split()) if named else frozenset()
