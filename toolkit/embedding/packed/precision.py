"""How a layer multiplies: in the dtype its weights have, or in FP8 with one scale per row.

Both offer the same four steps, so that the decoder is written once. They own the buffers between a
layer's operations, made once for a token budget and used again by every layer and pack.
"""

# ruff: noqa: D102 - the protocol documents the steps

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch

from toolkit.embedding.packed.reference import FP8, FP8_MAX
from toolkit.embedding.packed.shape import DecoderShape
from toolkit.errors import ModelError

FP8_CAPABILITY = (8, 9)  # Ada and Hopper were the first with e4m3 matrix products


@dataclass(frozen=True, eq=False)
class Fp8Matrix:
    """A matrix (out, in) in e4m3 with a float32 scale for each of its rows, (out, 1)."""

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def of(cls, matrix: torch.Tensor) -> Fp8Matrix:
        """Scale each row so that its largest magnitude is the largest e4m3 number."""
        largest = matrix.abs().amax(dim=1, keepdim=True).float().clamp_min(1e-12)
        return cls((matrix.float() * (FP8_MAX / largest)).to(FP8), largest / FP8_MAX)

    def __getitem__(self, rows: slice) -> Fp8Matrix:
        return Fp8Matrix(self.values[rows], self.scales[rows])


def _has_fp8(device: torch.device) -> bool:
    # AMD's cards report capabilities as well, and the e4m3 that some of them have is another format.
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


Rows = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class Arithmetic(Protocol):
    """The steps of a layer that depend on its precision. `Rows` is what products take.

    residual_dtype : dtype of the stream that layers add to.
    """

    residual_dtype: torch.dtype

    def matrix(self, weight: torch.Tensor) -> torch.Tensor | Fp8Matrix:
        """A weight as this arithmetic wants it."""
        ...

    def reserve(self, tokens: int) -> None:
        """Make buffers for so many tokens."""
        ...

    def norm(self, x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> Rows:
        """Add `delta` to the residual `x` in place; return the normalized rows."""
        ...

    def gated(self, rows: Rows, weight: torch.Tensor | Fp8Matrix) -> Rows:
        """The activated rows of the MLP: `reference.gated_product`."""
        ...

    def rows(self, x: torch.Tensor) -> Rows:
        """Any rows, as input of a product."""
        ...

    def pick(self, rows: Rows, chosen: torch.Tensor) -> Rows:
        """Some of the rows."""
        ...

    def multiply(self, rows: Rows, weight: torch.Tensor | Fp8Matrix, *, out: torch.Tensor) -> None:
        """out = rows x weight transposed."""
        ...

    def add(self, rows: Rows, weight: torch.Tensor | Fp8Matrix, x: torch.Tensor) -> torch.Tensor | None:
        """Add rows x weight transposed to `x`; or return it, for `norm` to add later."""
        ...


class Plain:
    """Products in the weights' own dtype; the residual is float32 and added inside the product.

    Rounding the residual to bfloat16 after each of 72 additions is most of what bfloat16 costs at the 4B
    shape: in float32 the cosine to float32 goes from 0.9990 to 0.9996, for 1.7 % of the time.
    """

    residual_dtype = torch.float32

    def __init__(
        self, shape: DecoderShape, ops: ModuleType, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._shape, self._ops, self._device, self._dtype = shape, ops, device, dtype

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return weight

    def reserve(self, tokens: int) -> None:
        self._normed = self._gated = None
        self._normed = torch.empty(tokens, self._shape.hidden, device=self._device, dtype=self._dtype)
        self._gated = torch.empty(tokens, self._shape.intermediate, device=self._device, dtype=self._dtype)

    def norm(self, x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return self._ops.rms_norm(x, weight, self._shape.norm_eps, out=self._normed[: len(x)])

    def gated(self, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self._ops.gated_product(rows, weight, out=self._gated[: len(rows)])

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def pick(self, rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        return rows[chosen]

    def multiply(self, rows: torch.Tensor, weight: torch.Tensor, *, out: torch.Tensor) -> None:
        torch.mm(rows, weight.t(), out=out)

    def add(self, rows: torch.Tensor, weight: torch.Tensor, x: torch.Tensor) -> None:
        if rows.dtype == x.dtype:
            x.addmm_(rows, weight.t())
        elif x.is_cuda and torch.version.hip is None:
            torch.addmm(x, rows, weight.t(), out_dtype=x.dtype, out=x)
        else:  # torch has products with another output dtype on NVIDIA's CUDA only
            x.add_(rows.float() @ weight.t().float())


class Fp8:
    """e4m3 products with a scale for each row of either side, accumulated in float32, out in `dtype`."""

    def __init__(
        self, shape: DecoderShape, ops: ModuleType, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._shape, self._ops, self._device, self._dtype = shape, ops, device, dtype
        self.residual_dtype = dtype
        if device.type == "cuda" and not _has_fp8(device):
            raise ModelError(
                f"{torch.cuda.get_device_name(device)} has no FP8 arithmetic; "
                "choose dtype bfloat16 or float16"
            )

    def matrix(self, weight: torch.Tensor) -> Fp8Matrix:
        return Fp8Matrix.of(weight)

    def reserve(self, tokens: int) -> None:
        self._bytes = self._scales = self._delta = self._gate_up = None
        widest = max(self._shape.hidden, self._shape.q_width, self._shape.intermediate)
        self._bytes = torch.empty(tokens * widest, device=self._device, dtype=FP8)
        self._scales = torch.empty(tokens, 1, device=self._device, dtype=torch.float32)
        self._delta = torch.empty(tokens, self._shape.hidden, device=self._device, dtype=self._dtype)
        self._gate_up = torch.empty(
            tokens, 2 * self._shape.intermediate, device=self._device, dtype=self._dtype
        )

    def norm(self, x: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor) -> Rows:
        out, scales = self._buffers(len(x), self._shape.hidden)
        self._ops.add_norm_quantize(x, delta, weight, self._shape.norm_eps, out=out, scales=scales)
        return out, scales

    def gated(self, rows: Rows, weight: Fp8Matrix) -> Rows:
        gate_up = self._gate_up[: len(rows[1])]
        self.multiply(rows, weight, out=gate_up)
        out, scales = self._buffers(len(gate_up), self._shape.intermediate)
        self._ops.silu_mul_quantize(gate_up, out=out, scales=scales)
        return out, scales

    def rows(self, x: torch.Tensor) -> Rows:
        out, scales = self._buffers(*x.shape)
        self._ops.quantize(x, out=out, scales=scales)
        return out, scales

    def pick(self, rows: Rows, chosen: torch.Tensor) -> Rows:
        values, scales = rows
        return values.view(torch.uint8)[chosen].view(FP8), scales[chosen]

    def multiply(self, rows: Rows, weight: Fp8Matrix, *, out: torch.Tensor) -> None:
        values, scales = rows
        if self._device.type == "cuda":
            torch._scaled_mm(  # noqa: SLF001 - torch has no public FP8 product yet
                values,
                weight.values.t(),
                scale_a=scales,
                scale_b=weight.scales.t(),
                out_dtype=self._dtype,
                use_fast_accum=True,
                out=out,
            )
        else:
            product = values.float() @ weight.values.float().t()
            out.copy_(product * scales * weight.scales.t())

    def add(self, rows: Rows, weight: Fp8Matrix, x: torch.Tensor) -> torch.Tensor:
        delta = self._delta[: len(x)]
        self.multiply(rows, weight, out=delta)
        return delta

    def _buffers(self, count: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._bytes[: count * width].view(count, width), self._scales[:count]
