"""Search by text, key and file on a scored dataset, with a tiny CLIP of random weights."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import ConfigError
from curate.base.files import write_json
from curate.base.settings import load_settings
from curate.scoring.scorers.clip import ClipModel
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.search.passing import within
from curate.search.search import Found, Searcher, search
from curate.search.settings import SearchSettings
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.contract import DUPLICATES
from curate.store.dataset import Dataset
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip

HOSTILE = "\x1b[31mred\nline <script>alert(1)</script>"
TEXTS = ["a fox", "a dog", HOSTILE, "a boat", None, "a boat at sea"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("searched")
    config, weights = tiny_clip(folder / "clip")
    samples = [(encoded(drawn(i)), text) for i, text in enumerate(TEXTS)]
    dataset = make_dataset(folder / "d", [samples[:4], samples[4:]])
    stage = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))
    for shard in dataset.shards():
        stage.run(dataset, shard)
    write_json(dataset.directory / "scores.json", {"settings": stage.settings.resolved()})
    keys = stored(dataset)
    copies = [("exact", keys[0], keys[0], True, 0.0), ("exact", keys[1], keys[0], False, 0.0)]
    columns = dict(zip(DUPLICATES.names, zip(*copies, strict=True), strict=True))
    dataset.write_table("duplicates", pa.table(columns, DUPLICATES))
    select(dataset, SelectSettings(name="boats", where="alt_text LIKE '%boat%'"))
    return dataset


def stored(dataset: Dataset) -> list[str]:
    rows = dataset.connect(["samples"]).execute(
        "SELECT key FROM samples WHERE status = 'stored' ORDER BY row"
    )
    return [key for (key,) in rows.fetchall()]


def found(dataset: Dataset, **settings: object) -> Found:
    return search(dataset.directory, load_settings(SearchSettings, None, settings))


def test_a_text_finds_by_the_model_that_made_the_embeddings(dataset: Dataset) -> None:
    asked = found(dataset, text="a fox")
    record = json.loads((dataset.directory / "scores.json").read_text())["settings"]
    model = ClipModel.load(record["clip_model"], record["clip_pretrained"])
    tables = pa.concat_tables(dataset.read_table("embeddings", s) for s in dataset.shards())
    cosine = np.array(tables["image"].to_pylist(), np.float32) @ model.embed_texts(["a fox"])[0]
    best = [stored(dataset)[row] for row in np.argsort(-cosine)]
    assert [hit.key for hit in asked.hits] == best
    assert asked.hits[0].similarity == pytest.approx(cosine.max(), abs=1e-6)
    assert asked.unread == 0
    long = [found(dataset, text="a fox " * 200).unread for _ in range(2)]  # the second one is kept
    assert long[0] == long[1] > 100
    shown = asked.text()
    assert "?[31mred?line <script>" in shown
    assert shown.count("\n") == len(TEXTS)
    assert [json.loads(line)["key"] for line in asked.jsonl().splitlines()] == best


def test_a_picture_finds_itself_by_its_file_and_others_by_its_key(
    dataset: Dataset, tmp_path: Path
) -> None:
    keys = stored(dataset)
    file = tmp_path / "fox.png"
    file.write_bytes(encoded(drawn(0)))
    first = found(dataset, like=str(file)).hits[0]
    assert first.key == keys[0]
    assert first.similarity > 0.999
    by_key = found(dataset, like=keys[0], count=5).hits
    assert keys[0] not in [hit.key for hit in by_key]
    assert len(by_key) == 5
    assert {hit.key: hit.copy_of for hit in by_key if hit.copy_of} == {keys[1]: keys[0]}


def test_a_rule_and_a_selection_filter_before_the_count_is_filled(dataset: Dataset) -> None:
    keys = stored(dataset)
    some = found(dataset, like=keys[0], selection="boats", count=5)
    assert {hit.key for hit in some.hits} == {keys[3], keys[5]}
    assert some.among == 2
    some = found(dataset, like=keys[0], selection="boats", where="text_words > 2", count=5)
    assert [hit.key for hit in some.hits] == [keys[5]]
    with pytest.raises(ConfigError, match="There is no column 'aesthetik'"):
        found(dataset, like=keys[0], where="aesthetik > 2")
    with pytest.raises(ConfigError, match="There is no selection 'cars'"):
        found(dataset, like=keys[0], selection="cars")


def test_a_rule_that_takes_too_long_is_ended() -> None:
    endless = "SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b"
    with duckdb.connect() as connection:
        slow = pytest.raises(ConfigError, match="more than 0 seconds; make it simpler")
        with slow, within(connection, 0.05):
            connection.execute(endless)
        with within(connection, None):
            assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_key_and_a_text_that_was_asked_before_load_no_model(dataset: Dataset) -> None:
    found(dataset, text="a fox")
    code = (
        "import sys; from curate.search.search import search\n"
        "from curate.search.settings import SearchSettings as Settings\n"
        f"search({str(dataset.directory)!r}, Settings(like={stored(dataset)[0]!r}))\n"
        f"search({str(dataset.directory)!r}, Settings(text='a fox'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_weights_than_made_the_embeddings_are_refused(
    dataset: Dataset, tmp_path: Path
) -> None:
    copy = Dataset(shutil.copytree(dataset.directory, tmp_path / "copy"))
    record = json.loads((copy.directory / "scores.json").read_text())
    _, other = tiny_clip(tmp_path / "other", seed=1)
    record["settings"]["clip_pretrained"] = str(other)
    write_json(copy.directory / "scores.json", record)
    with pytest.raises(ConfigError, match="its weights, config, tokenizer or precision are other"):
        found(copy, text="something new")
    record["settings"]["clip_pretrained"] = str(tmp_path / "gone.safetensors")
    write_json(copy.directory / "scores.json", record)
    with pytest.raises(ConfigError, match=r"cannot be had: .* do not exist\. Pictures like a stor"):
        found(copy, text="something new")
    assert found(copy, like=stored(copy)[0], count=1).hits


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"GIF89a", "broken_image"),
        (b"<html>", "not_an_image"),
        (b"\0" * 20_000_001, "20,000,001 bytes, more than 20,000,000"),
    ],
)
def test_what_is_no_picture_is_refused(dataset: Dataset, raw: bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Searcher(dataset).model.picture(raw)


@pytest.mark.parametrize("given", [{}, {"text": "a", "like": "b"}, {"text": " "}])
def test_one_question_is_asked(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="SearchSettings"):
        load_settings(SearchSettings, None, given)
