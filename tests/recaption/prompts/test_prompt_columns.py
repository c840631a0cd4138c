import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from caption_dataset import make_dataset, stored_keys
from moody_server import MoodyServer, moody_server, prompt_of

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage
from recaption.prompts.columns import PromptColumns
from recaption.prompts.templates import SHORT

COLUMNS = {"tags": "imported_tags", "language": "CASE WHEN row < 2 THEN 'German' END"}


@pytest.fixture(scope="module")
def moody() -> Iterator[MoodyServer]:
    with moody_server() as running:
        yield running


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two shards of three pictures; scores with a list of tags, the last sample without any."""
    made = make_dataset(tmp_path / "set", shards=2, per_shard=3)
    for shard in made.shards():
        samples = made.read_table("samples", shard).to_pylist()
        rows = [
            {
                "key": sample["key"],
                "imported_tags": ["kite", f"row {sample['row']}"] if sample["row"] != 6 else None,
                "clip_similarity": 0.25,
            }
            for sample in samples
            if sample["status"] == "stored"
        ]
        made.write_table("scores", pa.Table.from_pylist(rows), shard)
    return made


def test_values_are_read_by_sql_a_shard_at_a_time_in_the_order_of_the_keys(
    dataset: Dataset,
) -> None:
    columns = pickle.loads(pickle.dumps(PromptColumns(COLUMNS, dataset)))
    first, second, third, *others = stored_keys(dataset)
    assert columns.values(dataset, "00000", [second, third, first]) == [
        {"tags": "kite, row 1", "language": "German"},
        {"tags": "kite, row 2"},
        {"tags": "kite, row 0", "language": "German"},
    ]
    assert columns.values(dataset, "00001", others[-1:]) == [{}]
    assert columns.values(dataset, "00001", [first]) == [{}], "it lies in the other shard"
    number = PromptColumns({"score": "clip_similarity * 2"}, dataset)
    assert number.values(dataset, "00000", [first]) == [{"score": "0.5"}]
    assert PromptColumns({}).values(dataset, "00000", [first, second]) == [{}, {}]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("imported_tag", "did you mean 'imported_tags'"),
        ("(SELECT 1)", "subquery"),
        ("text_count", "no column 'text_count'"),
        ("random()", "another answer on every run"),
        ("sqrt(url)", "prompt_columns, tags"),
        ("a b c", "prompt_columns, tags"),
    ],
)
def test_a_mistaken_expression_is_told_before_any_work(
    dataset: Dataset, expression: str, says: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        PromptColumns({"tags": expression}, dataset)
    assert says in str(raised.value)


def test_what_was_shown_stands_in_the_row_and_in_the_question(
    dataset: Dataset, moody: MoodyServer
) -> None:
    settings = RecaptionSettings(
        captioner=moody.url, kinds=("short",), prompt_columns=COLUMNS, show_alt_text=True
    )
    stage = CaptionStage(settings, dataset=dataset)
    stage.open()
    moody.bodies.clear()
    for shard in dataset.shards():
        stage.run(dataset, shard)
    tables = [dataset.read_table("captions", s, stage.source) for s in dataset.shards()]
    rows = {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}
    first, *_, last = (rows[key] for key in stored_keys(dataset))
    assert json.loads(first["prompt_variables"]) == {"language": "German", "tags": "kite, row 0"}
    assert first["alt_text_shown"] is True
    assert last["prompt_variables"] is None
    asked = {prompt_of(body) for body in moody.bodies}
    assert len(asked) == 6
    assert any("Tags that may apply: kite, row 1. Answer in German." in text for text in asked)
    assert any(text.startswith(f"{SHORT.text} A web page") for text in asked)
    # The server answers in English: those who were asked for German have a flag for it.
    assert ["language" in row["flags"] for row in rows.values()].count(True) == 2


def test_other_columns_are_another_source(dataset: Dataset, moody: MoodyServer) -> None:
    def source(**given: object) -> str:
        settings = RecaptionSettings(captioner=moody.url, **given)
        return CaptionStage(settings, dataset=dataset).source

    sources = [
        source(),
        source(prompt_columns={"tags": "imported_tags"}),
        source(prompt_columns={"tags": "url"}),
        source(prompt_variables={"language": "German"}),
        source(language="de"),
    ]
    assert len(set(sources)) == len(sources)
    assert source(t5_tokenizer="", near_duplicate_words=5) == sources[0]


def test_samples_drawn_later_are_those_that_would_have_been_drawn_at_once(
    tmp_path: Path, moody: MoodyServer
) -> None:
    tables = []
    for number, steps in enumerate([(1, 3), (3,)]):
        dataset = make_dataset(tmp_path / str(number), shards=1, per_shard=4)
        for samples in steps:
            settings = RecaptionSettings(
                captioner=moody.url, temperature=0.9, samples_per_image=samples, seed=7
            )
            stage = CaptionStage(settings)
            stage.run(dataset, "00000")
        table = dataset.read_table("captions", "00000", stage.source)
        tables.append(table.select(["key", "kind", "sample_index", "seed", "text"]))
    assert tables[0] == tables[1]
    assert len(set(tables[0].column("seed").to_pylist())) == 4 * 2 * 3
    by_picture = {(row["key"], row["kind"], row["text"]) for row in tables[0].to_pylist()}
    assert len(by_picture) == 4 * 2 * 3, "the server's caption depends on the seed"
