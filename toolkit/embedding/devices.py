"""Several devices of one machine as one embedder: an engine in a process for each, and one queue in front.

A device takes its next texts when it is free. They come longest first and in ever smaller parts, so that all
devices end together; each has a second part waiting, so that it need not wait for the process in front.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from math import ceil

import numpy as np

from toolkit.embedding.config import AnyConfig, LocalConfig, StaticConfig
from toolkit.embedding.device_process import LANE_BYTES, DeviceProcess, Lane, warn_once
from toolkit.embedding.engine import Engine
from toolkit.embedding.request_queue import RequestQueue, Waiting
from toolkit.embedding.tokens import TokenizerFile
from toolkit.errors import DeviceError, EngineClosedError, PlanError
from toolkit.space import EmbeddingSpace

_LANES = 2  # of a device: one is worked on, one waits
# Of one part: a few passes of a large model on a GPU. Below the smaller one nothing is gained by dividing further.
_MOST_CHARACTERS, _LEAST_CHARACTERS = 2**20, 2**14
_CLOSE_WAIT_S = 10.0


class DevicesEmbedder(Engine):
    """Engines of one config on several devices.

    devices : CUDA devices by number or as ``cuda:1``, or ``cpu``; one may be named twice.

    Where a process ends, the texts it had fail with a DeviceError, and those of other callers go to the rest. Raises
    PlanError for what cannot run on devices, DeviceError for a device that is not there, and what an engine raises
    that cannot be opened.
    """

    def __init__(self, config: AnyConfig, devices: Sequence[str | int]) -> None:
        self.devices = device_names(devices)
        _check(config, self.devices)
        self._processes: list[DeviceProcess] = []
        self._free: list[Lane] = []
        self._change = threading.Condition()  # a lane is free again, or a process has ended
        # Also where nobody closes it, or opening fails: no process stays behind.
        self._stop = weakref.finalize(self, _close, self._processes)
        with ExitStack() as unless_opened:
            unless_opened.callback(self._stop)
            for device in self.devices:
                process = DeviceProcess(config, device, share=len(self.devices), lanes=_LANES)
                self._processes.append(process)
                process.ask_to_open(tokenizer=len(self._processes) == 1)
            opened = [process.opened() for process in self._processes]
            self._space = _common_space(self.devices, [space for space, *_ in opened])
            unless_opened.pop_all()
        warn_once([one for *_, warned in opened for one in warned])
        self._tokenizer_file = opened[0][1]
        self._free = [lane for process in self._processes for lane in process.lanes]
        queue = RequestQueue(
            self._encode_part,
            order=longest_first,
            full_dim=self._space.full_dim,
            batch_size=self._part_size,
            threads=len(self._free),
        )
        super().__init__(queue)

    @property
    def space(self) -> EmbeddingSpace:
        """Of every device."""
        return self._space

    def tokenizer_file(self) -> TokenizerFile | None:
        """The engines' own."""
        return self._tokenizer_file

    def _part_size(self, waiting: Waiting) -> int:
        """Texts of the next part: of much a share that leaves some for the others, of little what keeps all busy."""
        devices = sum(not process.dead for process in self._processes) or 1
        idle = max(1, devices - waiting.under_way)
        longest = max(1, waiting.longest)
        most = min(_MOST_CHARACTERS // longest, LANE_BYTES // (4 * self._space.full_dim))
        least = min(_LEAST_CHARACTERS // longest, ceil(waiting.texts / idle))
        return max(1, min(most, max(least, waiting.texts // (2 * devices))))

    def _encode_part(self, texts: list[str], stop: threading.Event) -> np.ndarray:
        lane = self._take_lane(stop)
        try:
            return lane.process.encode(lane, texts, stop, full_dim=self._space.full_dim)
        finally:
            with self._change:
                lane.process.under_way -= 1
                self._free.append(lane)
                self._change.notify_all()

    def _take_lane(self, stop: threading.Event) -> Lane:
        """Of the device with the least to do; raises DeviceError where none is left."""
        with self._change:
            self._leave_out_ended()
            while not self._free:
                if all(process.dead for process in self._processes):
                    raise DeviceError(
                        f"the processes of all devices ({', '.join(self.devices)}) have ended; open the embedder again"
                    )
                if stop.is_set():
                    raise EngineClosedError(
                        "these texts were cancelled before they were encoded; encode them again"
                    )
                self._change.wait(1.0)
                self._leave_out_ended()
            lane = min(self._free, key=lambda lane: lane.process.under_way)
            self._free.remove(lane)
            lane.process.under_way += 1
            return lane

    def _leave_out_ended(self) -> None:
        for process in self._processes:
            process.dead |= process.has_ended
        self._free = [lane for lane in self._free if not lane.process.dead]

    def _release(self) -> None:
        with self._change:  # what was cancelled ends after the pass it is in
            self._change.wait_for(
                lambda: not any(process.under_way for process in self._processes), timeout=_CLOSE_WAIT_S
            )
        self._stop()


def device_names(devices: Sequence[str | int]) -> tuple[str, ...]:
    """Devices as torch names them, numbers being CUDA's; raises PlanError for what is not a device's name."""
    names = [str(device).strip() for device in devices]
    for name in names:
        if not re.fullmatch(r"\d+|cuda:\d+|cpu", name):
            raise PlanError(
                f"device {name!r} is not known; choose cpu, or GPUs by number: 0, 1 or cuda:0, cuda:1"
            )
    if not names:
        raise PlanError("devices names none; choose cpu, or GPUs by number such as 0, 1")
    return tuple(f"cuda:{name}" if name.isdecimal() else name for name in names)


def longest_first(texts: Sequence[str]) -> np.ndarray:
    """Positions of all texts by descending length."""
    return np.argsort([-len(text) for text in texts], kind="stable")


def _check(config: AnyConfig, devices: Sequence[str]) -> None:
    if isinstance(config, StaticConfig):
        if set(devices) != {"cpu"}:
            raise PlanError(f"the embedder 'static' runs on the CPU, not on {', '.join(devices)}; choose cpu")
    elif not isinstance(config, LocalConfig):
        raise PlanError(
            f"devices are for models on this machine (static, local:..), not for a {config.kind} embedder; "
            "leave them out"
        )
    elif config.device != "auto":
        raise PlanError(
            f"device {config.device!r} and devices {', '.join(devices)} exclude each other; give one of them"
        )


def _common_space(devices: Sequence[str], spaces: Sequence[EmbeddingSpace]) -> EmbeddingSpace:
    """Of all devices; raises PlanError where one would make other vectors."""
    for device, space in zip(devices, spaces, strict=True):
        if space.fingerprint != spaces[0].fingerprint:
            raise PlanError(
                f"devices {devices[0]} and {device} make different vectors ({_difference(spaces[0], space)}); "
                "choose devices of one kind, or set the dtype"
            )
    return spaces[0]


def _difference(left: EmbeddingSpace, right: EmbeddingSpace) -> str:
    names = ("dtype", "engine", "engine_version", "revision", "max_tokens", "full_dim")
    return ", ".join(
        f"{name} {getattr(left, name)} and {getattr(right, name)}"
        for name in names
        if getattr(left, name) != getattr(right, name)
    )


def _close(processes: list[DeviceProcess]) -> None:
    for process in processes:
        process.let_end()
    for process in processes:
        process.wait()
