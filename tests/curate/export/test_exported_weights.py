"""The weights of a balanced selection in an export, read back by the layouts' readers."""

import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from recaption.captioning.alt_texts import AltCaptionStage
from tests.curate.tiny import drawn, encoded, make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """12 samples: nine of one domain, three of another; a score is named `weight` as well."""
    samples = [(encoded(drawn(n, 24, 24)), f"text {n}") for n in range(12)]
    made = make_dataset(tmp_path_factory.mktemp("data") / "set", [samples], failed=0)
    keys = made.read_table("samples", "00000").column("key").to_pylist()
    domains = ["many"] * 9 + ["few"] * 3
    scores = pa.table({"key": keys, "domain": domains, "weight": [7.0] * 12})
    made.write_table("scores", scores, "00000")
    AltCaptionStage().run(made, "00000")
    select(made, SelectSettings(name="even", balance="domain"))
    select(made, SelectSettings(name="flat", balance="domain", cap=3))
    select(made, SelectSettings(name="plain"))
    return made


def stored(dataset: Dataset, name: str = "even") -> dict[str, float]:
    rows = pq.read_table(dataset.selection_path(name)).to_pydict()
    return dict(zip(rows["key"], rows["weight"], strict=True))


def test_webdataset_tells_the_weight_in_the_json(dataset, tmp_path):
    export(dataset, tmp_path / "out", ExportSettings(selection="even"))
    with tarfile.open(tmp_path / "out" / "shards" / "00000.tar") as tar:
        told = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
    assert {row["key"]: row["weight"] for row in told} == stored(dataset)
    assert {round(row["weight"], 6) for row in told} == {round(12 / 18, 6), 2.0}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Balanced by `domain`" in card
    assert "name: weight" in card


def test_hugging_face_reads_the_weight_as_a_column(dataset, tmp_path):
    export(dataset, tmp_path / "p", ExportSettings(selection="even", format="parquet"))
    rows = pq.read_table(tmp_path / "p" / "data" / "train-00000-of-00001.parquet")
    told = dict(zip(rows["key"].to_pylist(), rows["weight"].to_pylist(), strict=True))
    assert told == stored(dataset)
    export(dataset, tmp_path / "f", ExportSettings(selection="even", format="folder"))
    lines = (tmp_path / "f" / "train" / "00000" / "metadata.jsonl").read_text().splitlines()
    assert {row["key"]: row["weight"] for row in map(json.loads, lines)} == stored(dataset)


@pytest.mark.parametrize("layout", ["kohya", "simpletuner"])
def test_trainers_without_weights_refuse_them_unless_all_are_one(dataset, tmp_path, layout):
    settings = ExportSettings(selection="even", format="folder", layout=layout)
    with pytest.raises(ConfigError, match=r"has weights.*--cap"):
        export(dataset, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
    flat = settings.model_copy(update={"selection": "flat"})
    assert export(dataset, tmp_path / "out", flat).samples == 6


def test_without_weights_a_score_of_that_name_stays(dataset, tmp_path):
    export(dataset, tmp_path / "out", ExportSettings(selection="plain", format="parquet"))
    rows = pq.read_table(tmp_path / "out" / "data" / "train-00000-of-00001.parquet")
    assert set(rows["weight"].to_pylist()) == {7.0}
