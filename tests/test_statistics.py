"""What a study says about noise: differences, their p and their intervals, and the differences it could see."""

from __future__ import annotations

import importlib
import itertools
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from shortrun.errors import UserError
from shortrun.study.statistics import Difference, Scored, compare, half_width, smallest_difference, smallest_p


def scored(nats_SD: Any, characters_D: Any, seeds: tuple[int, ...] | None = None) -> Scored:
    nats_SD = np.asarray(nats_SD, dtype=np.float64)
    return Scored(nats_SD, np.asarray(characters_D, dtype=np.int64), seeds or tuple(range(1, len(nats_SD) + 1)))


def with_differences(differences_S: list[float], documents: int = 4) -> tuple[Scored, Scored]:
    """A row and a reference whose losses differ by exactly this, on every document alike: documents add no noise."""
    characters_D = np.arange(10, 10 + documents)
    reference_SD = np.ones((len(differences_S), 1)) * characters_D
    row_SD = reference_SD + np.outer(differences_S, characters_D)
    return scored(row_SD, characters_D), scored(reference_SD, characters_D)


def a_study(
    rng: np.random.Generator,
    seeds: int,
    documents: int,
    *,
    of_seeds: float = 0.003,
    of_documents: float = 0.1,
    of_both: float = 0.12,
) -> tuple[Scored, Scored, float]:
    """Two rows as real ones are, and the difference that endless seeds and documents would show.

    A document costs 1.2 nats a character, times a lognormal factor of its own, in every run. The change is worth -0.01 nats a
    character: less on long documents, and with a noise of its own for each document, each seed, and each seed on each
    document. Noise of documents has the tails of Student's t with 4 degrees of freedom.
    """
    characters_D = rng.integers(20, 81, size=documents)

    def tailed(*shape: int) -> NDArray[np.float64]:
        return np.divide(rng.standard_t(4, size=shape), np.sqrt(2))  # of variance 1

    reference_SD = characters_D * (1.2 * rng.lognormal(0, 0.5, documents) + of_both * tailed(seeds, documents))
    a_character_SD = (
        -0.01
        + 0.001 * (characters_D - 50)
        + of_documents * tailed(documents)
        + of_seeds * rng.standard_normal((seeds, 1))
        + of_both * tailed(seeds, documents)
    )
    row_SD = reference_SD + characters_D * a_character_SD
    true = -0.01 + 0.001 * (61**2 - 1) / 12 / 50  # the variance of 20 ... 80, by their mean
    return scored(row_SD, characters_D), scored(reference_SD, characters_D), true


def resampled(row: Scored, reference: Scored, resamples: int, seed: int = 0) -> NDArray[np.float64]:
    """The difference, where seeds and documents are both drawn with replacement: the textbook's two-level bootstrap."""
    rng = np.random.default_rng(seed)
    nats_SD = row.nats_SD - reference.nats_SD
    seeds, documents = nats_SD.shape
    differences_R = np.empty(resamples)
    for index in range(resamples):
        seeds_S = np.bincount(rng.integers(0, seeds, size=seeds), minlength=seeds) / seeds
        documents_D = np.bincount(rng.integers(0, documents, size=documents), minlength=documents)
        differences_R[index] = seeds_S @ (nats_SD @ documents_D) / (documents_D @ row.characters_D)
    return differences_R


def test_losses_are_nats_over_characters_of_each_seed() -> None:
    row = scored([[10, 20], [12, 24], [17, 34]], [5, 10])
    assert row.losses_S.tolist() == [2.0, 2.4, 3.4]
    assert row.mean == pytest.approx(2.6)
    assert row.sd == pytest.approx(np.sqrt((0.36 + 0.04 + 0.64) / 2))
    assert scored([[10, 20]], [5, 10]).sd is None


def test_the_difference_is_the_mean_over_seeds_that_both_rows_have() -> None:
    """Seeds are paired by number, in any order; 9 and 7 have no partner."""
    row = scored([[100, 100], [11, 19], [12, 21]], [5, 10], seeds=(9, 2, 1))
    reference = scored([[10, 20], [13, 20], [500, 0]], [5, 10], seeds=(1, 2, 7))
    found = compare(row, reference)
    assert found.seeds == 2
    assert found.difference == pytest.approx((3 / 15 - 3 / 15) / 2)
    assert found.sd == pytest.approx(np.std([0.2, -0.2], ddof=1))
    assert found.tie


