"""The one-kernel pass: whether it compiles, where it fits, and what it gives beside the decoder."""

import ctypes
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from toolkit.embedding.packed import reference
from toolkit.embedding.packed.decoder import Batch, Decoder
from toolkit.embedding.packed.hopper import cuda, small_batch, wing
from toolkit.embedding.packed.packing import Pack, TokenizedTexts
from toolkit.embedding.packed.precision import Plain
from toolkit.embedding.packed.runner import Runner
from toolkit.embedding.packed.shape import QWEN3_SHAPES, DecoderShape
from toolkit.embedding.packed.weights import random_weights
from toolkit.errors import ModelError

# The narrowest that the kernel fits.
NARROW = DecoderShape(2, 512, 16, 8, 128, 1024, 62)
SIZES = range(16, small_batch.MOST_TOKENS + 1, 8)
hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0),
    reason="needs a Hopper GPU",
)


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """NVIDIA's runtime compiler from its wheel, which needs no GPU."""
    found = find_spec("nvidia")
    folders = [Path(place) / "cu13" / "lib" for place in found.submodule_search_locations] if found else []
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        pytest.skip("nvidia-cuda-nvrtc is not installed (extra dev, on Linux)")
    for builtins in sorted(folder.glob("libnvrtc-builtins.so.13*")):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libnvrtc.so.13"))
    monkeypatch.setattr(cuda, "_compiler", lambda: library)
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    return library


@pytest.mark.parametrize("name", ["0.6b", "4b", "8b"])
@pytest.mark.parametrize("tokens", [16, 40, 64])
def test_the_kernel_compiles_for_every_shape(compiler, name, tokens):
    code = cuda.compiled(small_batch._source(QWEN3_SHAPES[name], tokens, clusters=15), "sm_90a")
    assert code.startswith(b"\x7fELF")


def test_compiled_code_is_kept(compiler, tmp_path):
    first = cuda.compiled(small_batch._PROBE, "sm_90a")
    (kept,) = (tmp_path / "kernels").iterdir()
    kept.write_bytes(b"as it was")
    assert first.startswith(b"\x7fELF")
    assert cuda.compiled(small_batch._PROBE, "sm_90a") == b"as it was"


def test_a_source_that_does_not_compile_is_reported(compiler):
    with pytest.raises(ModelError, match="expected an expression"):
        cuda.compiled("__device__ int x = ;", "sm_90a")


def test_it_fits_the_published_shapes_and_no_others():
    assert all(small_batch._fits(shape) for shape in (*QWEN3_SHAPES.values(), NARROW))
    assert not small_batch._fits(DecoderShape(2, 512, 16, 4, 128, 1024, 62))
    assert not small_batch._fits(DecoderShape(2, 512, 16, 8, 64, 1024, 62))
    assert not small_batch._fits(DecoderShape(2, 640, 16, 8, 128, 1024, 62))


class Stand:
    """In the kernel's place on a CPU: another decoder, and the rows it was given."""

    most = small_batch.MOST_TOKENS
    tokens = small_batch.SmallBatchPass.tokens

    def __init__(self, weights, rotary):
        self.decoder = plain_decoder(weights)
        self.seen = []

    def __call__(self, tokens, position_ids, segment_starts):
        self.seen.append(len(tokens))
        lengths = [length for length in torch.bincount(segment_starts.long()).tolist() if length]
        last = torch.tensor(lengths).cumsum(0) - 1
        return self.decoder(
            Batch(
                tokens=tokens,
                position_ids=position_ids,
                segment_starts=segment_starts,
                last_rows=last.int(),
                lengths=lengths,
                long=False,
            )
        )


def plain_decoder(weights, **few):
    arithmetic = Plain(weights.shape, reference, device=torch.device("cpu"), dtype=torch.float32)
    decoder = Decoder(weights, arithmetic, reference, **few)
    decoder.reserve(256)
    return decoder


def test_small_packs_lose_their_filler_and_keep_their_rows():
    weights = random_weights(NARROW, device=torch.device("cpu"), dtype=torch.float32)
    made = []

    def few(weights, rotary):
        made.append(Stand(weights, rotary))
        return made[0]

    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 62, length).tolist() for length in (36, 3, 30, 70)]
    packs = [
        Pack.of(np.array(chosen), TokenizedTexts.of([lists[i] for i in chosen]))
        for chosen in ([0], [1], [2, 1], [3])
    ]
    device = torch.device("cpu")
    with_few = Runner(plain_decoder(weights, small_batch=few), device=device, budget=256, fused=False)
    without = Runner(plain_decoder(weights), device=device, budget=256, fused=False)
    for given, plain in zip(with_few.start(packs), without.start(packs), strict=True):
        (places, rows), (expected_places, expected) = given(), plain()
        np.testing.assert_array_equal(places, expected_places)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert made[0].seen == [40, 16, 40]


