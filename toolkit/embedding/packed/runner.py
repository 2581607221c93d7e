"""Packs on a device: copies that overlap, graphs for small packs, and what to do when memory runs out.

Knows nothing of texts or tokenizers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from toolkit.embedding.jobs import Started
from toolkit.embedding.packed.decoder import LONG_TEXT, Batch, Decoder
from toolkit.embedding.packed.frequency_cache import FrequencyCache
from toolkit.embedding.packed.packing import COARSE_TOKENS, Pack
from toolkit.embedding.protocol import Block
from toolkit.errors import ModelError

# Packs queued on the device: while one is computed the next is already there.
IN_FLIGHT = 2
# A pass is 250 to 500 launches, 10 to 20 ms of Python. Up to this many tokens a small model is done sooner,
# and a graph, which leaves them out, pays; so many graphs are kept.
_GRAPH_TOKENS = COARSE_TOKENS
_GRAPHS = 128
_FEWEST_TEXTS = 16
# A recorded pass makes rows for so many texts: a text of a pack of several has about as many tokens at least. What
# is left over costs its part of the last layer alone.
_TOKENS_PER_TEXT = 8

_one_recording = threading.Lock()


def current(device: torch.device) -> AbstractContextManager:
    """Makes `device` torch's current one, and its default stream the current one, whatever the thread has.

    All engines use the default stream: what one thread started there, the next thread's work comes after, and
    two engines on a device never run one-kernel passes at the same time.
    """
    if device.type != "cuda":
        return nullcontext()
    stream = _default_stream(device)
    # Finding it current takes a third of the time of making it so, and a query waits for that too.
    return nullcontext() if torch.cuda.current_stream() == stream else torch.cuda.stream(stream)


@cache
def _default_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.default_stream(device)


class _Pending:
    """Rows that the device may still be working on.

    lent : whether `rows` is memory that a later pack will overwrite.
    """

    def __init__(
        self, positions: np.ndarray, rows: np.ndarray, done: torch.cuda.Event | None, *, lent: bool = False
    ) -> None:
        self._positions, self._rows, self._done, self._lent = positions, rows, done, lent

    def settle(self) -> None:
        """Wait for the rows, and keep them where nothing overwrites them."""
        if self._done is not None:
            self._done.synchronize()
        if self._lent:
            self._rows = self._rows.copy()
        self._done, self._lent = None, False

    def block(self) -> Block:
        """The rows, once: whoever still holds this afterwards holds no memory."""
        self.settle()
        rows = self._rows
        del self._rows
        return self._positions, rows


class Runner:
    """Runs packs through a decoder, in the order they come.

    fused : whether the decoder runs kernels, which need no list of lengths and can be recorded.
    """

    def __init__(self, decoder: Decoder, *, device: torch.device, budget: int, fused: bool) -> None:
        self._decoder = decoder
        self._device = device
        self._fused = fused
        self._graphs: FrequencyCache[_Size, _Graph] = FrequencyCache(_GRAPHS, drop=_Graph.settle)
        # torch's own for recording belongs to the device that recorded first, and to all threads.
        self._recording = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.budget = budget

    def start(self, packs: Iterable[Pack]) -> Iterator[Started]:
        """Queue each pack on the device and yield what waits for its positions and (n, hidden) float32 rows.

        Not more than IN_FLIGHT of them should be left to be waited for. Out of memory halves `budget` and
        splits the pack; raises ModelError when a single text does not fit.
        """
        for pack in packs:
            waiting = deque([pack])
            while waiting:
                pending, smaller = self._start(waiting.popleft())
                waiting.extendleft(reversed(smaller))
                if pending is not None:
                    yield pending.block

    def _start(self, pack: Pack) -> tuple[_Pending | None, list[Pack]]:
        """Queue a pack's work, or if memory ran out, say which smaller packs to do instead."""
        reserved = max(self.budget, len(pack))
        try:
            with current(self._device):
                return self._submit(pack), []
        except torch.OutOfMemoryError as error:
            if len(pack.lengths) == 1 and reserved == len(pack):
                raise ModelError(
                    f"a text of {pack.used} tokens alone exceeds the memory of {self._device}; "
                    f"give max_tokens below {pack.used}, a smaller dtype or a larger device"
                ) from error
        self._reserve(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.budget = max(1, reserved // 2)
        return None, pack.split(self.budget)

    def _submit(self, pack: Pack) -> _Pending:
        if len(pack) > self._decoder.reserved:
            self._reserve(max(len(pack), self.budget))
        plan = _Plan.of(pack, rows=self._decoder.rows(pack.used, len(pack)), fused=self._fused)
        count, cuda = len(pack.positions), self._device.type == "cuda"
        graph = self._graphs.get(plan.size, lambda: self._record(plan)) if cuda and plan.repeats else None
        if graph is not None:
            return graph.replay(plan)
        integers = torch.empty(plan.count, dtype=torch.int32, pin_memory=cuda)
        plan.write(integers.numpy())
        rows = self._decoder(plan.batch(integers.to(self._device, non_blocking=True)))[:count]
        if not cuda:
            return _Pending(pack.positions, rows.numpy(), None)
        result = torch.empty(rows.shape, dtype=torch.float32, pin_memory=True)
        result.copy_(rows, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return _Pending(pack.positions, result.numpy(), done)

    def _reserve(self, tokens: int) -> None:
        """Make room for packs of so many tokens; graphs are bound to the room they were recorded in."""
        self._graphs.clear()
        self._decoder.reserve(tokens)

    def _record(self, plan: _Plan) -> _Graph:
        # A thread's first product makes cuBLAS ask for memory, which a recording does not survive: the pass of this
        # size that compiled may have been another thread's.
        integers = torch.zeros(plan.count, dtype=torch.int32, device=self._device)
        self._decoder(plan.batch(integers))
        # Recording waits for the whole device, which fails while another thread records there.
        with _one_recording:
            return _Graph(self._decoder, plan, self._recording, beside=self._graphs.any())


class _Size(NamedTuple):
    """What a recorded pass depends on: tokens, last rows, and whether some text is long."""

    total: int
    texts: int
    long: bool


@dataclass(frozen=True, eq=False)
class _Plan:
    """A pack as one array of integers, for one copy, and how to read it.

    lengths : of the texts, where no kernels run.
    """

    pack: Pack
    size: _Size
    lengths: Sequence[int]

    @classmethod
    def of(cls, pack: Pack, *, rows: int, fused: bool) -> _Plan:
        count = len(pack.lengths)
        texts = 1
        if count > 1:
            texts = max(_FEWEST_TEXTS, 1 << (max(count, rows // _TOKENS_PER_TEXT) - 1).bit_length())
        # Making the list of a pack of thousands takes time that kernels do not need spent.
        lengths = () if fused else pack.lengths.tolist()
        long = rows >= LONG_TEXT and bool(pack.lengths.max() >= LONG_TEXT)
        return cls(pack, _Size(rows, texts, long), lengths)

    @property
    def count(self) -> int:
        """Integers."""
        return 3 * self.size.total + self.size.texts

    def write(self, integers: np.ndarray) -> None:
        """Fill in the three integers of each row; then the last rows, the last one repeated."""
        pack, total, chosen = self.pack, self.size.total, integers[3 * self.size.total :]
        integers[: 3 * total].reshape(3, total)[:] = pack.rows[:, :total]
        chosen[:] = pack.used - 1
        if len(pack.lengths) > 1:
            chosen[: len(pack.lengths)] = pack.last_rows

    @property
    def repeats(self) -> bool:
        """Whether packs of this shape will come again and are worth a graph."""
        return not self.lengths and self.size.total <= _GRAPH_TOKENS

    def batch(self, integers: torch.Tensor) -> Batch:
        """The pack, given its integers on the device."""
        total, texts, long = self.size
        rows, last = integers.split([3 * total, texts])
        tokens, position_ids, segment_starts = rows.view(3, total).unbind(0)
        return Batch(
            tokens=tokens,
            position_ids=position_ids,
            segment_starts=segment_starts,
            last_rows=last,
            lengths=self.lengths,
            long=long,
        )


class _Graph:
    """A recorded forward pass of one pack size, its copies in and out too, replayed with a single call."""

    def __init__(
        self, decoder: Decoder, plan: _Plan, stream: torch.cuda.Stream, *, beside: _Graph | None
    ) -> None:
        """Recorded on `stream`, while other threads may use the device.

        beside : shares its memory; graphs of a stream run one at a time, and copy out what they made.
        """
        host = torch.empty(plan.count, dtype=torch.int32, pin_memory=True)
        rows = torch.empty(plan.size.texts, decoder.shape.hidden, dtype=torch.float32, pin_memory=True)
        self._device_integers = torch.zeros(plan.count, dtype=torch.int32, device=decoder.device)
        self._integers, self._rows = host.numpy(), rows.numpy()
        self._done = torch.cuda.Event()
        self._latest: _Pending | None = None
        self.recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            self.recorded,
            pool=beside and beside.recorded.pool(),
            stream=stream,
            capture_error_mode="thread_local",
        ):
            self._device_integers.copy_(host, non_blocking=True)
            rows.copy_(decoder(plan.batch(self._device_integers)), non_blocking=True)

    def replay(self, plan: _Plan) -> _Pending:
        """Start a pass; a pass started before is waited for, because both use the same memory."""
        self.settle()
        plan.write(self._integers)
        self.recorded.replay()
        self._done.record()
        positions = plan.pack.positions
        self._latest = _Pending(positions, self._rows[: len(positions)], self._done, lent=True)
        return self._latest

    def settle(self) -> None:
        """Wait for the pass started last, and let its rows be kept elsewhere."""
        if self._latest is not None:
            self._latest.settle()
