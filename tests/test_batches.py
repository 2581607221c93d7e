"""Batches of padded texts: no split costs less, and none is larger than allowed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from toolkit.embedding.batches import cheapest_batches


def cost(lengths, sizes, pass_costs):
    starts = np.cumsum([0, *sizes[:-1]])
    return sum(int(lengths[start]) * size + pass_costs for start, size in zip(starts, sizes, strict=True))


def fits(lengths, sizes, most):
    starts = np.cumsum([0, *sizes[:-1]])
    return all(size == 1 or lengths[start] * size <= most for start, size in zip(starts, sizes, strict=True))


def all_splits(count):
    for cuts in range(count):
        for inner in combinations(range(1, count), cuts):
            yield np.diff([0, *inner, count]).tolist()


@pytest.mark.parametrize("pass_costs", [0, 3, 20, 1_000])
@pytest.mark.parametrize("most", [8, 40, 10_000])
def test_no_split_costs_less(pass_costs, most):
    rng = np.random.default_rng(most + pass_costs)
    for _ in range(5):
        lengths = np.sort(rng.integers(1, 30, size=9))[::-1]
        sizes = cheapest_batches(lengths, most_tokens=most, pass_costs_tokens=pass_costs)
        assert sum(sizes) == len(lengths)
        assert fits(lengths, sizes, most)
        best = min(
            cost(lengths, split, pass_costs)
            for split in all_splits(len(lengths))
            if fits(lengths, split, most)
        )
        assert cost(lengths, sizes, pass_costs) == best


def test_texts_of_one_length_fill_batches_and_unlike_ones_are_kept_apart():
    assert cheapest_batches(np.full(10, 5), most_tokens=20, pass_costs_tokens=1) in (
        [4, 4, 2],
        [4, 2, 4],
        [2, 4, 4],
    )
    assert cheapest_batches(np.array([400, 10, 10]), most_tokens=4_096, pass_costs_tokens=64) == [1, 2]
    assert cheapest_batches(np.array([9_000, 3]), most_tokens=100, pass_costs_tokens=64) == [1, 1]
    assert cheapest_batches(np.array([], dtype=int), most_tokens=100, pass_costs_tokens=64) == []
