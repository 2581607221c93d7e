"""Packs on a device: copies that overlap, graphs for small packs, and what to do when memory runs out.

Knows nothing of texts or tokenizers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from toolkit.embed.packed.decoder import Batch, Decoder
from toolkit.embed.packed.packing import Pack
from toolkit.embed.protocol import Block
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
    """Runs packs through a decoder, in the order they come."""

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
        try:
            pending.append(self._submit(pack))
        except torch.OutOfMemoryError as error:
            if len(pack.lengths) == 1:
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
        self.budget = max(1, min(self.budget, pack.used) // 2)
        return pack.split(self.budget)

    def _submit(self, pack: Pack) -> _Pending:
        total = len(pack.tokens)
        if total > self._decoder.reserved:
            self._graphs.clear()
            self._decoder.reserve(max(total, self.budget))
        count = len(pack.positions)
        packed, texts = _packed_integers(pack)
        host = torch.from_numpy(packed)
        if self._device.type != "cuda":
            return _Pending(pack.positions, self._forward(host, total, pack)[:count], None)
        host = host.pin_memory()
        key = (total, texts)
        if key in self._graphs:
            rows = self._graphs[key].replay(host)
        elif self._fused and key in self._seen and total <= _GRAPH_TOKENS and texts <= _GRAPH_TEXTS:
            self._graphs[key] = graph = _Graph(self._decoder, host, total)
            rows = graph.replay(host)
        else:
            self._seen.add(key)
            rows = self._forward(host.to(self._device, non_blocking=True), total, pack)
        result = torch.empty(count, rows.shape[1], dtype=torch.float32, pin_memory=True)
        result.copy_(rows[:count], non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        return _Pending(pack.positions, result, done)

    def _forward(self, packed: torch.Tensor, total: int, pack: Pack) -> torch.Tensor:
        # Kernels need no lengths; making the list of a pack of thousands would cost host time.
        return self._decoder(_batch(packed, total, lengths=() if self._fused else pack.lengths.tolist()))


class _Graph:
    """A recorded forward pass of one pack size, replayed with a single call."""

    def __init__(self, decoder: Decoder, host: torch.Tensor, total: int) -> None:
        self._packed = host.to(decoder.device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._rows = decoder(_batch(self._packed, total, lengths=()))

    def replay(self, host: torch.Tensor) -> torch.Tensor:
        """The rows; valid until the next replay."""
        self._packed.copy_(host, non_blocking=True)
        self._graph.replay()
        return self._rows


def _packed_integers(pack: Pack) -> tuple[np.ndarray, int]:
    """Tokens, places, starts and last rows in one array, for one copy; and how many last rows.

    The last one is repeated up to a round number, so that few shapes occur.
    """
    last = pack.last_rows
    count = len(last)
    texts = 1 if count == 1 else -(-count // _TEXTS_STEP) * _TEXTS_STEP
    filled = np.full(texts, last[-1], dtype=np.int32)
    filled[:count] = last
    return np.concatenate([pack.tokens, pack.places, pack.starts, filled]), texts


def _batch(packed: torch.Tensor, total: int, *, lengths: list[int] | tuple[()]) -> Batch:
    tokens, places, starts = packed[: 3 * total].view(3, total).unbind(0)
    return Batch(tokens=tokens, places=places, starts=starts, last_rows=packed[3 * total :], lengths=lengths)
