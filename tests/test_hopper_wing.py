"""What only Hopper runs: offered by what a device and its libraries are, refused elsewhere, equal to the plain path."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from toolkit.embedding import packed
from toolkit.embedding.config import LocalConfig
from toolkit.embedding.packed import reference
from toolkit.embedding.packed.engine import Setting
from toolkit.embedding.packed.hopper import cuda, gluon, small_batch, wing
from toolkit.embedding.packed.precision import Fp8
from toolkit.embedding.packed.reference import Keys, Queries, Rotary
from toolkit.embedding.packed.shape import DecoderShape
from toolkit.embedding.packed.weights import random_weights
from toolkit.errors import ModelError

FOLDER = Path(packed.__file__).parent
NARROW = DecoderShape(1, 512, 16, 8, 128, 512, 8)
on_hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="needs a Hopper GPU",
)


@pytest.fixture
def card(monkeypatch):
    """A CUDA card as torch would describe it; answers are those of that card only."""

    def described(*, capability=(9, 0), cuda="13.0", hip=None):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
        wing.refusal.cache_clear()
        return torch.device("cuda:0")

    yield described
    wing.refusal.cache_clear()


def test_a_hopper_card_under_cuda_is_accepted(card):
    assert wing.refusal(card()) is None


@pytest.mark.parametrize(
    ("described", "said"),
    [
        # An MI300 reports capability 9.4, an MI250 9.0.
        ({"hip": "6.4", "cuda": None}, "not built for NVIDIA's CUDA"),
        ({"hip": "6.4", "cuda": None, "capability": (9, 4)}, "not built for NVIDIA's CUDA"),
        ({"capability": (8, 9)}, r"\(8, 9\), not \(9, 0\)"),
        ({"capability": (10, 0)}, r"\(10, 0\), not \(9, 0\)"),
        ({"capability": (12, 0)}, r"\(12, 0\), not \(9, 0\)"),
    ],
)
def test_other_cards_get_nothing_of_it(card, described, said):
    device = card(**described)
    assert re.search(said, wing.refusal(device))
    assert wing.operations(device) is None


def test_an_amd_card_runs_plain_torch_and_no_fp8(card):
    device = card(hip="6.4", cuda=None, capability=(9, 4))
    setting = Setting.of(LocalConfig(model="m", device="cuda:0", dtype="bfloat16"), NARROW)
    assert (setting.device, setting.fused) == (device, False)
    with pytest.raises(ModelError, match="no FP8 arithmetic"):
        Fp8(NARROW, reference, device=device, dtype=torch.bfloat16)


def test_a_processor_gets_nothing_of_it():
    weights = random_weights(NARROW, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert wing.operations(torch.device("cpu")) is None
    assert wing.small_batch_refusal(weights) == "cpu is not a CUDA device"
    assert wing.small_batch(weights, None) is None


@pytest.mark.parametrize(
    ("installed", "accepted"), [("3.6.0", True), ("3.7.1", True), ("3.5.1", False), ("4.0.0", False)]
)
def test_long_text_attention_is_bound_to_versions_of_triton(monkeypatch, installed, accepted):
    monkeypatch.setattr(gluon, "version", lambda _: installed)
    gluon.attention_refusal.cache_clear()
    try:
        refused = gluon.attention_refusal()
    finally:
        gluon.attention_refusal.cache_clear()
    assert (refused is None) is accepted
    assert accepted or installed in refused


@pytest.mark.parametrize(
    ("dtype", "shape", "compiler", "said"),
    [
        (torch.float16, NARROW, True, "bfloat16, not float16"),
        (torch.bfloat16, DecoderShape(1, 512, 16, 4, 128, 512, 8), True, "4 key heads of 128"),
        (torch.bfloat16, NARROW, False, "nvidia-cuda-nvrtc"),
    ],
)
def test_the_one_kernel_pass_says_why_it_is_not_offered(monkeypatch, dtype, shape, compiler, said):
    monkeypatch.setattr(cuda, "has_compiler", lambda: compiler)
    weights = random_weights(shape, device=torch.device("cpu"), dtype=dtype)
    assert said in small_batch.refusal(weights)


def test_only_the_wing_is_imported_from_outside_and_kernels_know_no_card():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and "hopper" in (node.module or ""):
                named = [f"{node.module}.{alias.name}".rsplit("hopper.", 1)[-1] for alias in node.names]
                assert named == ["wing"], f"{path.name} imports {named}"
                assert path.name == "engine.py"


@on_hopper
def test_operations_on_hopper_are_those_of_any_card():
    """Long texts and many rows, which take Hopper's own ways, and short ones, which do not."""
    from toolkit.embedding.packed import kernels

    device = torch.device("cuda:0")
    own = wing.operations(device)
    assert gluon.attention_refusal() is None
    torch.manual_seed(0)
    rotary = Rotary.of(positions=4_096, head_dim=128, theta=1e6, device=device)
    norm = torch.rand(128, device=device).bfloat16() + 0.5
    for lengths, long in (((1_500, 700, 2_048), True), ((5, 60, 100), False)):
        total = sum(lengths)
        starts = torch.cat([torch.full((n,), sum(lengths[:i])) for i, n in enumerate(lengths)])
        rows = torch.randn(total, 16 * 128, device=device).bfloat16()
        buffer = torch.randn(total, 2 * 8 * 128, device=device).bfloat16()
        queries = Queries(rows, norm, starts.int().to(device))
        keys = Keys(buffer, 0, 8 * 128, 8, (), long)
        found, expected = (
            ops.attend(queries, keys, 1e-6, rotary=rotary, out=torch.empty_like(rows)).float()
            for ops in (own, kernels)
        )
        assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.9999
    weight = torch.randn(2 * 1_024, 512, device=device).bfloat16() / 512**0.5
    for count in (100, 4_096):
        x = torch.randn(count, 512, device=device).bfloat16()
        found, expected = (
            ops.gated_product(x, weight, out=x.new_empty(count, 1_024)).float() for ops in (own, kernels)
        )
        assert torch.nn.functional.cosine_similarity(found, expected).min() > 0.9999
