"""The packed engine's arithmetic, held to the version that spaces carry."""

import re

import numpy as np
import pytest
import torch

from toolkit.embedding.packed import engine, reference
from toolkit.embedding.packed.decoder import Decoder
from toolkit.embedding.packed.packing import Pack, TokenizedTexts
from toolkit.embedding.packed.precision import Fp8, Plain
from toolkit.embedding.packed.runner import Runner
from toolkit.embedding.packed.shape import DecoderShape
from toolkit.embedding.packed.weights import named_tensors, random_weights

CPU = torch.device("cpu")
SHAPE = DecoderShape(2, 32, 4, 2, 8, 64, 16)
TEXTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [15]]
# The first numbers of each text's vector, as version 2 has them.
VERSION_2 = [
    [-0.248154, 0.101387, -0.004207, 0.191775, -0.014374, -0.199785],
    [-0.27244, 0.023501, -0.060903, 0.084326, 0.139195, -0.068848],
    [-0.259764, -0.093909, -0.020329, -0.074379, 0.062149, -0.118877],
]


def vectors(arithmetic, dtype):
    """Of a decoder whose weights follow a formula, so that no generator of random numbers has a part in them."""
    weights = random_weights(SHAPE, device=CPU, dtype=dtype)
    for number, (name, tensor) in enumerate(named_tensors(weights)):
        numbers = torch.arange(tensor.numel(), dtype=torch.float64)
        wave = torch.sin(numbers**2 * 0.37 + number).view_as(tensor)
        tensor.copy_(1 + wave / 4 if name.endswith("norm.weight") else wave / 2)
    decoder = Decoder(weights, arithmetic(SHAPE, reference, device=CPU, dtype=dtype), reference)
    runner = Runner(decoder, device=CPU, budget=64, fused=False)
    (started,) = runner.start([Pack.of(np.arange(len(TEXTS)), TokenizedTexts.of(TEXTS))])
    return started()[1]


def test_vectors_are_those_of_the_stated_version():
    moved = np.abs(vectors(Plain, torch.float32)[:, :6] - VERSION_2).max()
    assert engine.VERSION == "2", "put this version's numbers here"
    assert moved < 1e-4, "vectors moved: raise engine.VERSION, or the cache hands out those of before"


@pytest.mark.parametrize(
    ("arithmetic", "dtype", "least"), [(Plain, torch.bfloat16, 0.9998), (Fp8, torch.float32, 0.97)]
)
def test_narrower_arithmetic_rounds_and_no_more(arithmetic, dtype, least):
    cosines = (vectors(Plain, torch.float32) * vectors(arithmetic, dtype)).sum(axis=1)
    assert cosines.min() > least


def test_the_engine_version_names_what_cuts_texts():
    assert re.fullmatch(rf"{engine.VERSION}, tokenizers \d+\.\d+", engine._engine_version())
