import pickle
from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.pictures.decode import model_view
from curate.scoring.scorers.clip import ClipModel
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.store.dataset import Dataset
from curate.store.shards import write_shard
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip, tiny_head


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return {"clip_model": str(config), "clip_pretrained": str(weights)}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    first = [(encoded(drawn(i)), f"a caption {i}") for i in range(5)]
    second = [(encoded(drawn(9)), None), (b"broken", "no picture"), (encoded(drawn(8)), "last")]
    return make_dataset(tmp_path / "dataset", [first, second])


def run(dataset: Dataset, settings: ScoreSettings) -> list[dict[str, int]]:
    stage = ScoreStage(settings)
    stage.open()
    return [stage.run(dataset, shard) for shard in dataset.shards()]


def forbid_pictures(dataset: Dataset) -> None:
    for shard in dataset.shards():
        write_shard(dataset.shard_path(shard), [])


def test_every_stored_sample_has_one_row_in_tar_order(dataset: Dataset, clip) -> None:
    counts = run(dataset, ScoreSettings(**clip, score_batch_size=2))
    assert counts == [
        {"scored": 5, "undecodable": 0, "empty_text": 0},
        {"scored": 3, "undecodable": 1, "empty_text": 1},
    ]
    stored = dataset.connect().execute(
        "SELECT key FROM samples WHERE status = 'stored' AND shard = '00000' ORDER BY row"
    )
    keys = [key for (key,) in stored.fetchall()]
    for table in ("scores", "embeddings", "fingerprints"):
        assert dataset.read_table(table, "00000").column("key").to_pylist() == keys


def test_embeddings_and_similarity_are_those_of_the_model(dataset: Dataset, clip) -> None:
    run(dataset, ScoreSettings(**clip))
    model = ClipModel.load(*clip.values())
    pictures = np.stack([model_view(drawn(i), model.view) for i in range(5)])
    image = model.embed_pictures(pictures)
    text = model.embed_texts([f"a caption {i}" for i in range(5)])
    stored = dataset.read_table("embeddings", "00000")
    assert np.array(stored.column("image").to_pylist(), np.float32) == pytest.approx(image)
    similarity = dataset.read_table("scores", "00000").column("clip_similarity").to_numpy()
    assert similarity == pytest.approx((image * text).sum(axis=1), abs=1e-6)


def test_an_undecodable_picture_has_null_scores_and_a_reason(dataset: Dataset, clip) -> None:
    run(dataset, ScoreSettings(**clip))
    row = dataset.read_table("scores", "00001").to_pylist()[1]
    assert row["decode_error"] == "no image format that Pillow knows"
    assert row["text_chars"] == 10
    assert [row[name] for name in ("clip_similarity", "blur", "brightness")] == [None] * 3
    assert dataset.read_table("embeddings", "00001").to_pylist()[1]["image"] is None
    fingerprint = dataset.read_table("fingerprints", "00001").to_pylist()[1]
    assert [fingerprint[name] for name in ("pixel_sha256", "phash", "thumbnail")] == [None] * 3


def test_a_missing_text_has_a_null_similarity_and_zero_characters(dataset: Dataset, clip) -> None:
    run(dataset, ScoreSettings(**clip))
    row = dataset.read_table("scores", "00001").to_pylist()[0]
    assert row["clip_similarity"] is None
    assert row["text_chars"] == 0
    assert row["blur"] is not None


def test_done_means_made_by_these_settings(dataset: Dataset, clip, tmp_path: Path) -> None:
    settings = ScoreSettings(**clip)
    assert not ScoreStage(settings).is_done(dataset, "00000")
    run(dataset, settings)
    assert ScoreStage(settings).is_done(dataset, "00000")
    assert ScoreStage(ScoreSettings(**clip, score_batch_size=3)).is_done(dataset, "00000")
    _, other = tiny_clip(tmp_path / "other", seed=1)
    changed = ScoreSettings(clip_model=clip["clip_model"], clip_pretrained=str(other))
    assert not ScoreStage(changed).is_done(dataset, "00000")


def test_a_head_added_later_opens_no_picture(dataset: Dataset, clip, tmp_path: Path) -> None:
    run(dataset, ScoreSettings(**clip))
    before = dataset.read_table("scores", "00001")
    head = str(tiny_head(tmp_path / "head.safetensors"))
    forbid_pictures(dataset)
    run(dataset, ScoreSettings(**clip, aesthetic_head=head))
    after = dataset.read_table("scores", "00001")
    assert after.drop_columns(["aesthetic"]).equals(before)
    assert after.column("aesthetic").null_count == 1


