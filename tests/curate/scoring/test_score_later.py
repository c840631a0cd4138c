"""Scores that come later: new columns for old samples, old columns for new samples."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import ConfigError
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard, write_shard
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip, tiny_head

TABLES = ("scores", "embeddings", "fingerprints")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return {"clip_model": str(config), "clip_pretrained": str(weights)}


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another CLIP model, as an entry of `more_clips`."""
    config, weights = tiny_clip(tmp_path_factory.mktemp("second"), seed=7)
    return f"{config}@{weights}"


def samples() -> list[tuple[bytes, str | None]]:
    return [(encoded(drawn(i)), f"text {i}") for i in range(5)] + [(b"broken", "not a picture")]


def score(dataset: Dataset, settings: ScoreSettings) -> ScoreStage:
    stage = ScoreStage(settings)
    stage.open()
    for shard in dataset.shards():
        stage.run(dataset, shard)
        assert stage.is_done(dataset, shard)
    return stage


def written(dataset: Dataset) -> list[bytes]:
    return [dataset.table_path(table, "00000").read_bytes() for table in TABLES]


def keep(dataset: Dataset, rows: list[int]) -> None:
    """Leave only these stored samples, as if the others had failed to download so far."""
    table = dataset.read_table("samples", "00000")
    status = ["stored" if row in rows else "failed" for row in range(table.num_rows)]
    members = [
        (key, {"png": image, "txt": text.encode(), "json": b"{}"})
        for number, (key, image, text) in enumerate(iter_shard(dataset, "00000"))
        if number in rows
    ]
    place = table.column_names.index("status")
    dataset.write_table("samples", table.set_column(place, "status", pa.array(status)), "00000")
    write_shard(dataset.shard_path("00000"), members)


def test_samples_that_a_retry_stored_later_are_scored_alone(clip, tmp_path: Path) -> None:
    settings = ScoreSettings(**clip)
    whole = make_dataset(tmp_path / "whole", [samples()], failed=0)
    score(whole, settings)
    later = make_dataset(tmp_path / "later", [samples()], failed=0)
    first = [0, 2, 5]
    keep(later, first)
    stage = score(later, settings)
    make_dataset_again = make_dataset(tmp_path / "again", [samples()], failed=0)
    for name in ("samples",):
        later.write_table(name, make_dataset_again.read_table(name, "00000"), "00000")
    # The pictures that were scored before are gone: only the new ones can be read.
    members = [
        (key, {"png": b"" if number in first else image, "txt": text.encode(), "json": b"{}"})
        for number, (key, image, text) in enumerate(iter_shard(make_dataset_again, "00000"))
    ]
    write_shard(later.shard_path("00000"), members)
    assert not stage.is_done(later, "00000")
    assert stage.run(later, "00000")["scored"] == 6
    assert stage.is_done(later, "00000")
    assert written(later) == written(whole)


@pytest.mark.parametrize("decodes", [False, True])
def test_a_scorer_and_samples_added_at_once_give_the_tables_of_one_run(
    clip, second, tmp_path: Path, decodes: bool
) -> None:
    head = str(tiny_head(tmp_path / "head.safetensors"))
    wanted = ScoreSettings(**clip, aesthetic_head=head, more_clips={"b": second} if decodes else {})
    whole = make_dataset(tmp_path / "whole", [samples()], failed=0)
    score(whole, wanted)
    later = make_dataset(tmp_path / "later", [samples()], failed=0)
    tar = later.shard_path("00000").read_bytes()
    table = later.read_table("samples", "00000")
    keep(later, [1, 3])
    score(later, ScoreSettings(**clip))
    later.write_table("samples", table, "00000")
    later.shard_path("00000").write_bytes(tar)
    score(later, wanted)
    for table in TABLES:
        mine, other = later.read_table(table, "00000"), whole.read_table(table, "00000")
        assert mine.schema.equals(other.schema, check_metadata=True)
        # A head's product rounds by the size of its batch; all else is the same to the bit.
        for name in set(mine.column_names) - {"aesthetic"}:
            assert mine.column(name).equals(other.column(name)), name
        if table == "scores":
            assert np.nan_to_num(mine.column("aesthetic").to_numpy()) == pytest.approx(
                np.nan_to_num(other.column("aesthetic").to_numpy()), abs=1e-6
            )


def test_a_sample_that_is_stored_no_more_loses_its_scores(clip, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [samples()], failed=0)
    score(dataset, ScoreSettings(**clip))
    keep(dataset, [0, 4])
    score(dataset, ScoreSettings(**clip))
    for table in TABLES:
        assert dataset.read_table(table, "00000").num_rows == 2


