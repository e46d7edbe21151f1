"""What a study says about noise: differences between rows, how sure they are, and what it could have seen at all.

S seeds, D documents, R resamples. Every row of a study scores the same documents, under seeds that it shares with the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shortrun.errors import UserError, missing_extra

try:
    from scipy import optimize, stats
except ImportError:
    raise missing_extra("A study", "study") from None

RESAMPLES = 2000
SIGNS = 2**16
"""The sign-flip test goes through all signs of up to 16 pairs; of more pairs, through so many of their signs."""


@dataclass(frozen=True)
class Scored:
    """One row of a study: the same documents, scored by a run of each seed."""

    nats_SD: NDArray[np.float64]
    """-log p of each document and its end."""
    characters_D: NDArray[np.int64]
    """Of each document, its end included."""
    seeds: tuple[int, ...]

    @property
    def losses_S(self) -> NDArray[np.float64]:
        """Nats per character of each seed."""
        losses_S: NDArray[np.float64] = self.nats_SD.sum(axis=1) / self.characters_D.sum()
        return losses_S

    @property
    def mean(self) -> float:
        return float(self.losses_S.mean())

    @property
    def sd(self) -> float | None:
        """Standard deviation between the seeds; None with one seed."""
        return float(self.losses_S.std(ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Difference:
    """How a row's loss differs from that of its reference, over the seeds that both were run with."""

    difference: float
    """Mean over the pairs of loss - reference loss, in nats per character."""
    interval: tuple[float, float]
    """For other seeds and other documents; with one pair, for other documents alone."""
    p: float
    """How often differences at least as far from 0 arise by chance, where the change does nothing."""
    seeds: int
    """Pairs of runs with the same seed."""
    tie: bool
    """0 lies inside the interval."""
    sd: float | None
    """Standard deviation of the paired differences; None with one pair."""