def test_rows_that_have_no_seed_in_common_or_scored_other_documents_are_refused() -> None:
    row = scored([[1, 2]], [5, 10])
    with pytest.raises(UserError, match=r"without a seed in common.*\(1,\) and \(4,\)"):
        compare(row, scored([[1, 2]], [5, 10], seeds=(4,)))
    with pytest.raises(UserError, match=r"different documents.*: 2 of 15 characters, and 1 of 5"):
        compare(row, scored([[1]], [5]))
    with pytest.raises(UserError, match="different documents"):
        compare(row, scored([[1, 2]], [10, 5]))


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([-0.1, -0.2, -0.4], 2 / 8),
        ([0.1, 0.2, 0.4, 0.3, 0.6], 2 / 32),
        ([-0.1, -0.2, -0.4, -0.3, -0.6, -0.5], 2 / 64),
        # the sum is 5; the sums of 1, 2, 4 with all signs are 7, 5, 3, 1 and minus these
        ([-1.0, 2.0, 4.0], 4 / 8),
        # the sum is 4; the sums of 1, 2, 3, 4 with all signs are 10, 8, 6, 4, 4, 2, 2, 0 and minus these
        ([1.0, 2.0, -3.0, 4.0], 10 / 16),
        ([0.0, 1.0, 1.0], 4 / 8),
        ([0.3, -0.3], 1.0),
        ([0.0, 0.0, 0.0], 1.0),
        ([0.7], 1.0),
    ],
)
def test_p_by_hand(differences: list[float], p: float) -> None:
    assert compare(*with_differences(differences)).p == pytest.approx(p)


@pytest.mark.parametrize("seeds", [2, 3, 5, 9])
def test_p_counts_all_signs(seeds: int) -> None:
    differences_S = np.random.default_rng(seeds).integers(-50, 100, size=seeds) / 64
    means = [np.mean(np.multiply(differences_S, signs)) for signs in itertools.product([1, -1], repeat=seeds)]
    p = np.mean(np.abs(means) >= abs(np.mean(differences_S)))
    assert compare(*with_differences(differences_S.tolist())).p == pytest.approx(p)


@pytest.mark.parametrize("seeds", range(1, 9))
def test_the_smallest_p_is_that_of_differences_with_one_sign(seeds: int) -> None:
    assert smallest_p(seeds) == compare(*with_differences([0.5] * seeds)).p


def test_without_noise_of_documents_the_interval_is_that_of_the_paired_t_test() -> None:
    for differences in ([-0.1, -0.2, -0.4], [0.1, -0.3, 0.2, 0.5, 0.1, 0.3]):
        row, reference = with_differences(differences)
        for level in (0.95, 0.8):
            expected = stats.ttest_rel(row.losses_S, reference.losses_S).confidence_interval(level)
            assert compare(row, reference, level=level).interval == pytest.approx(tuple(expected))


@pytest.mark.parametrize("seeds", [1, 2, 6])
def test_without_noise_of_seeds_the_interval_is_that_of_documents(seeds: int) -> None:
    """However many seeds there are. The expected error of a ratio is that of its residuals (Cochran 1977, 6.4)."""
    rng = np.random.default_rng(1)
    row, reference, _ = a_study(rng, 1, 3000)
    characters_D = row.characters_D
    nats_D = row.nats_SD[0] - reference.nats_SD[0]
    row, reference = (scored(np.repeat(each.nats_SD, seeds, axis=0), characters_D) for each in (row, reference))
    residuals_D = (nats_D - characters_D * nats_D.sum() / characters_D.sum()) / characters_D.mean()
    half = 1.96 * residuals_D.std(ddof=1) / np.sqrt(len(nats_D))
    low, high = compare(row, reference, resamples=5000).interval
    assert (high - low) / 2 == pytest.approx(half, rel=0.04)


def test_with_many_seeds_the_interval_is_that_of_resampling_both() -> None:
    """Seeds and documents have equal shares in it, so that it is wrong where either is left out."""
    row, reference, _ = a_study(np.random.default_rng(2), 60, 3000, of_seeds=0.015, of_both=0.02)
    found = compare(row, reference)
    assert found.interval == pytest.approx(np.quantile(resampled(row, reference, 4000), [0.025, 0.975]), abs=3e-4)


