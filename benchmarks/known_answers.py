"""The statistics on data whose answer is known: interval coverage, and false "keeps the quality" verdicts.

Samples of per-query quality are drawn from populations with a known mean; counted is how often the 95 %
interval holds it, and how often a setting exactly on the line is said to keep its share, by this package's
test and by a paired t test. The standard error of a share near 0.05 is 0.0034 with the default 4,000 samples.

    python benchmarks/known_answers.py [--samples N] [--save]
"""

from __future__ import annotations

import argparse

import numpy as np
from _record import record
from scipy import stats

from toolkit.measure.noninferiority import non_inferiority
from toolkit.measure.statistics import mean_intervals, paired_differences

# nDCG@10 of a query with one relevant document at rank 2, 3, .. 10
DISCOUNTS = 1 / np.log2(np.arange(3, 12))
SHARES = {"balanced": (0.5, 0.15), "mostly zeros": (0.05, 0.6), "mostly ones": (0.75, 0.05)}
SIZES = (50, 100, 300)
# Queries, and the share asked for.
LINES = ((50, 0.9), (150, 0.99), (300, 0.97), (300, 0.99), (1_000, 0.99), (2_000, 0.99))


def qualities(rng: np.random.Generator, shape: tuple[int, ...], ones: float, zeros: float) -> np.ndarray:
    """Per-query quality: a share solved, a share lost, the others in between."""
    u = rng.random(shape)
    return np.where(u < ones, 1.0, np.where(u < ones + zeros, 0.0, rng.choice(DISCOUNTS, shape)))


def interval_coverage(samples: int, seed: int = 1) -> dict[str, float]:
    """Share of 95 % intervals that hold the truth, by kind of data and number of queries."""
    rng = np.random.default_rng(seed)
    found = {}
    for n in SIZES:
        for name, (ones, zeros) in SHARES.items():
            truth = ones + (1 - ones - zeros) * DISCOUNTS.mean()
            intervals = mean_intervals(qualities(rng, (n, samples), ones, zeros), resamples=2_000)
            found[f"mean, {name}, n={n}"] = float(
                np.mean([one.low <= truth <= one.high for one in intervals])
            )
        moved = rng.random((n, samples)) < 0.4
        drift = np.where(moved, rng.normal(-0.02, 0.2, (n, samples)), 0.0)
        pairs = paired_differences(drift, np.zeros(n), resamples=2_000)
        found[f"difference, 60 % of them 0, n={n}"] = float(
            np.mean([one.low <= -0.008 <= one.high for one in pairs])
        )
    return found


def false_keeps(samples: int, seed: int = 2) -> dict[str, dict[str, float]]:
    """Share of "keeps" for settings on the line, by this package's test and by the t test."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, float]] = {"toolkit": {}, "t test": {}}
    for n, keep in LINES:
        for kind, changing in (("rare total loss", 0.0), ("12 % of answers change", 0.12)):
            ours = theirs = 0
            for _ in range(samples):
                reference = qualities(rng, (n,), *SHARES["balanced"])
                drawn_anew = rng.random(n) < changing
                values = np.where(drawn_anew, qualities(rng, (n,), *SHARES["balanced"]), reference)
                values = np.where(rng.random(n) < 1 - keep, 0.0, values)
                ours += non_inferiority(values, reference, keep=keep).keeps
                margins = values - keep * reference
                t = margins.mean() / max(margins.std(ddof=1) / np.sqrt(n), 1e-300)
                theirs += t > stats.t.ppf(0.95, n - 1)
            case = f"{kind}, keep {keep}, n={n}"
            found["toolkit"][case], found["t test"][case] = ours / samples, theirs / samples
            print(f"{case}: {ours / samples:.4f}, t test {theirs / samples:.4f}", flush=True)
    return found


def main() -> None:
    """Count, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=4_000)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    coverage = interval_coverage(options.samples)
    for case, share in coverage.items():
        print(f"{case}: {share:.4f}", flush=True)
    verdicts = false_keeps(options.samples)
    figures = {
        "lowest_coverage": min(coverage.values()),
        "highest_coverage": max(coverage.values()),
        "most_false_keeps": max(verdicts["toolkit"].values()),
        "most_false_keeps_t_test": max(verdicts["t test"].values()),
        "samples": options.samples,
        "coverage": coverage,
        "false_keeps": verdicts,
    }
    record("known_answers", figures, options.save)


if __name__ == "__main__":
    main()
