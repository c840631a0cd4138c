"""The receipt says what was encoded, however many ranks and kills there were, and finds faults."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import DatasetError
from curate.store.dataset import Dataset
from tests.train.data.small_dataset import add_captions, make_dataset
from tests.train.data.test_precompute import HashedText
from train.data.loader import TrainingData, open_data
from train.data.receipt import (
    ReceiptWriter,
    check_receipt,
    realised_shares,
    refuse_wrong_receipt,
    write_receipt,
)
from train.data.receipt_ledger import text_mark
from train.model_settings import ModelConfig
from train.protocols import Drawn
from train.settings import TrainSettings

STEPS, BATCH = 40, 16
CONFIG = ModelConfig(resolution=8)


def settings_of(**given) -> TrainSettings:
    values = {"device": "cpu", "batch_size": BATCH, "validation_share": 0.1, "data_seed": 5}
    values |= {"captions": {"descriptive": 0.7, "short": 0.2, "alt": 0.1}}
    return TrainSettings(**values | given)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "set", 60)


def opened(dataset: Dataset, **given) -> TrainingData:
    return open_data(dataset, settings_of(**given), CONFIG, HashedText(), "all")


def train(data: TrainingData, out: Path, start: int, stop: int, world: int = 1, flushed=None):
    """What the loop does with a receipt, of all ranks; `flushed`: the last step on disk."""
    for rank in reversed(range(world)):
        writer = ReceiptWriter(out / "receipt", rank, world, BATCH)
        writer.truncate(start)
        for step, batches in enumerate(data.batches(start, stop, rank, world, 2), start):
            for batch in batches:
                writer.add(step, batch)
            if step == flushed:
                writer.flush()
        if flushed is None:
            writer.flush()


def finish(data: TrainingData, out: Path, steps: int = STEPS, **given) -> bytes:
    settings = settings_of(**given).model_dump(mode="json")
    (out / "run.json").write_text(json.dumps({"identity": {"settings": settings}}))
    (out / "summary.json").write_text(json.dumps({"steps": steps}))
    write_receipt(data, out / "receipt.parquet", steps)
    return (out / "receipt.parquet").read_bytes()


@pytest.fixture(scope="module")
def data(dataset) -> TrainingData:
    return opened(dataset)


@pytest.fixture
def run(data, tmp_path) -> Path:
    train(data, tmp_path, 0, STEPS)
    finish(data, tmp_path)
    return tmp_path


def test_the_receipt_counts_every_draw_of_every_caption(data, run):
    expected: dict[tuple, int] = {}
    for step in range(STEPS):
        rows, epochs = data.order.batch(step)
        drawn = data.draws.draw(rows, epochs)
        for place, key in enumerate(data.index.keys(rows)):
            kind = data.draws.kinds[drawn.kind[place]]
            mark = f"{text_mark(drawn.texts[place]):016x}"
            number, dropped = int(drawn.sample_index[place]), bool(drawn.dropped[place])
            entry = (key, kind, kind, number, mark, dropped)
            expected[entry] = expected.get(entry, 0) + 1
    rows = pq.read_table(run / "receipt.parquet").to_pylist()
    assert [tuple(row.values()) for row in rows] == sorted((*e, n) for e, n in expected.items())
    assert sum(row["draws"] for row in rows) == STEPS * BATCH
    assert not check_receipt(run)
    refuse_wrong_receipt(run)
    shares = realised_shares(run)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["descriptive"] > shares["short"] > 0


@pytest.mark.parametrize("world", [2, 4])
def test_it_is_the_same_for_any_number_of_ranks(data, run, tmp_path_factory, world):
    out = tmp_path_factory.mktemp("ranks")
    train(data, out, 0, STEPS, world)
    assert finish(data, out) == (run / "receipt.parquet").read_bytes()


def test_it_is_the_same_across_kills_and_other_numbers_of_ranks(data, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("kills")
    train(data, out, 0, 17, world=4, flushed=9)  # killed behind its checkpoint
    train(data, out, 10, 22, world=4)  # all on disk, but no checkpoint says so
    train(data, out, 10, 25, world=2, flushed=19)
    train(data, out, 20, 30, world=1)
    train(data, out, 15, 30, world=2)  # from an earlier checkpoint
    train(data, out, 30, STEPS, world=4)
    assert finish(data, out) == (run / "receipt.parquet").read_bytes()


def test_a_run_is_extended_from_before_its_end(data, tmp_path):
    train(data, tmp_path, 0, 20)
    finish(data, tmp_path, 20)
    train(data, tmp_path, 12, STEPS, world=2)
    finish(data, tmp_path)
    assert not check_receipt(tmp_path)


def test_lost_steps_are_told_at_once_and_at_the_end(data, tmp_path):
    train(data, tmp_path, 0, 20, flushed=9)
    with pytest.raises(DatasetError, match="has 0 draws of step 10 on record"):
        ReceiptWriter(tmp_path / "receipt", 0, 1, BATCH).truncate(15)
    (path,) = (tmp_path / "receipt").glob("000000000-*")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match="of step 9 on record"):
        write_receipt(data, tmp_path / "receipt.parquet", 10)


# ---- planted faults -----------------------------------------------------------------------------


def faulty(data: TrainingData, out: Path, change, **given) -> list[str]:
    """Problems of a run whose batches were changed before they were encoded."""

    class Changed:
        def __getattr__(self, name):
            return getattr(data.draws, name)

        def draw(self, rows, epochs):
            return change(data.draws.draw(rows, epochs), rows)

    train(replace(data, draws=Changed()), out, 0, STEPS)
    finish(data, out, **given)
    problems = check_receipt(out)
    with pytest.raises(DatasetError, match="is not what was declared"):
        refuse_wrong_receipt(out)
    return problems


def test_a_caption_under_another_pictures_key_is_found(data, tmp_path):
    key = data.index.keys(np.array([3]))[0]
    foreign = data.index.captions(np.array([4]), "alt")[0][0][1]

    def change(drawn: Drawn, rows) -> Drawn:
        texts = list(drawn.texts)
        for place in np.flatnonzero((rows == 3) & ~drawn.dropped):
            texts[place] = foreign
        return replace(drawn, texts=texts)

    (problem,) = faulty(data, tmp_path, change)
    assert "are not those that the seed declares" in problem
    assert f"such as of {key} (" in problem
    assert f"text {text_mark(foreign):016x}" in problem


def test_captions_shuffled_among_pictures_are_found(data, tmp_path):
    def change(drawn: Drawn, rows) -> Drawn:
        return replace(drawn, texts=drawn.texts[1:] + drawn.texts[:1])

    (problem,) = faulty(data, tmp_path, change)
    assert "are not those that the seed declares" in problem


def test_a_kind_that_is_never_drawn_is_found(data, tmp_path):
    alt = data.draws.kinds.index("alt")

    def change(drawn: Drawn, rows) -> Drawn:
        texts, kind, index = list(drawn.texts), drawn.kind.copy(), drawn.sample_index.copy()
        for place in np.flatnonzero(drawn.kind == alt):
            kind[place], index[place] = data.draws.kinds.index("short"), 0
            if not drawn.dropped[place]:
                texts[place] = data.index.captions(rows[[place]], "short")[0][0][1]
        return Drawn(texts, kind, kind, index, drawn.dropped)

    problems = faulty(data, tmp_path, change)
    assert any(problem.startswith("alt: 0 of 640 draws (0.00%)") for problem in problems)


def test_another_dropout_and_another_seed_are_found(data, tmp_path):
    def change(drawn: Drawn, rows) -> Drawn:
        texts = [text if place % 3 else "" for place, text in enumerate(drawn.texts)]
        return replace(drawn, texts=texts, dropped=np.array([not text for text in texts]))

    problems = faulty(data, tmp_path / "a", change)
    assert any(problem.startswith("dropped captions: ") for problem in problems)
    other = replace(data, order=type(data.order)(data.index.buckets, BATCH, 6))
    train(other, tmp_path / "b", 0, STEPS)
    finish(data, tmp_path / "b")
    (problem,) = check_receipt(tmp_path / "b")
    assert "are not those that the seed declares" in problem


def test_a_receipt_without_its_index_or_file_is_one_sentence(data, run):
    path = run / "receipt.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(DatasetError, match=r"index that .* was drawn from is gone"):
        check_receipt(run)
    half = table.slice(0, 20)
    pq.write_table(pa.table(half.columns, half.schema), path)
    (problem,) = check_receipt(run)[:1]
    assert "the steps made 640" in problem
    path.unlink()
    with pytest.raises(DatasetError, match="missing or unreadable"):
        check_receipt(run)


# ---- blends that fall back ----------------------------------------------------------------------

SPARSE = {"captions": {"human": 0.5, "short": 0.2, "alt": 0.3}, "missing_captions": "fallback"}


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> TrainingData:
    """Every tenth picture has a caption by a person."""
    made = make_dataset(tmp_path_factory.mktemp("sparse") / "set", 60)
    add_captions(made, "human", "human", {f"k{n:06d}": f"a {n}" for n in range(0, 60, 10)})
    return opened(made, **SPARSE)


def test_a_blend_that_falls_back_has_a_receipt_of_what_was_wanted_and_taken(sparse, tmp_path):
    train(sparse, tmp_path / "one", 0, STEPS)
    whole = finish(sparse, tmp_path / "one", **SPARSE)
    train(sparse, tmp_path / "two", 0, 17, world=4, flushed=9)  # killed behind its checkpoint
    train(sparse, tmp_path / "two", 10, STEPS, world=2)
    assert finish(sparse, tmp_path / "two", **SPARSE) == whole
    assert not check_receipt(tmp_path / "one")
    counted = write_receipt(sparse, tmp_path / "one" / "receipt.parquet", STEPS)
    rows = pq.read_table(tmp_path / "one" / "receipt.parquet").to_pylist()
    others = [row for row in rows if row["kind"] != row["wanted"]]
    # What the people's captions lack the kind of the next larger share takes, and nothing else.
    assert {(row["wanted"], row["kind"]) for row in others} == {("human", "alt")}
    assert not {row["key"] for row in others} & {f"k{n:06d}" for n in range(0, 60, 10)}
    assert counted.fell_back == sum(row["draws"] for row in others)
    assert counted.wanted["human"] - counted.draws["human"] == counted.fell_back
    assert counted.wanted["human"] == pytest.approx(320, abs=60)
    assert sum(counted.draws.values()) == sum(counted.wanted.values()) == STEPS * BATCH
    held_out, captions = sparse.validation()
    assert "human" not in captions
    assert len(captions["alt"]) == len(held_out)


def test_falling_back_without_need_is_found(sparse, tmp_path):
    human, alt = (sparse.draws.kinds.index(kind) for kind in ("human", "alt"))

    def change(drawn: Drawn, rows) -> Drawn:
        texts, kind = list(drawn.texts), drawn.kind.copy()
        for place in np.flatnonzero((drawn.kind == human) & ~drawn.dropped):
            kind[place] = alt
            texts[place] = sparse.index.captions(rows[[place]], "alt")[0][0][1]
        return replace(drawn, texts=texts, kind=kind)

    (problem,) = faulty(sparse, tmp_path, change, **SPARSE)
    assert "are not those that the seed declares" in problem


def test_a_receipt_of_before_blends_fell_back_is_still_one(run):
    path = run / "receipt.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["wanted"]), path)
    assert not check_receipt(run)


def test_shuffled_tags_are_held_against_the_seed(dataset, tmp_path):
    data = opened(dataset, tag_shuffle=True)
    train(data, tmp_path, 0, 5)
    finish(data, tmp_path, 5, tag_shuffle=True)
    assert not check_receipt(tmp_path)