def test_with_one_pair_the_interval_is_of_documents_alone_and_p_is_1() -> None:
    row, reference, _ = a_study(np.random.default_rng(3), 1, 2000)
    found = compare(row, reference)
    assert (found.seeds, found.p, found.sd) == (1, 1.0, None)
    expected = np.quantile(resampled(row, reference, 4000), [0.025, 0.975])
    assert found.interval == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


@pytest.mark.parametrize("document", [0, 1, 2])
def test_every_document_is_drawn_as_often(document: int) -> None:
    """One of three differs, by 6 nats: it is drawn k times, of variance 3 * 1/3 * 2/3, and gives 6k nats over 30 characters."""
    row = scored(np.eye(3)[[document]] * 6 + 10, [10, 10, 10])
    found = compare(row, scored([[10, 10, 10]], [10, 10, 10]), resamples=20_000)
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 / 3) * 6 / 30
    assert found.difference == pytest.approx(6 / 30)
    assert found.interval == pytest.approx((6 / 30 - half, 6 / 30 + half), abs=0.03 * half)


def test_a_row_compared_with_itself_is_a_tie() -> None:
    row, _, _ = a_study(np.random.default_rng(4), 3, 50)
    assert compare(row, row) == Difference(0.0, (0.0, 0.0), 1.0, 3, True, 0.0)


def test_a_tie_is_an_interval_that_holds_0() -> None:
    row, reference = with_differences([0.1, 0.12, 0.11])
    assert not compare(row, reference).tie
    assert not compare(reference, row).tie
    row, reference = with_differences([0.1, 0.12, -0.11])
    assert compare(row, reference).tie
    assert not compare(row, reference, level=0.1).tie


def test_many_pairs_are_tested_by_some_of_their_signs() -> None:
    """2**20 are too many to go through; the t test agrees with such a share of them."""
    row, reference = with_differences(np.random.default_rng(6).normal(0, 1, size=20).tolist())
    expected = stats.ttest_rel(row.losses_S, reference.losses_S).pvalue
    assert 0.02 < expected < 0.5
    assert compare(row, reference).p == pytest.approx(expected, abs=0.01)


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "shortrun.study.statistics")
    with pytest.raises(UserError, match=r"shortrun\[study\]"):
        importlib.import_module("shortrun.study.statistics")


def test_the_same_seed_gives_the_same_interval() -> None:
    row, reference, _ = a_study(np.random.default_rng(5), 3, 300)
    assert compare(row, reference) == compare(row, reference)
    assert compare(row, reference).interval != compare(row, reference, seed=1).interval


studies = st.builds(
    lambda seed, seeds, documents: a_study(np.random.default_rng(seed), seeds, documents)[:2],
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.integers(2, 40),
)


@settings(deadline=None, max_examples=40)
@given(studies)
def test_swapping_the_rows_flips_the_signs(study: tuple[Scored, Scored]) -> None:
    there, back = compare(*study, resamples=50), compare(*reversed(study), resamples=50)
    assert there.difference == -back.difference
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert (there.p, there.tie, there.sd) == (back.p, back.tie, back.sd)


def in_order(each: Scored, order_S: list[int], order_D: list[int]) -> Scored:
    seeds = tuple(each.seeds[one] for one in order_S)
    return Scored(each.nats_SD[order_S][:, order_D], each.characters_D[order_D], seeds)