@hopper
@pytest.mark.parametrize("shape", [NARROW, DecoderShape(2, 2560, 32, 8, 128, 9728, 62)], ids=["narrow", "4b"])
def test_the_kernel_gives_what_the_decoder_gives_every_time(shape):
    from toolkit.embedding.packed import kernels

    device = torch.device("cuda:0")
    weights = random_weights(shape, device=device, dtype=torch.bfloat16)
    arithmetic = Plain(shape, kernels, device=device, dtype=torch.bfloat16)
    expected, given = (
        Decoder(weights, arithmetic, kernels, small_batch=few) for few in (None, wing.small_batch)
    )
    expected.reserve(64)
    given.reserve(64)
    assert given._small_batch is not None
    rng = np.random.default_rng(0)
    for tokens in SIZES:
        for lengths in ([tokens], [tokens - 3], [5, tokens - 9], [1] * tokens):
            texts = TokenizedTexts.of([rng.integers(0, 62, length).tolist() for length in lengths])
            pack = Pack.of(np.arange(len(lengths)), texts)
            rows = torch.from_numpy(pack.rows).to(device)
            last = torch.from_numpy(pack.last_rows).to(device)

            def batch(count, rows=rows, last=last):
                ids, position_ids, segment_starts = rows[:, :count].contiguous()
                return Batch(
                    tokens=ids,
                    position_ids=position_ids,
                    segment_starts=segment_starts,
                    last_rows=last,
                    lengths=(),
                    long=False,
                )

            found = given(batch(tokens)).clone()
            cosines = (found * expected(batch(len(pack)))).sum(dim=1)
            assert cosines.min() > 0.999
            for _ in range(20):  # clusters that run out of step would show
                assert torch.equal(given(batch(tokens)), found)


def pass_and_batch(seed, tokens=64):
    """A one-kernel pass with weights of its own, what it takes, and the rows it must give."""
    device = torch.device("cuda:0")
    weights = random_weights(NARROW, device=device, dtype=torch.bfloat16, seed=seed)
    rotary = reference.Rotary.of(
        positions=NARROW.positions, head_dim=128, theta=NARROW.rope_theta, device=device
    )
    few = wing.small_batch(weights, rotary)
    assert few is not None, wing.small_batch_refusal(weights)
    ids = np.random.default_rng(seed).integers(0, 62, tokens).tolist()
    pack = Pack.of(np.arange(1), TokenizedTexts.of([ids]))
    inputs = [row.contiguous() for row in torch.from_numpy(pack.rows).to(device)]
    return few, inputs, few(*inputs)[:1].clone()


@hopper
def test_passes_on_two_streams_of_a_device_end_and_are_right():
    passes = [pass_and_batch(seed) for seed in (0, 1)]
    streams = [torch.cuda.Stream() for _ in passes]
    torch.cuda.synchronize()
    for _ in range(2_000):
        for (few, inputs, _), stream in zip(passes, streams, strict=True):
            with torch.cuda.stream(stream):
                few(*inputs)
    ends = [torch.cuda.Event() for _ in passes]
    for end, stream in zip(ends, streams, strict=True):
        end.record(stream)
    # A wait without an end would hold the whole run up: the test must fail instead.
    deadline = time.monotonic() + 60
    while not all(end.query() for end in ends):
        assert time.monotonic() < deadline, "two passes wait for each other"
        time.sleep(0.01)
    for few, _, expected in passes:
        assert torch.equal(few._rows[:1], expected)


@hopper
def test_passes_of_two_processes_that_share_a_device_end_and_are_right():
    code = (
        "import torch; from tests.test_small_batch import pass_and_batch\n"
        "few, inputs, expected = pass_and_batch(0)\n"
        "print('ready', flush=True); input()\n"
        "for _ in range(2_000): rows = few(*inputs)\n"
        "torch.cuda.synchronize(); assert torch.equal(rows[:1], expected); print('right')"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for _ in range(2)
    ]
    try:
        for process in running:
            assert process.stdout.readline() == "ready\n"
        for process in running:
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.communicate(timeout=120)[0] for process in running] == ["right\n"] * 2
    finally:
        for process in running:
            process.kill()
