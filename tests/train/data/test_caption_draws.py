"""Blend, dropout and choice of captions are draws by hash that arms share."""

from pathlib import Path

import numpy as np
import pytest

from curate.export.plan import make_plan
from curate.export.settings import ExportSettings
from curate.store.caption_blend import BLEND, CHOICE, DROPOUT, hash_uniform, key_numbers
from tests.train.data.small_dataset import add_captions, add_scores, make_dataset
from train.data.captions import CaptionDraws
from train.data.index import TrainingIndex, build_index
from train.settings import TrainSettings, model_config

COUNT = 2000


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> TrainingIndex:
    dataset = make_dataset(tmp_path_factory.mktemp("draws") / "data", COUNT, pictures=False)
    keys = [f"k{number:06d}" for number in range(COUNT)]
    add_scores(dataset, aesthetic=dict(zip(keys, range(COUNT), strict=True)), clip={keys[0]: 1.0})
    given = settings(condition_on=("aesthetic", "clip"))
    return build_index(dataset, given, model_config(given), "all")[0]


def settings(**changes) -> TrainSettings:
    return TrainSettings(**{"model": "tiny-test", "validation_samples": 0, **changes})


def draw(index: TrainingIndex, epoch: int = 0, **changes):
    rows = np.arange(COUNT)
    return CaptionDraws(index, settings(**changes)).draw(rows, np.full(COUNT, epoch))


def kinds(index: TrainingIndex, blend: dict[str, float], epoch: int = 0, seed: int = 0):
    names = CaptionDraws(index, settings(captions=blend)).kinds
    return np.array(names)[draw(index, epoch, captions=blend, seed=seed).kind]


def test_raising_a_share_only_moves_pictures_over(index: TrainingIndex) -> None:
    low = kinds(index, {"descriptive": 0.5, "alt": 0.5})
    high = kinds(index, {"alt": 0.05, "descriptive": 0.95})
    assert ((low == "descriptive") <= (high == "descriptive")).all()
    assert (high == "descriptive").mean() == pytest.approx(0.95, abs=0.02)


def test_two_arms_give_alt_text_to_the_same_pictures(index: TrainingIndex) -> None:
    descriptive = kinds(index, {"descriptive": 0.95, "alt": 0.05})
    short = kinds(index, {"short": 0.95, "alt": 0.05})
    np.testing.assert_array_equal(descriptive == "alt", short == "alt")


def test_epochs_and_seeds_draw_anew(index: TrainingIndex) -> None:
    blend = {"descriptive": 0.5, "alt": 0.5}
    first = kinds(index, blend)
    assert 0.4 < (first == kinds(index, blend, epoch=1)).mean() < 0.6
    assert 0.4 < (first == kinds(index, blend, seed=1)).mean() < 0.6


def test_dropout_is_a_stream_of_its_own(index: TrainingIndex) -> None:
    drawn = draw(index, captions={"descriptive": 0.5, "alt": 0.5})
    other = draw(index, captions={"short": 1.0})
    np.testing.assert_array_equal(drawn.dropped, other.dropped)
    assert drawn.dropped.mean() == pytest.approx(0.1, abs=0.02)
    # Dropped pictures are no likelier to be of one kind.
    assert drawn.kind[drawn.dropped].mean() == pytest.approx(drawn.kind.mean(), abs=0.1)
    assert [not text for text in drawn.texts] == drawn.dropped.tolist()


def test_draws_are_those_of_the_formula(index: TrainingIndex) -> None:
    blend = {"descriptive": 0.6, "alt": 0.4}
    drawn = draw(index, 7, captions=blend, seed=3)
    for row in range(0, COUNT, 97):
        number = key_numbers([f"k{row:06d}"])
        blended, choice, dropout = (
            hash_uniform(number, 7, 3, stream)[0] for stream in (BLEND, CHOICE, DROPOUT)
        )
        colour = ("red", "green", "blue")[row % 3]
        texts = [f"a plain {colour} square", f"everything is {colour}"]
        if blended >= 0.6:
            texts = [f"IMG_{row}.jpg"]
        at = int(choice * len(texts))
        assert drawn.sample_index[row] == at
        assert drawn.texts[row] == ("" if dropout < 0.1 else texts[at])