@settings(deadline=None, max_examples=40)
@given(studies, st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(study: tuple[Scored, Scored], random: Any) -> None:
    row, reference = study
    seeds, documents = row.nats_SD.shape
    before = compare(row, reference, resamples=50)
    shuffled = (in_order(each, random.sample(range(seeds), seeds), list(range(documents))) for each in study)
    after = compare(*shuffled, resamples=50)
    assert (after.difference, after.p) == pytest.approx((before.difference, before.p))
    assert after.interval == pytest.approx(before.interval)


@settings(deadline=None, max_examples=40)
@given(studies, st.randoms(use_true_random=False))
def test_the_order_of_documents_does_not_matter(study: tuple[Scored, Scored], random: Any) -> None:
    """For all but the interval, which draws others."""
    row, reference = study
    seeds, documents = row.nats_SD.shape
    before = compare(row, reference, resamples=50)
    order_D = random.sample(range(documents), documents)
    after = compare(*(in_order(each, list(range(seeds)), order_D) for each in study), resamples=50)
    assert (after.difference, after.p) == pytest.approx((before.difference, before.p))


@pytest.mark.parametrize("seeds", [1, 3, 6])
def test_other_draws_of_documents_hardly_move_the_interval(seeds: int) -> None:
    row, reference, _ = a_study(np.random.default_rng(seeds), seeds, 2000)
    widths = [np.diff(compare(row, reference, seed=seed).interval)[0] for seed in range(6)]
    assert np.std(widths) < 0.05 * np.mean(widths)


@settings(deadline=None, max_examples=40)
@given(studies, st.sampled_from([0.001, 0.5, 1000.0]))
def test_scaled_losses_have_scaled_differences_and_the_same_p(study: tuple[Scored, Scored], factor: float) -> None:
    row, reference = study
    scaled = compare(*(scored(each.nats_SD * factor, each.characters_D, each.seeds) for each in study), resamples=50)
    before = compare(row, reference, resamples=50)
    assert scaled.difference == pytest.approx(factor * before.difference)
    assert scaled.interval == pytest.approx(tuple(factor * end for end in before.interval))
    assert scaled.p == pytest.approx(before.p)


@pytest.mark.parametrize(
    ("seeds", "least", "most"), [(2, 0.92, 0.966), (3, 0.942, 0.961), (5, 0.948, 0.957), (6, 0.949, 0.956)]
)
def test_the_width_covers_the_truth_whatever_share_of_the_noise_is_the_seeds(
    seeds: int, least: float, most: float
) -> None:
    """Exactly, if seeds' noise is normal: their variance is a chi-squared share of it, here at 200 quantiles."""
    chi_squared = stats.chi2.ppf((np.arange(200) + 0.5) / 200, seeds - 1) / (seeds - 1)
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99):
        halves = [half_width(share * each, 1 - share, seeds - 1) for each in chi_squared]
        assert least < np.mean(stats.norm.cdf(halves) - stats.norm.cdf(np.negative(halves))) < most


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 6])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered = []
    for _ in range(1000):
        row, reference, true = a_study(rng, seeds, 1000)
        low, high = compare(row, reference, resamples=100).interval
        covered.append(low <= true <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("of_seeds", "of_both", "resampling_covers"), [(0.05, 0.02, 0.75), (0.0, 0.2, 0.975)])
def test_it_does_so_whichever_noise_is_largest(of_seeds: float, of_both: float, resampling_covers: float) -> None:
    """With 3 seeds. The percentiles of seeds and documents, both resampled, hold the truth too seldom or too often."""
    rng = np.random.default_rng(0)
    covered, by_resampling = [], []
    for _ in range(800):
        row, reference, true = a_study(rng, 3, 200, of_seeds=of_seeds, of_both=of_both)
        low, high = compare(row, reference, resamples=100).interval
        covered.append(low <= true <= high)
        low, high = np.quantile(resampled(row, reference, 100), [0.025, 0.975])
        by_resampling.append(low <= true <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
    assert np.mean(by_resampling) == pytest.approx(resampling_covers, abs=0.015)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("power", "level"), [(0.8, 0.95), (0.5, 0.9)])
def test_the_smallest_difference_is_found_as_often_as_it_says(seeds: int, power: float, level: float) -> None:
    """By scipy's own paired t test, in 20,000 studies."""
    sd = 0.004
    difference = smallest_difference(sd, seeds, power, level)
    assert difference is not None
    differences = np.random.default_rng(0).normal(difference, sd, size=(20_000, seeds))
    found = stats.ttest_rel(differences, np.zeros_like(differences), axis=1).pvalue < 1 - level
    assert found.mean() == pytest.approx(power, abs=0.012)


@pytest.mark.parametrize(("difference", "pairs"), [(1.0, 9.938), (0.5, 33.367)])
def test_the_smallest_difference_needs_as_many_pairs_as_power_tables_say(difference: float, pairs: float) -> None:
    """In standard deviations, for a power of 0.8 (R's power.t.test)."""
    before, after = smallest_difference(1.0, int(pairs)), smallest_difference(1.0, int(pairs) + 1)
    assert before is not None
    assert after is not None
    assert after < difference < before


def test_the_smallest_difference_falls_with_seeds_and_scales_with_noise() -> None:
    found = [smallest_difference(0.01, seeds) for seeds in (2, 3, 5, 9, 20)]
    assert found == sorted(found, key=lambda each: -(each or 0))
    assert smallest_difference(0.02, 5) == pytest.approx(2 * (found[2] or 0))
    assert smallest_difference(0.0, 5) == 0.0
    assert smallest_difference(0.01, 5, power=0.04) == 0.0
    assert smallest_difference(0.01, 1) is None
