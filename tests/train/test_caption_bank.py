"""Blend, dropout and choice of captions are draws by hash that arms share."""

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.store.caption_blend import hash_uniform, key_numbers
from tests.train.tiny_run import squares, tiny
from train.captions import CaptionBank, encode
from train.settings import model_config
from train.tokenizer import build_tokenizer

CONFIG = model_config(tiny())


def bank(blend: dict[str, float], dropout: float = 0.1, seed: int = 0, count: int = 2000):
    samples = squares(count)
    texts = [text for rows in samples.captions.values() for own in rows for text in own]
    tokenizer = build_tokenizer(CONFIG, texts)
    return CaptionBank(samples.keys, samples.captions, blend, tokenizer, 12, dropout, seed)


def kinds(made: CaptionBank, count: int = 2000, epoch: int = 0) -> np.ndarray:
    rows = np.arange(count)
    return np.array(made.kinds)[made.kind_of(rows, np.full(count, epoch))]


def test_raising_a_share_only_moves_pictures_over() -> None:
    low = kinds(bank({"descriptive": 0.5, "alt": 0.5}))
    high = kinds(bank({"alt": 0.05, "descriptive": 0.95}))
    assert ((low == "descriptive") <= (high == "descriptive")).all()
    assert (high == "descriptive").mean() == pytest.approx(0.95, abs=0.02)


def test_two_arms_give_alt_text_to_the_same_pictures() -> None:
    descriptive = kinds(bank({"descriptive": 0.95, "alt": 0.05}))
    short = kinds(bank({"short": 0.95, "alt": 0.05}))
    np.testing.assert_array_equal(descriptive == "alt", short == "alt")


def test_epochs_and_seeds_draw_anew() -> None:
    blend = {"descriptive": 0.5, "alt": 0.5}
    first = kinds(bank(blend))
    assert 0.4 < (first == kinds(bank(blend), epoch=1)).mean() < 0.6
    assert 0.4 < (first == kinds(bank(blend, seed=1))).mean() < 0.6


def test_dropout_is_a_stream_of_its_own() -> None:
    rows, epoch = np.arange(2000), np.zeros(2000, np.int64)
    drawn = bank({"descriptive": 0.5, "alt": 0.5}).draw(rows, epoch)
    other = bank({"short": 1.0}).draw(rows, epoch)
    np.testing.assert_array_equal(drawn.dropped, other.dropped)
    assert drawn.dropped.mean() == pytest.approx(0.1, abs=0.02)
    # Dropped pictures are no likelier to be of one kind.
    assert drawn.kind[drawn.dropped].mean() == pytest.approx(drawn.kind.mean(), abs=0.1)


def test_a_dropped_caption_is_the_empty_one() -> None:
    made = bank({"short": 1.0}, dropout=1.0, count=50)
    drawn = made.draw(np.arange(50), np.zeros(50, np.int64))
    assert (drawn.mask.sum(1) == 1).all()
    assert (drawn.tokens[:, 0] == drawn.tokens[0, 0]).all()


def test_all_captions_of_a_picture_are_drawn() -> None:
    made = bank({"descriptive": 1.0}, dropout=0.0)
    drawn = made.draw(np.arange(2000), np.zeros(2000, np.int64))
    lengths = drawn.mask.sum(1)  # "a plain red square </s>" or "everything is red </s>"
    assert set(lengths) == {4.0, 5.0}
    assert (lengths == 5).mean() == pytest.approx(0.5, abs=0.04)


def test_every_caption_has_the_same_window_and_cuts_are_counted() -> None:
    tokenizer = build_tokenizer(CONFIG, ["one two three four five six"])
    tokens, truncated = encode(tokenizer, ["one two", "one two three four five six"], 4)
    assert tokens.shape == (2, 4)
    assert truncated == 1
    assert tokenizer.convert_ids_to_tokens(tokens[1].tolist()) == ["one", "two", "three", "</s>"]


def test_the_tokenizer_drops_stop_words_and_joins_phrases() -> None:
    config = CONFIG.model_copy(update={"stop_words": ("a", "the"), "phrases": ("top left",)})
    tokenizer = build_tokenizer(config, ["a red ring in the top left, alas"])
    words = tokenizer.convert_ids_to_tokens(tokenizer("A ring in the TOP-LEFT, alas").input_ids)
    assert words == ["ring", "in", "top_left", ",", "alas", "</s>"]


def test_a_picture_without_a_caption_is_refused_with_a_count() -> None:
    samples = squares(6)
    lacking = {**samples.captions, "descriptive": [[]] * 2 + samples.captions["descriptive"][2:]}
    tokenizer = build_tokenizer(CONFIG, ["a"])
    with pytest.raises(ConfigError, match="2 of 6 samples have no descriptive caption"):
        CaptionBank(samples.keys, lacking, {"descriptive": 1.0}, tokenizer, 12, 0.1, 0)


def test_hashes_are_uniform() -> None:
    u = hash_uniform(key_numbers([f"k{i}" for i in range(20_000)]), 3, 1, 2)
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 1000).max() < 150