def test_all_captions_of_a_picture_are_drawn(index: TrainingIndex) -> None:
    drawn = draw(index, captions={"descriptive": 1.0}, prompt_dropout_prob=0.0)
    assert set(drawn.sample_index.tolist()) == {0, 1}
    assert drawn.sample_index.mean() == pytest.approx(0.5, abs=0.04)
    for text, number in zip(drawn.texts, drawn.sample_index, strict=True):
        assert text.startswith("everything") == (number == 1)


def test_tags_come_in_a_new_order_each_draw_and_none_is_lost(
    index: TrainingIndex, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "data", 200, pictures=False, tags=True)
    given = settings(captions={"tags": 1.0}, tag_shuffle=True, prompt_dropout_prob=0.0)
    tagged, _ = build_index(dataset, given, model_config(given), "all")
    draws, rows = CaptionDraws(tagged, given), np.arange(200)
    first, again, later = (draws.draw(rows, np.full(200, epoch)).texts for epoch in (0, 0, 1))
    assert first == again
    orders = {}
    for text, other in zip(first, later, strict=True):
        assert sorted(text.split(", ")) == sorted(other.split(", ")) == ["a", "b c", "d"]
        orders[text] = orders.get(text, 0) + 1
    assert len(orders) == 6
    assert max(orders.values()) < 60
    assert first != later


def test_a_blend_that_falls_back_is_drawn_as_it_is_exported(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 60)
    keys = [f"k{number:06d}" for number in range(60)]
    # Of two people the first one's captions are taken, and where there is none the second one's.
    anna, ben = ({key: f"{who} {key}" for key in keys[start:20:3]} for who, start in
                 (("anna", 0), ("ben", 0)))  # fmt: skip
    add_captions(dataset, "human-anna", "human", anna | dict.fromkeys(keys[1:20:3]))
    add_captions(dataset, "human-ben", "human", ben | {keys[1]: "ben alone"})
    whose = {"human": "human-anna+human-ben"}
    told = {"captions": {"human": 0.5, "tags": 0.4, "short": 0.1}, "missing_captions": "fallback"}
    add_captions(dataset, "tagger", "tags", dict.fromkeys(keys[::2], "a, b"))
    given = settings(**told, prompt_dropout_prob=0.0, seed=3)
    index, _ = build_index(dataset, given, model_config(given), "all", whose)
    draws, rows = CaptionDraws(index, given), np.arange(60)
    drawn = draws.draw(rows, np.zeros(60, np.int64))
    exported = make_plan(
        dataset,
        ExportSettings(selection="all", seed=3, caption_sources=whose, order="key", **told),
        tmp_path / "plan",
    )
    taken = [(row["kind"], row["caption"]) for row in exported.shard_rows(0).to_pylist()]
    ours = [(draws.kinds[kind], text) for kind, text in zip(drawn.kind, drawn.texts, strict=True)]
    assert taken == ours
    assert len(set(zip(drawn.wanted.tolist(), drawn.kind.tolist(), strict=True))) > 4
    texts = {text for kind, text in ours if kind == "human"}
    assert texts <= {*anna.values(), "ben alone"}
    many = np.concatenate([draws.draw(rows, np.full(60, epoch)).kind for epoch in range(100)])
    shares = draws.expected_shares()
    assert sum(shares.values()) == pytest.approx(1)
    for number, kind in enumerate(draws.kinds):
        assert shares[kind] == pytest.approx((many == number).mean(), abs=0.02)


def test_scores_are_dropped_each_by_itself(index: TrainingIndex) -> None:
    given = settings(condition_on=("aesthetic", "clip"), condition_dropout_prob=0.3)
    draws, rows, epochs = CaptionDraws(index, given), np.arange(COUNT), np.zeros(COUNT, np.int64)
    told = draws.conditions(rows, epochs)
    assert told.shape == (COUNT, 2)
    assert (told[:, 0] == 0).mean() == pytest.approx(0.3, abs=0.03)
    assert (told[1:, 1] == 0).all()
    whole = index.conditions(rows)[:, 0]
    np.testing.assert_array_equal(told[told[:, 0] > 0, 0], whole[told[:, 0] > 0])
    assert (told != draws.conditions(rows, epochs + 1)).any()


def test_hashes_are_uniform() -> None:
    u = hash_uniform(key_numbers([f"k{i}" for i in range(20_000)]), 3, 1, 2)
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 1000).max() < 150
