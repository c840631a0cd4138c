"""What a rule can ask beyond the scores: recurring texts, embeddings, captions, heads as SQL."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.base.errors import ConfigError
from curate.scoring.captions import CaptionScoreStage
from curate.scoring.scorers import head_source as head_sql_module
from curate.scoring.scorers.head_source import find_head, head_sql
from curate.scoring.scorers.heads import Head, save_head
from curate.scoring.scorers.published import PUBLISHED
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip, tiny_head

TEXTS: list[str | None] = ["a fox", "A  Fox", "a dog", None, "a fox", ""]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return {"clip_model": str(config), "clip_pretrained": str(weights)}


@pytest.fixture
def dataset(tmp_path: Path, clip: dict[str, str]) -> Dataset:
    samples = [(encoded(drawn(i)), text) for i, text in enumerate(TEXTS)]
    dataset = make_dataset(tmp_path / "d", [samples[:4], samples[4:]], failed=0)
    stage = ScoreStage(ScoreSettings(**clip))
    for shard in dataset.shards():
        stage.run(dataset, shard)
    return dataset


def selected(dataset: Dataset, where: str, name: str = "s") -> list[str]:
    select(dataset, SelectSettings(name=name, where=where, overwrite=True))
    return dataset.selection_keys(name)


def keys(dataset: Dataset, *rows: int) -> list[str]:
    found = [
        dataset.read_table("samples", shard).column("key").to_pylist() for shard in dataset.shards()
    ]
    flat = [key for some in found for key in some]
    return sorted(flat[row] for row in rows)


def test_how_often_a_text_recurs_is_counted_over_all_shards(dataset: Dataset) -> None:
    assert selected(dataset, "text_count = 3") == keys(dataset, 0, 1, 4)
    assert selected(dataset, "text_count <= 1") == keys(dataset, 2)
    assert selected(dataset, "text_count IS NULL") == keys(dataset, 3, 5)


def test_the_count_is_right_when_samples_are_added(dataset: Dataset, clip, tmp_path: Path) -> None:
    assert selected(dataset, "text_count > 2") == keys(dataset, 0, 1, 4)
    more = make_dataset(tmp_path / "more", [[], [], [(encoded(drawn(9)), "A DOG")]], failed=0)
    for table in ("samples",):
        dataset.write_table(table, more.read_table(table, "00002"), "00002")
    dataset.input_path("00002").write_bytes(more.input_path("00002").read_bytes())
    dataset.shard_path("00002").write_bytes(more.shard_path("00002").read_bytes())
    ScoreStage(ScoreSettings(**clip)).run(dataset, "00002")
    assert len(selected(dataset, "text_count = 2")) == 2


def test_embeddings_can_be_asked_in_a_rule(dataset: Dataset) -> None:
    rule = "list_dot_product(image_embedding, image_embedding) BETWEEN 0.99 AND 1.01"
    assert len(selected(dataset, rule)) == len(TEXTS)
    assert selected(dataset, "text_embedding IS NULL") == keys(dataset, 3, 5)


def test_scores_of_captions_can_be_asked_in_a_rule(dataset: Dataset, clip) -> None:
    wanted = keys(dataset, 0, 1, 2)
    rows = [
        dict.fromkeys(CAPTIONS.names)
        | {"key": key, "kind": "descriptive", "sample_index": 0, "text": text, "status": "ok"}
        for key, text in zip(wanted, ["One. Two. Three.", "One.", "One. Two."], strict=True)
    ]
    dataset.write_table("captions", pa.Table.from_pylist(rows, CAPTIONS), "00000", "vlm")
    CaptionScoreStage(ScoreSettings(**clip), ["all"]).run(dataset, "00000")
    assert selected(dataset, "descriptive_clip_sentences > 1") == sorted([wanted[0], wanted[2]])
    record = dataset.selection_record("s")
    assert "table caption_scores" in record["rests_on"]
    best = "top_fraction(descriptive_clip_sentence_min, 0.3)"
    assert len(selected(dataset, best)) == 2


def test_a_head_without_activations_is_the_same_in_sql(dataset: Dataset, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    layers = [
        (
            random.normal(size=shape).astype(np.float32),
            random.normal(size=shape[0]).astype(np.float32),
        )
        for shape in ((8, 16), (4, 8), (1, 4))
    ]
    path = save_head(layers, tmp_path / "h.safetensors", {"activation": "none", "output": "score"})
    head = Head.load(path)
    connection = dataset.connect(["embeddings"])
    rows = connection.execute(f"SELECT image, {head_sql(head, 'image')} FROM embeddings").fetchall()
    vectors = np.array([row[0] for row in rows], np.float32)
    assert head(vectors) == pytest.approx(np.array([row[1] for row in rows]), abs=1e-4)
    with pytest.raises(ConfigError, match="without activations"):
        head_sql(Head.load(tiny_head(tmp_path / "relu.safetensors")))


def test_aesthetic_v2_in_a_rule_is_what_the_published_head_says_of_the_embedding(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real function and road, with a head that fits the tiny model's embedding.
    monkeypatch.setenv("CAPLAB_CACHE", str(tmp_path / "cache"))
    import torch

    torch.manual_seed(0)
    state = {
        "layers.0.weight": torch.randn(8, 16),
        "layers.0.bias": torch.randn(8),
        "layers.2.weight": torch.randn(1, 8),
        "layers.2.bias": torch.randn(1),
    }
    torch.save(state, tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    path = find_head(
        str(tmp_path / "sac+logos+ava1-l14-linearMSE.pth"), ["sac+logos+ava1-l14-linearMSE.pth"]
    )
    monkeypatch.setattr(head_sql_module, "find_head", lambda name: path)
    stored = [dataset.read_table("embeddings", shard) for shard in dataset.shards()]
    vectors = torch.tensor([row for table in stored for row in table.column("image").to_pylist()])
    with torch.inference_mode():
        hidden = vectors.float() @ state["layers.0.weight"].T + state["layers.0.bias"]
        values = (hidden @ state["layers.2.weight"].T + state["layers.2.bias"])[:, 0].numpy()
    middle = float(np.median(values))
    expected = [row for row, value in enumerate(values) if value >= middle]
    rule = f"aesthetic_v2(image_embedding) >= {middle}"
    assert selected(dataset, rule) == keys(dataset, *expected)


def test_the_published_second_predictor_is_the_same_in_sql_and_in_torch(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb
    import torch

    monkeypatch.setenv("CAPLAB_CACHE", str(tmp_path))
    name = PUBLISHED["laion-aesthetic-v2"].file_name.replace("%2B", "+")
    file = real_data / "heads" / "improved_aesthetic_predictor" / name
    head = Head.load(find_head(str(file), [name]))
    folder = real_data / "heads" / "laion_aesthetic_predictor" / "vit_l_14_embeddings"
    vectors = np.stack([np.load(folder / f"rating{i}.npy").ravel() for i in range(10)])
    value = torch.from_numpy(vectors).double()
    state = torch.load(file, map_location="cpu", weights_only=True)
    for layer in (0, 2, 4, 6, 7):
        weight, bias = (state[f"layers.{layer}.{part}"].double() for part in ("weight", "bias"))
        value = value @ weight.T + bias
    table = pa.table({"embedding": pa.array(list(vectors.astype(np.float32)))})
    connection = duckdb.connect()
    connection.register("vectors", table)
    scored = connection.execute(f"SELECT {head_sql(head)} FROM vectors").fetchnumpy()
    (column,) = scored.values()
    assert np.asarray(column) == pytest.approx(value[:, 0].numpy(), abs=1e-4)


def test_a_function_whose_weights_are_not_here_says_how_to_get_them(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Path:
        raise ConfigError("x.pth is a pickle; say --allow-pickle x.pth.")

    monkeypatch.setattr(head_sql_module, "find_head", refuse)
    with pytest.raises(ConfigError, match="caplab weights laion-aesthetic-v2"):
        selected(dataset, "Aesthetic_V2 (image_embedding) > 5")