def compare(
    row: Scored, reference: Scored, *, level: float = 0.95, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Compares a row with its reference, seed by seed and document by document.

    `p` is that of the exact two-sided sign-flip test over the pairs (Fisher 1935): if the change does nothing, each pair's
    difference could as well have had the other sign. With n pairs it is never below `smallest_p(n)`.

    The interval has two levels: seeds, and the documents that all runs of both rows score.

        difference -+ t * sqrt(variance)
        variance = (variance between the seeds' differences) / n  +  (mean covariance of two seeds' differences)

    The first term holds all that differs between seeds, their luck with these documents included. The second adds what seeds
    share. Its covariance comes from a bootstrap: documents are drawn with replacement, `resamples` times, and each draw
    scores all runs. With one pair, the variance is that of its difference over the draws. `half_width` says which t.

    Simulated studies (tests/test_statistics.py) have the truth in it 94 to 96 times in 100 with 3 seeds, 95 to 96 with 5 or
    6, whichever noise is the largest, and 92 to 97 with 2. Percentiles of a bootstrap that draws seeds as well as documents
    do not: with 3 seeds they hold the truth 74 times where seeds make most of the noise, and 98 where each seed has its own
    luck with each document. Draws of n seeds vary by (n - 1) / n of what they should, and percentiles know no t distribution.
    """
    pairs = [(row.seeds.index(one), reference.seeds.index(one)) for one in row.seeds if one in reference.seeds]
    if not pairs:
        raise UserError(f"rows without a seed in common can't be compared: {row.seeds} and {reference.seeds}")
    if not np.array_equal(row.characters_D, reference.characters_D):
        ours, theirs = (f"{len(each.characters_D):,} of {each.characters_D.sum():,}" for each in (row, reference))
        raise UserError(f"rows with different documents can't be compared: {ours} characters, and {theirs}")
    nats_SD = np.array([row.nats_SD[one] - reference.nats_SD[other] for one, other in pairs])
    differences_S = nats_SD.sum(axis=1) / row.characters_D.sum()
    resampled_RS = _resample_documents(nats_SD, row.characters_D, resamples, np.random.default_rng(seed))
    difference = float(differences_S.mean())
    half = half_width(*_variances(differences_S, resampled_RS, len(row.characters_D)), level)
    return Difference(
        difference=difference,
        interval=(difference - half, difference + half),
        p=_sign_flip_p(differences_S, seed),
        seeds=len(pairs),
        tie=abs(difference) <= half,
        sd=float(differences_S.std(ddof=1)) if len(pairs) > 1 else None,
    )


def _resample_documents(
    nats_SD: NDArray[np.float64], characters_D: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Differences in nats per character of each seed, on documents drawn with replacement, `resamples` times."""
    documents = len(characters_D)
    sums_DN = np.vstack([nats_SD, characters_D]).T
    at_once = max(1, 2**20 // documents)  # 2**20 counts of documents are 8 MiB
    drawn = []
    for first in range(0, resamples, at_once):
        count = min(at_once, resamples - first)
        which_RD = rng.integers(0, documents, size=(count, documents), dtype=np.int32)
        which_RD += documents * np.arange(count, dtype=np.int32)[:, None]
        counts_RD = np.bincount(which_RD.ravel(), minlength=count * documents).reshape(count, documents)
        sums_RN = counts_RD.astype(np.float64) @ sums_DN
        drawn.append(sums_RN[:, :-1] / sums_RN[:, -1:])
    return np.concatenate(drawn)


def _variances(
    differences_S: NDArray[np.float64], resampled_RS: NDArray[np.float64], documents: int
) -> tuple[float, float, int]:
    """The two terms of the variance that `compare` describes, and the first one's degrees of freedom."""
    seeds = len(differences_S)
    covariance_SS = np.atleast_2d(np.cov(resampled_RS, rowvar=False))
    if seeds == 1:
        return float(covariance_SS[0, 0]), 0.0, max(1, documents - 1)
    shared = float(covariance_SS.sum() - covariance_SS.trace()) / (seeds * (seeds - 1))
    return float(differences_S.var(ddof=1)) / seeds, max(0.0, shared), seeds - 1


def half_width(between: float, shared: float, freedom: int, level: float = 0.95) -> float:
    """Half of an interval whose variance is an estimate with so many degrees of freedom, `between`, and a known part.

    Its t lies between the quantiles of the normal and of the t distribution, by the estimate's share of the variance to the
    power of 1.5. The power is chosen by coverage: with 2 degrees of freedom it is 94.3 to 96.0 % at any true share. Weights by
    the share alone (Cochran and Cox) have 95.0 to 97.1 %. Satterthwaite's degrees of freedom have 92.2 to 95.0 %, because
    they take an estimate for certain that is small by chance.
    """
    variance = between + shared
    if not variance:
        return 0.0
    normal, student = stats.norm.ppf((1 + level) / 2), stats.t.ppf((1 + level) / 2, freedom)
    return float(normal + (between / variance) ** 1.5 * (student - normal)) * math.sqrt(variance)


def _sign_flip_p(differences_S: NDArray[np.float64], seed: int) -> float:
    """The share of all signs that these differences could have whose mean lies at least as far from 0."""
    if len(differences_S) == 1:
        return 1.0
    tested = stats.permutation_test(
        (differences_S,),
        np.mean,
        permutation_type="samples",
        n_resamples=SIGNS,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(tested.pvalue)


def smallest_p(seeds: int) -> float:
    """The least p that so many pairs of runs can give: all differences have one sign, as 2 of 2**seeds choices have."""
    return min(1.0, 2.0 ** (1 - seeds))


def smallest_difference(sd_of_differences: float, seeds: int, power: float = 0.8, level: float = 0.95) -> float | None:
    """The least true difference that so many pairs of runs find in a share `power` of studies; None with one pair.

    A two-sided paired t test at 1 - `level` finds it. Its power is that of the noncentral t distribution, here squared into F,
    because scipy's noncentral t is not a number in places.
    """
    if seeds < 2:
        return None
    if power <= 1 - level:  # the test finds a difference this often where there is none
        return 0.0
    critical = float(stats.t.ppf((1 + level) / 2, seeds - 1)) ** 2

    def lacking(noncentrality: float) -> float:
        """What the power of the test lacks, if the square of the difference is that many squared standard errors."""
        return power - float(stats.ncf.sf(critical, 1, seeds - 1, noncentrality))

    enough = critical
    while lacking(enough) > 0:
        enough *= 2
    noncentrality = float(optimize.brentq(lacking, 1e-9, enough))
    return sd_of_differences * math.sqrt(noncentrality / seeds)
