"""CUDA C++ compiled when it is first needed, and launched on torch's streams.

Talks to two libraries that come with torch on CUDA: the runtime compiler (NVRTC) and the driver. Knows
nothing of what a kernel computes.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cache

import torch

from toolkit.errors import ModelError
from toolkit.files import cache_folder, write_atomically

# Of cuda.h.
_MAX_DYNAMIC_SHARED_SIZE = 8
_COOPERATIVE, _CLUSTER_DIMENSION = 2, 4
_MPS_ENABLED = 133
_BFLOAT16 = 9
_SWIZZLE_128B = 3
_PROMOTE_256B = 3


def has_compiler() -> bool:
    """Whether torch's CUDA runtime compiler can be loaded here."""
    return _compiler() is not None


def compiled(source: str, architecture: str) -> bytes:
    """Machine code of a CUDA C++ source, for an architecture such as ``sm_90a``; kept on disk.

    Raises ModelError with the compiler's first complaints.
    """
    library = _compiler()
    options = [f"--gpu-architecture={architecture}", "-std=c++17"]
    version = (ctypes.c_int(), ctypes.c_int())
    library.nvrtcVersion(*(ctypes.byref(part) for part in version))
    key = "\n".join([source, *options, *(str(part.value) for part in version)])
    kept = cache_folder() / "kernels" / f"{hashlib.sha256(key.encode()).hexdigest()}.cubin"
    if kept.is_file():
        return kept.read_bytes()
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None)
    listed = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = library.nvrtcCompileProgram(program, len(options), listed)
    name = "ProgramLog" if failed else "CUBIN"
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{name}")(program, text)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise ModelError(f"a CUDA kernel does not compile for {architecture}: {text.value.decode()[:500]}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, text.raw)
    return text.raw


def shares_multiprocessors() -> bool:
    """Whether processes run on the current device side by side (MPS), and not in turns."""
    return _attribute(_MPS_ENABLED) == 1


class Kernel:
    """One kernel of a compiled source, all of whose blocks run at once.

    shared_bytes : dynamic shared memory of a block.
    cluster : blocks of a cluster, as the source states it.
    """

    def __init__(self, code: bytes, name: str, *, threads: int, shared_bytes: int, cluster: int) -> None:
        self._threads, self._shared_bytes, self._cluster = threads, shared_bytes, cluster
        module = ctypes.c_void_p()
        self._function = ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(module), code)
        _call("cuModuleGetFunction", ctypes.byref(self._function), module, name.encode())
        _call("cuFuncSetAttribute", self._function, _MAX_DYNAMIC_SHARED_SIZE, shared_bytes)

    def clusters_at_once(self) -> int:
        """Clusters that the device runs at the same time."""
        attribute = _LaunchAttribute(id=_CLUSTER_DIMENSION)
        attribute.value[:3] = [self._cluster, 1, 1]
        config = self._config(1, None, attribute)
        found = ctypes.c_int()
        _call("cuOccupancyMaxActiveClusters", ctypes.byref(found), self._function, ctypes.byref(config))
        return found.value

    def launch(self, clusters: int, arguments: Sequence[torch.Tensor | int]) -> None:
        """Queue it on torch's current stream; tensors are given by their addresses, integers as 32 bits.

        All blocks start at once or, while another kernel holds what they need, none.
        """
        values = [
            ctypes.c_int(given) if isinstance(given, int) else ctypes.c_void_p(given.data_ptr())
            for given in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        failed = self._queue(clusters, addresses)
        if failed:
            raise _error("cuLaunchKernelEx", failed)

    def runs_at_once(self, clusters: int) -> bool:
        """Whether a driver starts so many clusters of this kernel, which takes no arguments, all at once."""
        return self._queue(clusters, None) == 0

    def _queue(self, clusters: int, addresses: ctypes.Array | None) -> int:
        attribute = _LaunchAttribute(id=_COOPERATIVE)
        attribute.value[0] = 1
        config = self._config(clusters, torch.cuda.current_stream().cuda_stream, attribute)
        return _driver().cuLaunchKernelEx(ctypes.byref(config), self._function, addresses, None)

    def _config(self, clusters: int, stream: int | None, attribute: _LaunchAttribute) -> _LaunchConfig:
        return _LaunchConfig(
            grid=(clusters * self._cluster, 1, 1),
            block=(self._threads, 1, 1),
            shared_bytes=self._shared_bytes,
            stream=stream,
            attributes=ctypes.addressof(attribute),
            count=1,
        )


def tensor_map(view: torch.Tensor, box: Sequence[int]) -> bytes:
    """How the copy engine finds boxes of some size in a view of bfloat16 numbers, innermost dimension dense.

    They come swizzled by 128 bytes. Coordinates are given innermost first.
    """
    sizes, strides = view.shape[::-1], [2 * stride for stride in view.stride()[-2::-1]]
    rank = len(sizes)
    made = (ctypes.c_uint64 * 24)()
    start = ctypes.addressof(made) + 63 & ~63  # 128 bytes that begin at a multiple of 64
    _call(
        "cuTensorMapEncodeTiled",
        *(ctypes.c_void_p(start), _BFLOAT16, ctypes.c_uint32(rank), ctypes.c_void_p(view.data_ptr())),
        *((ctypes.c_uint64 * rank)(*sizes), (ctypes.c_uint64 * (rank - 1))(*strides)),
        *((ctypes.c_uint32 * rank)(*box[::-1]), (ctypes.c_uint32 * rank)(*[1] * rank)),
        *(0, _SWIZZLE_128B, _PROMOTE_256B, 0),
    )
    return ctypes.string_at(start, 128)


def _attribute(number: int) -> int:
    """An attribute of the current device; 0 from a driver that does not know it."""
    found = ctypes.c_int()
    given = ctypes.c_int(torch.cuda.current_device())
    failed = _driver().cuDeviceGetAttribute(ctypes.byref(found), number, given)
    return 0 if failed else found.value


class _LaunchAttribute(ctypes.Structure):
    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint32 * 16))


class _LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint32),
    )


@cache
def _compiler() -> ctypes.CDLL | None:
    try:
        # The name under which torch has loaded its own.
        return ctypes.CDLL(f"libnvrtc.so.{(torch.version.cuda or '').split('.')[0]}")
    except OSError:
        return None


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _call(name: str, *arguments: object) -> None:
    code = getattr(_driver(), name)(*arguments)
    if code:
        raise _error(name, code)


def _error(name: str, code: int) -> RuntimeError:
    said = ctypes.c_char_p()
    _driver().cuGetErrorString(code, ctypes.byref(said))
    return RuntimeError(f"{name}: CUDA error {code}, {(said.value or b'unknown').decode()}")
