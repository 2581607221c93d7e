"""The one door to what only Hopper runs: what is offered on a device, and why something is not.

Every answer is the plain path's or a better one: who is refused runs `kernels` and passes as they are. Chosen
by what a device and its libraries are, never by trying: a kernel that meets a device or a compiler it was not
written for may give wrong numbers without an error.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from types import ModuleType

    from toolkit.embedding.packed.decoder import SmallBatch
    from toolkit.embedding.packed.reference import Rotary
    from toolkit.embedding.packed.weights import Weights

CAPABILITY = (9, 0)


@cache
def refusal(device: torch.device) -> str | None:
    """Why nothing here is offered on `device`; None where it is a Hopper card."""
    if device.type != "cuda":
        return f"{device} is not a CUDA device"
    if torch.version.hip is not None or torch.version.cuda is None:
        # AMD's cards report capabilities as well, such as 9.4.
        return "torch is not built for NVIDIA's CUDA"
    capability = torch.cuda.get_device_capability(device)
    if capability != CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} has compute capability {capability}, not {CAPABILITY}"
    return None


def operations(device: torch.device) -> ModuleType | None:
    """The layer's operations, a module like `kernels`; None where `refusal` says why."""
    if refusal(device) is not None:
        return None
    from toolkit.embedding.packed.hopper import operations as offered

    return offered


def small_batch(weights: Weights, rotary: Rotary) -> SmallBatch | None:
    """Passes over few tokens as one kernel; None where `small_batch_refusal` says why."""
    if small_batch_refusal(weights) is not None:
        return None
    from toolkit.embedding.packed.hopper.small_batch import SmallBatchPass

    return SmallBatchPass(weights, rotary)


def small_batch_refusal(weights: Weights) -> str | None:
    """Why the one-kernel pass is not offered for these weights where they are; None if it is."""
    device = weights.embedding.device
    reason = refusal(device)
    if reason is not None:
        return reason
    from toolkit.embedding.packed.hopper import small_batch as offered

    return offered.refusal(weights)
