"""Which texts go through a padded model together: the batches that cost least, by their lengths. Knows no model."""

from __future__ import annotations

import numpy as np


def cheapest_batches(lengths: np.ndarray, *, most_tokens: int, pass_costs_tokens: int) -> list[int]:
    """How many texts each batch takes, first to last, so that all together cost least.

    A batch costs its texts times its longest one, for padding is computed too, and `pass_costs_tokens` for itself.

    lengths : (n,) tokens of each text, above 0, the longest first.
    most_tokens : of a batch, padding included; a text that is longer goes alone.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    count = len(lengths)
    least = np.zeros(count + 1, dtype=np.int64)  # what the first n texts cost
    begins = np.zeros(count + 1, dtype=np.int64)  # where the last batch of that begins
    for end in range(1, count + 1):
        # No text before this one is shorter, so no batch that ends here can hold more.
        first = end - min(end, max(1, most_tokens // int(lengths[end - 1])))
        padded = lengths[first:end] * np.arange(end - first, 0, -1)
        cost = least[first:end] + padded + pass_costs_tokens
        cost[:-1][padded[:-1] > most_tokens] = np.iinfo(np.int64).max
        best = int(np.argmin(cost))
        least[end], begins[end] = cost[best], first + best
    sizes = []
    end = count
    while end:
        sizes.append(end - int(begins[end]))
        end = int(begins[end])
    return sizes[::-1]
