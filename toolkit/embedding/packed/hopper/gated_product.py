"""The gated product of the MLP in one kernel, which never writes what it gates.

A kernel of Triton proper; its tiles fit Hopper's shared memory, and by measurement it beats cuBLAS with a
kernel after it from some thousand rows on.
"""

# ruff: noqa: ANN001, N803 - kernel arguments have no Python types; constants are upper case

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

# Rows and columns of a tile, inputs per step, tiles of rows walked together, and the fewest rows that pay.
_TILE, _INPUTS, _GROUP, _FEWEST_ROWS = 128, 64, 16, 2_048
_ALIGNMENT = 8  # 16-bit numbers in the 16 bytes that a tensor descriptor's rows are multiples of


def pays(x: torch.Tensor, width: int) -> bool:
    """Whether the kernel is made for these rows and this width, and faster than two kernels."""
    rows, inputs = x.shape
    return rows >= _FEWEST_ROWS and width % _TILE == 0 and inputs % _ALIGNMENT == 0


def gated_product(x: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """As `reference.gated_product`, where `pays` says so."""
    (rows, inputs), width = x.shape, out.shape[1]

    def tiles(matrix: torch.Tensor, columns: int) -> TensorDescriptor:
        return TensorDescriptor.from_tensor(matrix, [_TILE, columns])

    programs = _multiprocessors(x.device)
    _gated_product[(programs,)](
        tiles(x, _INPUTS),
        tiles(weight, _INPUTS),
        tiles(out, _TILE),
        triton.cdiv(rows, _TILE),
        width,
        inputs,
        programs,
        TILE=_TILE,
        INPUTS=_INPUTS,
        GROUP=_GROUP,
        STAGES=3,
        num_warps=8,
    )
    return out


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@triton.jit
def _gated_product(
    x,
    weight,
    out,
    row_tiles,
    width,
    inputs,
    programs,
    TILE: tl.constexpr,
    INPUTS: tl.constexpr,
    GROUP: tl.constexpr,
    STAGES: tl.constexpr,
):
    # As many programs as multiprocessors, each taking tile after tile. GROUP tiles of rows go through all
    # columns together, so that what is in use at one time fits the second-level cache.
    column_tiles = width // TILE
    for tile in tl.range(tl.program_id(0), row_tiles * column_tiles, programs):
        first = tile // (GROUP * column_tiles) * GROUP
        size = tl.minimum(row_tiles - first, GROUP)
        inner = tile % (GROUP * column_tiles)
        row = (first + inner % size) * TILE
        column = inner // size * TILE
        gate = tl.zeros([TILE, TILE], dtype=tl.float32)
        up = tl.zeros([TILE, TILE], dtype=tl.float32)
        for start in tl.range(0, inputs, INPUTS, num_stages=STAGES):
            rows = x.load([row, start])
            gate = tl.dot(rows, weight.load([column, start]).T, gate)
            up = tl.dot(rows, weight.load([width + column, start]).T, up)
        out.store([row, column], (gate * tl.sigmoid(gate) * up).to(out.dtype))
