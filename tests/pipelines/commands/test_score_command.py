"""`caplab score` on a small dataset, the command as a user types it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from curate.scoring.scorers.heads import save_head
from curate.scoring.settings import ScoreSettings
from curate.store.dataset import Dataset
from curate.store.shards import write_shard
from pipelines import cli
from pipelines.commands.score import on_top_of_stored, remember
from recaption.captioning.alt_texts import AltCaptionStage
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip, tiny_head

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def caplab(monkeypatch, capsys):
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["caplab", *map(str, arguments)])
        cli.run()
        return capsys.readouterr().out

    return run


def test_scorers_are_added_one_command_after_the_other(caplab, tmp_path: Path):
    config, weights = tiny_clip(tmp_path / "clip")
    head = tiny_head(tmp_path / "head.safetensors")
    samples = [(encoded(drawn(i)), f"A caption. Number {i}.") for i in range(3)]
    dataset = make_dataset(tmp_path / "data", [samples, samples[:1]])
    where = dataset.directory
    first = caplab(
        "score", where, "--clip-model", config, "--clip-pretrained", weights, "--workers", 1
    )
    assert "score: 2 shards done" in first
    assert "clip_similarity" in first
    assert on_top_of_stored(where, None, {}).clip_model == str(config)
    # Nothing can be decoded from here on: what follows rests on stored embeddings.
    for shard in dataset.shards():
        write_shard(dataset.shard_path(shard), [])
    assert "aesthetic" in caplab("score", where, "--aesthetic-head", head, "--workers", 1)
    for shard in dataset.shards():
        AltCaptionStage().run(dataset, shard)
    printed = caplab("score", where, "--captions", "alt", "--workers", 1)
    assert "score: 0 shards done, 2 were up to date" in printed
    assert "caption_score: 2 shards done" in printed
    record = json.loads((where / "scores.json").read_text())
    assert record["settings"]["captions"] == ["alt"]
    assert record["settings"]["aesthetic_head"] == str(head)
    assert {name.split("/")[0] for name in record["weights"]} == {
        "aesthetic",
        "clip",
        "text_language",
    }
    (row, *_) = Dataset.open(where).read_table("caption_scores", "00000", "alt").to_pylist()
    assert row["clip_sentences"] == 2


def test_curation_again_keeps_the_scorers_that_were_added_later(tmp_path: Path):
    config, weights = tiny_clip(tmp_path / "clip")
    head = str(tiny_head(tmp_path / "head.safetensors"))
    dataset = make_dataset(tmp_path / "data", [[]])
    clip = {"clip_model": str(config), "clip_pretrained": str(weights)}
    remember(dataset, ScoreSettings(**clip), {})
    assert (
        on_top_of_stored(dataset.directory, None, {"aesthetic_head": head}).aesthetic_head == head
    )
    remember(dataset, ScoreSettings(**clip, aesthetic_head=head), {})
    remember(dataset, ScoreSettings(**clip, precision="bf16"), {})
    settings = on_top_of_stored(dataset.directory, None, {})
    assert (settings.aesthetic_head, settings.precision) == (head, "bf16")
    # `--aesthetic-head none` takes it away.
    assert (
        on_top_of_stored(dataset.directory, None, {"aesthetic_head": None}).aesthetic_head is None
    )


def test_a_head_as_sql_is_what_a_database_computes(caplab, tmp_path: Path):
    import duckdb

    layers = [(np.arange(4, dtype=np.float32)[None], np.ones(1, np.float32))]
    path = save_head(layers, tmp_path / "h.safetensors", {"activation": "none", "output": "score"})
    assert "embeddings of 4 numbers" in caplab("weights", path)
    sql = caplab("weights", path, "--sql").strip()
    (row,) = duckdb.sql(f"SELECT {sql} FROM (SELECT [1, 2, 3, 4] AS embedding)").fetchall()
    assert row == (21.0,)
