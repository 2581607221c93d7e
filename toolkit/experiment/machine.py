"""What tells one machine from another where speed is concerned: processor, caches, memory, GPUs, libraries.

Knows nothing of sweeps. Everything here is read from the system, never measured, except how busy others
keep it while something is timed.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from time import monotonic
from types import ModuleType

# Of a processor's hundred flags, those that decide which kernel a library takes for vectors.
_VECTOR_FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_vpopcntdq", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2"),
)
_MODEL_FACTS = ("vendor_id", "cpu family", "model", "stepping")
_NVIDIA_QUERY = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
_NVIDIA_WAIT_S = 20


def hardware() -> dict[str, object]:
    """Processor (name, model, instruction sets, caches in KiB), usable cores, memory in GiB, GPUs, system."""
    import psutil

    return dict(_processor()) | {
        "cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": list(_gpus()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def libraries() -> dict[str, str]:
    """The linear algebra behind numpy and FAISS and the kernel each chose, as far as they are loaded."""
    from threadpoolctl import threadpool_info

    found = {}
    for loaded in threadpool_info():
        owner = _owner(loaded["filepath"])
        if loaded["user_api"] == "blas" and owner in ("numpy", "faiss"):
            parts = (loaded["internal_api"], loaded.get("version"), loaded.get("architecture"))
            found[f"{owner}_blas"] = " ".join(str(part) for part in parts if part)
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        found["faiss"] = _faiss_build(faiss)
    return dict(sorted(found.items()))


class HostLoad:
    """How busy other work kept the machine since this was made."""

    def __init__(self) -> None:
        self._since = monotonic()
        self._others_s = _busy_s() - _own_s()

    def facts(self) -> dict[str, object]:
        """One-minute load average now, and the cores that other processes used on average."""
        wall_s = max(monotonic() - self._since, 1e-9)
        others_s = _busy_s() - _own_s() - self._others_s
        return {
            "load_average_end": load_average(),
            "cores_used_by_others": round(max(0.0, others_s) / wall_s, 2),
        }


def load_average() -> float | None:
    """Processes that ran or waited over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _busy_s() -> float:
    """Processor seconds that anything spent on this machine; what a hypervisor took counts too."""
    import psutil

    times = psutil.cpu_times()
    # Linux counts a guest's time in user as well.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(value for name, value in times._asdict().items() if name not in idle)


def _own_s() -> float:
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


@lru_cache(maxsize=1)
def _processor() -> tuple[tuple[str, object], ...]:
    listed = _cpuinfo()
    name = listed.get("model name") or _sysctl("machdep.cpu.brand_string")
    numbers = [f"{label} {listed[label]}" for label in _MODEL_FACTS if label in listed]
    flags = set((listed.get("flags") or listed.get("Features") or "").split())
    return (
        ("cpu", name or platform.processor() or platform.machine()),
        ("cpu_model", ", ".join(numbers)),
        ("instruction_sets", " ".join(flag for flag in _VECTOR_FLAGS if flag in flags)),
        ("caches_kib", _caches_kib()),
    )


def _cpuinfo() -> dict[str, str]:
    """Facts of the first processor that Linux lists; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _caches_kib() -> dict[str, int]:
    """Sizes of the first core's caches, ``{"L1d": 32, "L2": 1024, ..}``."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[f"L{level}{'d' if kind == 'Data' else ''}"] = int(size[:-1])
    for name, key in (("L1d", "hw.l1dcachesize"), ("L2", "hw.l2cachesize"), ("L3", "hw.l3cachesize")):
        size = "" if found else _sysctl(key)
        if size.isdecimal():
            found[name] = int(size) // 1024
    return found


def _sysctl(name: str) -> str:
    """A fact as macOS tells it; empty elsewhere."""
    if sys.platform != "darwin":
        return ""
    return _output(["/usr/sbin/sysctl", "-n", name])


@lru_cache(maxsize=1)
def _gpus() -> tuple[str, ...]:
    """Names of all GPUs. The driver is asked, not torch: loading torch only to ask would cost seconds,
    and whether it is loaded must not change what a machine is called."""
    named = _output(_NVIDIA_QUERY).splitlines()
    if named:
        return tuple(name.strip() for name in named)
    torch = sys.modules.get("torch")  # other makers' devices, if torch is here anyway
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_NVIDIA_WAIT_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _owner(path: str) -> str:
    """``numpy`` for ``.../site-packages/numpy.libs/libopenblas.so``; FAISS's wheels carry theirs alike."""
    for part in Path(path).parts[:-1]:
        for owner in ("numpy", "faiss"):
            if part.startswith(owner):
                return owner
    return ""


def _faiss_build(faiss: ModuleType) -> str:
    """FAISS's compile options, and the instruction set it took for this processor."""
    config = getattr(faiss, "SIMDConfig", None)
    if config is not None:  # one library, which chooses as it runs
        chosen = config.get_level_name()
    else:  # one library per instruction set, of which its loader took one
        chosen = ", ".join(sorted(name for name in sys.modules if name.startswith("faiss.swigfaiss")))
    return f"{' '.join(faiss.get_compile_options().split())}; uses {chosen}"
