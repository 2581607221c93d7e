"""The process of one device: ``python -m toolkit.embedding.device_worker <descriptors>``; `device_process` starts it.

It opens an engine and answers on lanes: a socket that takes texts, and shared memory that rows are written to. A
lane has one request at a time, on a thread of its own; the engine's queue puts those of all lanes together.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection

import numpy as np
from pydantic import TypeAdapter

from toolkit.embedding.config import AnyConfig, EmbedderConfig, LocalConfig
from toolkit.embedding.device_process import CANCEL, CANCELLED, DONE
from toolkit.embedding.encodable import encodable
from toolkit.embedding.jobs import Caught
from toolkit.embedding.open import open_embedder
from toolkit.embedding.protocol import Embedder
from toolkit.errors import DeviceError, ToolkitError


def main(descriptors: Sequence[int]) -> None:
    """Serve lanes until their other ends are closed; descriptors come in pairs, a socket and a file."""
    # An interrupt in a terminal reaches every process of it; what to end, and when, the one in front decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sockets = [Connection(descriptor) for descriptor in descriptors[::2]]
    memories = [mmap.mmap(descriptor, 0) for descriptor in descriptors[1::2]]
    first = sockets[0]
    try:
        engine = _opened(first)
        if engine is None:
            return
        lanes = [
            threading.Thread(target=_serve, args=(socket, memory, engine), name="lane", daemon=True)
            for socket, memory in zip(sockets, memories, strict=True)
        ]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        engine.close()
    except (EOFError, OSError):  # whoever started this process has ended: there is nobody to tell
        return


def _opened(socket: Connection) -> Embedder | None:
    """The engine that was asked for, told of; None where it cannot be opened, which is told too."""
    asked = json.loads(socket.recv_bytes())
    config: AnyConfig = TypeAdapter(EmbedderConfig).validate_python(asked["config"])
    engine = None
    told: dict[str, object] = {}
    with warnings.catch_warnings(record=True) as caught, Caught() as failure:
        warnings.simplefilter("always")
        if isinstance(config, LocalConfig) and config.device.startswith("cuda"):
            _check_cuda(asked["device"])
        engine = open_embedder(config)
        told = {"space": asdict(engine.space)}
        tokenizer = getattr(engine, "tokenizer_file", lambda: None)() if asked["tokenizer"] else None
        told["tokenizer"] = None if tokenizer is None else tokenizer.as_dict()
    if failure.error is not None:
        socket.send_bytes(json.dumps(_error(failure.error)).encode())
        return None
    told["warnings"] = [
        (type(one.message).__name__, str(one.message))
        for one in caught
        if type(one.message).__module__ == ToolkitError.__module__
    ]
    socket.send_bytes(json.dumps(told).encode())
    return engine


def _check_cuda(device: str) -> None:
    """Raise DeviceError where torch cannot see the one device that this process may use."""
    import torch

    if not torch.cuda.is_available():
        raise DeviceError(f"device {device!r} is not there; name devices that nvidia-smi lists, or cpu")


def _serve(socket: Connection, memory: mmap.mmap, engine: Embedder) -> None:
    dim = engine.space.full_dim
    while True:
        try:
            request = socket.recv_bytes()
            if request == CANCEL:  # of a request that was answered just before
                continue
            texts = json.loads(request)
            rows = np.frombuffer(memory, dtype=np.float32, count=len(texts) * dim).reshape(-1, dim)
            with Caught() as failure:
                finished = _encode(engine, texts, rows, socket)
            if failure.error is not None:
                socket.send_bytes(json.dumps(_error(failure.error)).encode())
            else:
                socket.send_bytes(DONE if finished else CANCELLED)
        except (EOFError, OSError):
            return


def _encode(engine: Embedder, texts: list[str], rows: np.ndarray, socket: Connection) -> bool:
    """Write the rows of all texts; False if they were not wanted any more on the way."""
    texts = encodable(texts)
    if len(texts) == 1:
        rows[:] = engine.encode(texts)
        return True
    for positions, block in engine.stream(texts):
        rows[positions] = block
        if socket.poll(0):
            return False
    return True


def _error(error: Exception) -> dict[str, str]:
    """What the other side raises again; of an error that no one planned, its kind is told too."""
    kind = type(error)
    if isinstance(error, ToolkitError) and kind.__module__ == ToolkitError.__module__:
        return {"kind": kind.__name__, "error": str(error)}
    return {"kind": DeviceError.__name__, "error": f"{kind.__name__}: {' '.join(str(error).split())[:500]}"}


if __name__ == "__main__":
    main([int(descriptor) for descriptor in sys.argv[1].split(",")])
    sys.stdout.flush()
    os._exit(0)  # threads of libraries may still hold a device; there is nothing left to save
