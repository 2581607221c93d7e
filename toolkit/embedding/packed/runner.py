"""Packs on a device: copies that overlap, graphs for small packs, and what to do when memory runs out.

Knows nothing of texts or tokenizers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from toolkit.embedding.packed.decoder import Batch, Decoder
from toolkit.embedding.packed.packing import Pack
from toolkit.embedding.protocol import Block
from toolkit.errors import ModelError

# Packs queued on the device: while one is computed the next is already there.
_IN_FLIGHT = 2
# Below this many tokens a pack's time is mostly launches, which a graph leaves out.
_GRAPH_TOKENS = 512
_GRAPH_TEXTS = 16
_TEXTS_STEP = 16


@dataclass(frozen=True, eq=False)
class _Pending:
    positions: np.ndarray
    rows: torch.Tensor
    done: torch.cuda.Event | None

    def block(self) -> Block:
        if self.done is not None:
            self.done.synchronize()
        return self.positions, self.rows.numpy()


class Runner:
    """Runs packs through a decoder, in the order they come.

    fused : whether the decoder runs kernels, which need no list of lengths and can be recorded.
    """

    def __init__(self, decoder: Decoder, *, device: torch.device, budget: int, fused: bool) -> None:
        self._decoder = decoder
        self._device = device
        self._fused = fused
        self._seen: set[tuple[int, int]] = set()
        self._graphs: dict[tuple[int, int], _Graph] = {}
        self.budget = budget

    def run(self, packs: Iterable[Pack]) -> Iterator[Block]:
        """Yield positions and (n, hidden) float32 rows of each pack.

        Out of memory halves `budget` and splits the pack; raises ModelError when a single text does
        not fit.
        """
        pending: deque[_Pending] = deque()
        for pack in packs:
            waiting = deque([pack])
            while waiting:
                smaller = self._start(waiting.popleft(), pending)
                waiting.extendleft(reversed(smaller))
                if len(pending) >= _IN_FLIGHT:
                    yield pending.popleft().block()
        while pending:
            yield pending.popleft().block()

    def _start(self, pack: Pack, pending: deque[_Pending]) -> list[Pack]:
        """Queue a pack's work; returns smaller packs to do instead if memory ran out."""
        reserved = max(self.budget, len(pack.tokens))
        try:
            pending.append(self._submit(pack))
        except torch.OutOfMemoryError as error:
            if len(pack.lengths) == 1 and reserved == len(pack.tokens):
                raise ModelError(
                    f"a text of {pack.used} tokens alone exceeds the memory of {self._device}; "
                    f"give max_tokens below {pack.used}, a smaller dtype or a larger device"
                ) from error
        else:
            return []
        self._graphs.clear()
        self._decoder.reserve(0)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        self.budget = max(1, reserved // 2)
        return pack.split(self.budget)

    def _submit(self, pack: Pack) -> _Pending:
        total = len(pack.tokens)
        if total > self._decoder.reserved:
            self._graphs.clear()
            self._decoder.reserve(max(total, self.budget))
        count = len(pack.positions)
        plan = _Plan.of(pack, fused=self._fused)
        host = torch.from_numpy(plan.integers)
        if self._device.type != "cuda":
            return _Pending(pack.positions, self._decoder(plan.batch(host))[:count], None)
        host = host.pin_memory()
        key = (total, plan.texts)
        if key in self._graphs:
            rows = self._graphs[key].replay(host)
        elif plan.repeats and key in self._seen:
            self._graphs[key] = graph = _Graph(self._decoder, plan, host.to(self._device))
            rows = graph.replay(host)
        else:
            self._seen.add(key)
            rows = self._decoder(plan.batch(host.to(self._device, non_blocking=True)))
        result = torch.empty(count, rows.shape[1], dtype=torch.float32, pin_memory=True)
        result.copy_(rows[:count], non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return _Pending(pack.positions, result, done)


@dataclass(frozen=True, eq=False)
class _Plan:
    """A pack as one array of integers, for one copy, and how to read it.

    integers : tokens, places and starts of each row; last rows.
    texts : how many last rows there are: the last is repeated up to a round number.
    lengths : of the texts, where no kernels run.
    longest : tokens of the longest text.
    """

    integers: np.ndarray
    total: int
    texts: int
    lengths: Sequence[int]
    longest: int

    @classmethod
    def of(cls, pack: Pack, *, fused: bool) -> _Plan:
        last, total = pack.last_rows, len(pack.tokens)
        texts = 1 if len(last) == 1 else -(-len(last) // _TEXTS_STEP) * _TEXTS_STEP
        filled = np.full(texts, last[-1], dtype=np.int32)
        filled[: len(last)] = last
        # Making the list of a pack of thousands takes time that kernels do not need spent.
        lengths = () if fused else pack.lengths.tolist()
        integers = np.concatenate([pack.tokens, pack.places, pack.starts, filled])
        return cls(integers, total, texts, lengths, int(pack.lengths.max()))

    @property
    def repeats(self) -> bool:
        """Whether packs of this shape will come again and are worth a graph."""
        return not self.lengths and self.total <= _GRAPH_TOKENS and self.texts <= _GRAPH_TEXTS

    def batch(self, integers: torch.Tensor) -> Batch:
        """The pack, given its integers on the device."""
        rows, last = integers.split([3 * self.total, self.texts])
        tokens, places, starts = rows.view(3, self.total).unbind(0)
        return Batch(
            tokens=tokens,
            places=places,
            starts=starts,
            last_rows=last,
            lengths=self.lengths,
            longest=self.longest,
        )


class _Graph:
    """A recorded forward pass of one pack size, replayed with a single call."""

    def __init__(self, decoder: Decoder, plan: _Plan, integers: torch.Tensor) -> None:
        self._integers = integers
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._rows = decoder(plan.batch(integers))

    def replay(self, host: torch.Tensor) -> torch.Tensor:
        """The rows; valid until the next replay."""
        self._integers.copy_(host, non_blocking=True)
        self._graph.replay()
        return self._rows