def test_a_column_of_a_scorer_that_was_left_out_is_completed_when_it_returns(
    clip, tmp_path: Path
) -> None:
    head = str(tiny_head(tmp_path / "head.safetensors"))
    dataset = make_dataset(tmp_path / "d", [samples()], failed=0)
    tar, table = dataset.shard_path("00000").read_bytes(), dataset.read_table("samples", "00000")
    keep(dataset, [0, 1])
    score(dataset, ScoreSettings(**clip, aesthetic_head=head))
    dataset.write_table("samples", table, "00000")
    dataset.shard_path("00000").write_bytes(tar)
    score(dataset, ScoreSettings(**clip))
    assert dataset.read_table("scores", "00000").column("aesthetic").null_count == 4
    score(dataset, ScoreSettings(**clip, aesthetic_head=head))
    # The broken picture alone has no aesthetic score.
    assert dataset.read_table("scores", "00000").column("aesthetic").null_count == 1


def test_two_clip_models_stand_side_by_side(clip, second: str, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [samples()], failed=0)
    score(dataset, ScoreSettings(**clip))
    before = dataset.read_table("scores", "00000")
    both = ScoreSettings(**clip, more_clips={"b32": second})
    score(dataset, both)
    after = dataset.read_table("scores", "00000")
    assert after.column("clip_similarity").equals(before.column("clip_similarity"))
    assert after.column("clip_similarity_b32").null_count == 1
    stored = dataset.read_table("embeddings", "00000").to_pylist()
    row = stored[0]
    assert row["image"] != row["image_b32"]
    cosine = np.dot(np.array(row["image_b32"], np.float32), np.array(row["text_b32"], np.float32))
    assert after.column("clip_similarity_b32")[0].as_py() == pytest.approx(cosine, abs=1e-6)
    at_once = make_dataset(tmp_path / "at_once", [samples()], failed=0)
    score(at_once, both)
    assert written(at_once) == written(dataset)


def test_a_head_can_rest_on_the_second_model(clip, second: str, tmp_path: Path) -> None:
    head = str(tiny_head(tmp_path / "head.safetensors"))
    dataset = make_dataset(tmp_path / "d", [samples()], failed=0)
    heads = {"aesthetic": head, "aesthetic_b32": f"{head}@b32"}
    score(dataset, ScoreSettings(**clip, more_clips={"b32": second}, more_heads=heads))
    scores = dataset.read_table("scores", "00000")
    assert scores.column("aesthetic") != scores.column("aesthetic_b32")
    with pytest.raises(ConfigError, match=r"'b16'.*more-clips"):
        ScoreStage(ScoreSettings(**clip, more_heads={"a": f"{head}@b16"}))


def test_models_of_different_sizes_each_get_their_view(clip, tmp_path: Path) -> None:
    import json

    import open_clip
    import torch
    from safetensors.torch import save_file

    from tests.curate.tiny import CLIP_CONFIG

    larger = json.loads(json.dumps(CLIP_CONFIG))
    larger["vision_cfg"]["image_size"] = 48
    torch.manual_seed(3)
    model = open_clip.CLIP(**json.loads(json.dumps(larger)))
    (tmp_path / "larger.json").write_text(json.dumps(larger))
    save_file(dict(model.state_dict()), tmp_path / "larger.safetensors")
    source = f"{tmp_path / 'larger.json'}@{tmp_path / 'larger.safetensors'}"
    dataset = make_dataset(tmp_path / "d", [samples()], failed=0)
    stage = score(dataset, ScoreSettings(**clip, more_clips={"large": source}))
    views = stage.graph.plan({}).views()
    assert {name: view.size for name, view in views.items()} == {
        "picture": 32,
        "picture_large": 48,
    }
    assert dataset.read_table("scores", "00000").column("clip_similarity_large").null_count == 1


def test_tokens_that_the_model_never_saw_are_counted(clip, tmp_path: Path) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen"
    texts: list[tuple[bytes, str | None]] = [
        (encoded(drawn(0)), "a short text"),
        (encoded(drawn(1)), long),  # 13 words and two marks in a context of 12
        (encoded(drawn(2)), None),
    ]
    dataset = make_dataset(tmp_path / "d", [texts], failed=0)
    score(dataset, ScoreSettings(**clip))
    counts = dataset.read_table("scores", "00000").column("clip_truncated_tokens").to_pylist()
    assert counts == [0, 3, None]