def test_scoring_in_two_runs_gives_the_same_as_in_one(clip, tmp_path: Path) -> None:
    samples = [(encoded(drawn(i)), f"text {i}") for i in range(4)] + [(b"broken", "x")]
    heads = {
        "aesthetic_head": str(tiny_head(tmp_path / "a.safetensors", 1)),
        "nsfw_head": str(tiny_head(tmp_path / "n.safetensors", 2, "sigmoid")),
    }
    one = make_dataset(tmp_path / "one", [samples])
    run(one, ScoreSettings(**clip, **heads))
    two = make_dataset(tmp_path / "two", [samples])
    run(two, ScoreSettings(**clip))
    run(two, ScoreSettings(**clip, **heads))
    columns = one.read_table("scores", "00000").column_names
    assert two.read_table("scores", "00000", columns=columns).select(columns).to_pylist() == (
        one.read_table("scores", "00000").to_pylist()
    )


def test_other_clip_weights_replace_embeddings_and_what_rests_on_them(
    dataset: Dataset, clip, tmp_path: Path
) -> None:
    head = str(tiny_head(tmp_path / "head.safetensors"))
    run(dataset, ScoreSettings(**clip, aesthetic_head=head))
    before = dataset.read_table("scores", "00000")
    fingerprints = dataset.table_path("fingerprints", "00000").read_bytes()
    _, other = tiny_clip(tmp_path / "other", seed=1)
    changed = ScoreSettings(
        clip_model=clip["clip_model"], clip_pretrained=str(other), aesthetic_head=head
    )
    run(dataset, changed)
    after = dataset.read_table("scores", "00000")
    assert after.column("aesthetic") != before.column("aesthetic")
    assert after.column("blur") == before.column("blur")
    assert dataset.table_path("fingerprints", "00000").read_bytes() == fingerprints
    assert after.num_columns == before.num_columns


def test_a_shard_where_everything_failed_gets_empty_tables_of_the_same_types(
    clip, tmp_path: Path
) -> None:
    dataset = make_dataset(tmp_path / "d", [[(encoded(drawn(1)), "a")], []])
    stage = ScoreStage(ScoreSettings(**clip))
    for shard in dataset.shards():
        stage.run(dataset, shard)
        assert stage.is_done(dataset, shard)
    full, empty = (dataset.read_table("scores", shard).schema for shard in dataset.shards())
    assert full.remove_metadata() == empty.remove_metadata()


def test_the_tables_are_the_same_bytes_on_every_run_and_with_threads(clip, tmp_path: Path) -> None:
    samples = [(encoded(drawn(i)), f"text {i}") for i in range(7)]
    written = []
    runs = ({}, {}, {"decode_threads": 3}, {"score_threads": 3})
    for number, threads in enumerate(runs):
        dataset = make_dataset(tmp_path / str(number), [samples])
        run(dataset, ScoreSettings(**clip, score_batch_size=2, **threads))
        tables = ("scores", "embeddings", "fingerprints")
        written.append([dataset.table_path(table, "00000").read_bytes() for table in tables])
    assert all(tables == written[0] for tables in written)


def test_the_stage_travels_by_pickle_without_its_models(dataset: Dataset, clip) -> None:
    stage = ScoreStage(ScoreSettings(**clip))
    stage.open()
    copy = pickle.loads(pickle.dumps(stage))
    assert copy.run(dataset, "00000")["scored"] == 5


def test_a_tar_that_disagrees_with_its_table_is_refused(dataset: Dataset, clip) -> None:
    write_shard(dataset.shard_path("00000"), [("f" * 32, {"png": encoded(drawn(1))})])
    with pytest.raises(DatasetError, match="samples table"):
        run(dataset, ScoreSettings(**clip))


def test_a_head_for_another_model_is_refused_before_the_first_shard(clip, tmp_path: Path) -> None:
    head = str(tiny_head(tmp_path / "head.safetensors", width=24))
    with pytest.raises(ConfigError, match=r"24 numbers.*gives 16"):
        ScoreStage(ScoreSettings(**clip, nsfw_head=head)).open()
    with pytest.raises(ConfigError, match="does not exist"):
        ScoreStage(ScoreSettings(**clip, nsfw_head="none.safetensors"))


def test_nasty_files_never_stop_a_shard(clip, tmp_path: Path, real_data: Path) -> None:
    nasty = sorted(path for path in (real_data / "nasty").rglob("*") if path.is_file())
    files = [path for path in nasty if path.stat().st_size < 2_000_000][:150]
    dataset = make_dataset(
        tmp_path / "nasty", [[(path.read_bytes(), path.name) for path in files]], failed=0
    )
    (counts,) = run(dataset, ScoreSettings(**clip))
    assert counts["scored"] == len(files)
    scores = dataset.read_table("scores", "00000")
    assert scores.column("blur").null_count == counts["undecodable"]
    assert 0 < counts["undecodable"] < len(files)
