"""One device's process as the process in front sees it: started, asked, and ended. `device_worker` is its inside.

A fresh interpreter, as CUDA wants one. Texts go through a socket; rows come back in memory that both share, which
has no name and so cannot stay behind.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import toolkit.errors
from toolkit.embedding.config import LocalConfig, StaticConfig
from toolkit.embedding.tokens import TokenizerFile
from toolkit.errors import DeviceError, EngineClosedError, ToolkitError, ToolkitWarning
from toolkit.space import EmbeddingSpace, Prompts

CANCEL = b""  # sent while a request is worked on; texts always have more bytes
DONE, CANCELLED = b"done", b"cancelled"
LANE_BYTES = 32 * 2**20  # of rows that one request may have
_POLL_S = 0.05  # how soon a cancelled request is told to stop
_EXIT_WAIT_S = 10.0
_PACKAGES = Path(toolkit.errors.__file__).parents[1]


@dataclass(frozen=True, eq=False)
class Lane:
    """A way for one request at a time."""

    process: DeviceProcess
    socket: Connection
    memory: mmap.mmap


class DeviceProcess:
    """An engine in a process of its own.

    device : ``cuda:1``, ``cpu`` ..; a CUDA device is the only one that the process sees.
    share : how many such processes share this machine's cores.
    lanes : requests that it takes at once.
    """

    def __init__(self, config: LocalConfig | StaticConfig, device: str, *, share: int, lanes: int) -> None:
        self.device = device
        self.under_way = 0
        self.dead = False
        self.lanes: list[Lane] = []
        self._config = config
        inner = device
        environment = os.environ | _threads(share)
        if device.startswith("cuda"):
            environment["CUDA_VISIBLE_DEVICES"], inner = _visible(device), "cuda:0"
        if isinstance(config, LocalConfig):
            self._config = config.model_copy(update={"device": inner})
        before = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(_PACKAGES), *([before] if before else [])])
        theirs: list[Connection] = []
        files: list[int] = []
        try:
            for _ in range(lanes):
                ours, other = Pipe()
                theirs.append(other)
                files.append(_nameless_file())
                os.ftruncate(files[-1], LANE_BYTES)
                self.lanes.append(Lane(self, ours, mmap.mmap(files[-1], LANE_BYTES)))
            descriptors = [
                number
                for socket, file in zip(theirs, files, strict=True)
                for number in (socket.fileno(), file)
            ]
            command = [
                sys.executable,
                "-m",
                "toolkit.embedding.device_worker",
                ",".join(map(str, descriptors)),
            ]
            self._process = subprocess.Popen(  # noqa: S603
                command, env=environment, stdin=subprocess.DEVNULL, pass_fds=descriptors
            )
        finally:
            for other in theirs:
                other.close()
            for file in files:
                os.close(file)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask_to_open(self, *, tokenizer: bool) -> None:
        """Begin to load the model; `opened` waits for it."""
        asked = {"config": self._config.model_dump(), "device": self.device, "tokenizer": tokenizer}
        with suppress(OSError):  # `opened` tells that it has ended
            self.lanes[0].socket.send_bytes(json.dumps(asked).encode())

    def opened(self) -> tuple[EmbeddingSpace, TokenizerFile | None, list[tuple[str, str]]]:
        """What it opened, its tokenizer if that was asked for, and warnings; raises what opening failed with."""
        told = self._told(self._answer(self.lanes[0].socket))
        space = dict(told["space"])
        space["prompts"] = Prompts(**space["prompts"])
        tokenizer = told["tokenizer"]
        return (
            EmbeddingSpace(**space),
            None if tokenizer is None else TokenizerFile(**tokenizer),
            told["warnings"],
        )

    def encode(self, lane: Lane, texts: list[str], stop: threading.Event, *, full_dim: int) -> np.ndarray:
        """(n, full_dim) float32 rows; raises what the engine failed with, DeviceError if the process has ended.

        stop : set when nobody waits for them any more; EngineClosedError is raised then.
        """
        told_to_stop = False
        try:
            lane.socket.send_bytes(json.dumps(texts).encode())
            while not lane.socket.poll(_POLL_S):
                if stop.is_set() and not told_to_stop:
                    told_to_stop = True
                    lane.socket.send_bytes(CANCEL)
        except OSError:
            raise self._ended() from None
        answer = self._answer(lane.socket)
        if answer == CANCELLED:
            raise EngineClosedError("these texts were cancelled while they were encoded; encode them again")
        if answer != DONE:
            self._told(answer)
        count = len(texts) * full_dim
        return np.frombuffer(lane.memory, dtype=np.float32, count=count).reshape(-1, full_dim).copy()

    @property
    def has_ended(self) -> bool:
        """Whether the system says so."""
        return self._process.poll() is not None

    def let_end(self) -> None:
        """Tell it that nothing more will come."""
        for lane in self.lanes:
            lane.socket.close()

    def wait(self) -> None:
        """Until it has ended; one that does not is killed."""
        try:
            self._process.wait(_EXIT_WAIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self, socket: Connection) -> bytes:
        try:
            return socket.recv_bytes()
        except (EOFError, OSError):
            raise self._ended() from None

    def _told(self, answer: bytes) -> dict[str, Any]:
        told = json.loads(answer)
        if "error" not in told:
            return told
        kind = getattr(toolkit.errors, told["kind"])
        error = ToolkitError.__new__(kind)  # a message as it is, whatever the kind's own constructor takes
        error.args = (f"{told['error']} (on {self.device})",)
        raise error

    def _ended(self) -> DeviceError:
        self.dead = True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_WAIT_S)
        code = self._process.returncode
        how = "exit code unknown" if code is None else f"exit code {code}"
        if code is not None and code < 0:
            how = f"killed by {signal.Signals(-code).name}"
        return DeviceError(
            f"the process of device {self.device} has ended ({how}); what it said stands above. What was encoded "
            "is kept: run the same again, without this device if it ends again"
        )


def warn_once(warned: list[tuple[str, str]]) -> None:
    """What several processes warn of alike is said once."""
    for name, message in dict.fromkeys(map(tuple, warned)):
        warnings.warn(message, getattr(toolkit.errors, name, ToolkitWarning), stacklevel=4)


def _nameless_file() -> int:
    """A descriptor of memory where the system has that, which no mount of /dev/shm limits, else of a file."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("toolkit-rows")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _threads(share: int) -> dict[str, str]:
    """This process's part of the cores, for what multiplies and what tokenizes; what the user set stays."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    names = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
    return {name: str(max(1, cores // share)) for name in names if name not in os.environ}


def _visible(device: str) -> str:
    """What CUDA_VISIBLE_DEVICES calls a device that this process calls ``cuda:<number>``."""
    number = int(device.partition(":")[2])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return str(number)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if number >= len(names):
        raise DeviceError(
            f"device {device!r} is not there: CUDA_VISIBLE_DEVICES={visible!r} shows {len(names)}; name one of "
            "those, counted from 0, or show more"
        )
    return names[number]
