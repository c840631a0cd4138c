"""The measures themselves, on texts whose values can be counted by hand."""

import math

import numpy as np
import pytest

from recaption.judging.counts import Distribution
from recaption.judging.fingerprint import fingerprint, ngrams
from recaption.judging.habits import habits
from recaption.judging.intervals import mean, mean_difference, ratio, ratio_difference
from recaption.judging.retrieval import CHANCE, first_ranks, over_groups
from recaption.judging.variety import distinct, distinct_texts, mattr, openings, words_of


def test_distinct_counts_different_words_and_pairs_within_texts() -> None:
    words = [words_of("A dog, a dog."), words_of("a cat")]
    # Words a dog a dog a cat: 3 of 6 differ. Pairs (a dog) (dog a) (a dog), (a cat): 3 of 4.
    assert distinct(words) == (3 / 6, 3 / 4)
    assert distinct(words, limit=4) == (2 / 4, 2 / 3)
    assert all(math.isnan(value) for value in distinct([]))


def test_mattr_is_the_mean_share_of_different_words_in_a_moving_window() -> None:
    # Windows of 3: (a b a) 2/3, (b a c) 1, (a c c) 2/3.
    assert mattr([["a", "b"], ["a", "c", "c"]], window=3) == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert math.isnan(mattr([["a"]], window=3))


def test_openings_and_equal_texts_ignore_case_and_punctuation_at_words() -> None:
    words = [words_of(text) for text in ("A red dog.", "a red, dog runs", "two cats")]
    assert openings(words) == {"a red dog": 2 / 3, "two cats": 1 / 3}
    assert distinct_texts(["A  dog", "a dog", "a cat"]) == 2 / 3


def test_habits_are_what_dalle_3_fears() -> None:
    found = habits(["A dog sits.", "the dog sits", "42 dogs.", "ÉCOLE"])
    assert found.capitalised == 2 / 4  # A, É; "42 dogs" begins with a small d
    assert found.lower_case == 2 / 4
    assert found.full_stop == 2 / 4
    assert found.article == 2 / 4
    assert found.first_characters["A"] == 1 / 4
    assert found.last_characters["."] == 2 / 4
    loop = habits(["red dog and " * 50]).repeated_4grams
    assert loop > 0.9


def test_a_distribution_knows_its_mean_quantiles_and_what_lies_above() -> None:
    found = Distribution(np.array([3.0, 5.0, 90.0]), np.array([2, 1, 1]))
    assert (found.mean, found.total) == (101 / 4, 4)
    assert (found.quantile(0.5), found.quantile(0.75), found.quantile(0.95)) == (3, 5, 90)
    assert found.share_above(77) == 1 / 4
    assert math.isnan(Distribution(np.empty(0), np.empty(0, int)).quantile(0.5))


def test_an_interval_over_pictures_covers_a_known_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for draw in range(200):
        stated = rng.integers(1, 6, 150).astype(float)
        right = rng.binomial(stated.astype(int), 0.8).astype(float)
        found = ratio(right, stated, draws=300, seed=draw)
        covered += found.low <= 0.8 <= found.high
    assert 0.89 <= covered / 200 <= 0.99


def test_pairing_narrows_a_difference_between_captions_of_the_same_pictures() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 10, 300)
    a, b = hard + 1 + rng.normal(0, 0.5, 300), hard + rng.normal(0, 0.5, 300)
    paired = mean_difference(a, b)
    assert paired.low > 0.8
    assert paired.high < 1.2
    alone = mean(a)
    assert alone.high - alone.low > 5 * (paired.high - paired.low)
    ones = np.ones(300)
    assert ratio_difference((a, ones), (b, ones)).value == pytest.approx(paired.value)


def test_unknown_values_leave_their_picture_out() -> None:
    found = mean(np.array([1.0, np.nan, 3.0]))
    assert (found.value, found.pictures) == (2.0, 2)
    assert math.isnan(mean(np.array([1.0])).low)


def captioner(seed: int, opening: str, count: int = 120) -> list[str]:
    rng = np.random.default_rng(seed)
    words = np.array(
        ["red", "green", "blue", "large", "small", "dog", "cat", "house", "tree", "river"]
    )
    return [f"{opening}{' '.join(rng.choice(words, 8))}" for _ in range(count)]


def test_a_fingerprint_tells_wordings_apart_and_finds_none_where_there_is_none() -> None:
    same = fingerprint(captioner(0, "a "), captioner(1, "a "))
    assert same.low <= 0.5 <= same.high
    habit = fingerprint(captioner(0, "this shows a "), captioner(1, "a "))
    assert habit.low > 0.95
    # Equal texts under both names cannot be told apart, whatever the pictures are.
    assert fingerprint(captioner(0, "a "), captioner(0, "a ")).value == 0.5
    assert math.isnan(fingerprint(["a"] * 5, ["b"] * 5).value)


def test_ngrams_have_unit_length_whatever_the_text() -> None:
    matrix = ngrams(["", "a", "a long text, with ümlauts and 🦊"])
    assert np.asarray(matrix.multiply(matrix).sum(1)).ravel() == pytest.approx([1, 1, 1])


def test_a_caption_is_found_where_its_own_picture_is_nearest_and_ties_are_shared() -> None:
    pictures = np.eye(4, dtype=np.float32)
    texts = np.eye(4, dtype=np.float32)[[0, 1, 1, 3]]
    assert first_ranks(texts, pictures, group=4).tolist() == [[1, 1, 0, 1]]
    copies = np.eye(4, dtype=np.float32)[[0, 0, 2, 3]]
    assert first_ranks(pictures, copies, group=4).tolist() == [[1 / 2, 1 / 4, 1, 1]]
    silent = np.full((4, 4), np.nan, np.float32)
    assert first_ranks(silent, pictures, group=4).sum() == 0


def test_captions_that_say_nothing_are_found_one_time_in_64() -> None:
    rng = np.random.default_rng(2)
    texts, pictures = rng.normal(size=(2, 20 * 64, 16)).astype(np.float32)
    found = over_groups(first_ranks(texts, pictures))
    assert found.low <= CHANCE <= found.high
    assert found.high < 0.04


def test_a_share_without_exception_keeps_a_limit_that_narrows_with_the_pictures() -> None:
    few, many = (ratio(np.full(n, 2.0), np.full(n, 2.0)) for n in (10, 1000))
    assert few.value == few.high == 1
    assert few.low == pytest.approx(0.025 ** (1 / 10))  # Clopper and Pearson: 0.692
    assert 0.99 < many.low < 1
    none = ratio(np.zeros(10), np.full(10, 2.0))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - few.low)
