"""negCLIPLoss and NormSim against the paper's formulas, and what later shards change."""

from pathlib import Path

import numpy as np
import pytest

from curate.base.arrow_columns import key_array, to_numpy
from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from curate.scoring.scorers.clip import Clip
from curate.scoring.settings import ScoreSettings
from curate.scoring.stage import ScoreStage
from curate.scoring.whole.batches import FILE, Batches, drawing
from curate.scoring.whole.settings import WholeSettings
from curate.scoring.whole.stage import WholeScoreStage
from curate.scoring.whole.temperature import temperature_of
from curate.store.dataset import Dataset
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip

TEMPERATURE = 0.07


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ScoreSettings:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return ScoreSettings(clip_model=str(config), clip_pretrained=str(weights))


def shard(first: int, count: int) -> list[tuple[bytes, str | None]]:
    return [(encoded(drawn(i)), f"text {i}") for i in range(first, first + count)]


def scored(dataset: Dataset, clip: ScoreSettings) -> Dataset:
    stage = ScoreStage(clip)
    for name in dataset.shards():
        if not stage.is_done(dataset, name):
            stage.run(dataset, name)
    return dataset


def whole(dataset: Dataset, clip: ScoreSettings, **given: object) -> WholeScoreStage:
    """Score what is missing, and return the stage."""
    stage = WholeScoreStage(WholeSettings(**given), clip)
    stage.prepare(dataset)
    stage.open()
    for name in dataset.shards():
        if not stage.is_done(dataset, name):
            stage.run(dataset, name)
        assert stage.is_done(dataset, name)
    return stage


def column(dataset: Dataset, table: str, name: str) -> np.ndarray:
    parts = [dataset.read_table(table, s, columns=[name]).column(0) for s in dataset.shards()]
    return np.concatenate([to_numpy(part) for part in parts])


def neg_clip_loss(
    image: np.ndarray, text: np.ndarray, batches: list[list[int]], temperature: float
) -> np.ndarray:
    """Wang et al. 2024, as it is written, of each pair that all batches hold."""
    found = np.full((len(batches), len(image)), np.nan)
    for number, batch in enumerate(batches):
        s = image[batch].astype(np.float64) @ text[batch].T.astype(np.float64)
        e = np.exp(s / temperature)
        loss = -0.5 * (np.log(np.diag(e) / e.sum(1)) + np.log(np.diag(e) / e.sum(0)))
        found[number, batch] = -temperature * loss
    return found.mean(0)


def test_the_scores_are_those_of_the_papers_formulas(clip: ScoreSettings, tmp_path: Path) -> None:
    shards = [shard(0, 9), [*shard(20, 7), (encoded(drawn(1)), None), (b"broken", "no picture")]]
    dataset = scored(make_dataset(tmp_path / "data", shards), clip)
    targets = column(dataset, "embeddings", "image")[:5] * 3.0  # any length
    np.save(tmp_path / "targets.npy", targets)
    stage = whole(
        dataset, clip, neg_clip_loss=str(TEMPERATURE), neg_clip_batch=6, neg_clip_divisions=3,
        norm_sim={"mine": str(tmp_path / "targets.npy"), "self": str(dataset.directory)},
    )  # fmt: skip
    image, text = (column(dataset, "embeddings", name) for name in ("image", "text"))
    keys = np.concatenate(
        [key_array(dataset.read_table("scores", s).column("key")) for s in dataset.shards()]
    )
    known = np.isfinite(image).all(1) & np.isfinite(text).all(1)
    assert known.sum() == 16
    got = column(dataset, "scores", "neg_clip_loss")
    assert np.array_equal(np.isfinite(got), known)
    assert got[known].max() <= 0

    three = list(Batches(dataset.directory / FILE))
    assert len(three) == 3
    for division, (batch, other, _) in enumerate(three):
        smallest = np.argsort(drawing(keys[known], division))[:6]
        assert sorted(batch) == sorted(keys[known][smallest])
        unit = other / np.linalg.norm(other, axis=1, keepdims=True)
        by_key = dict(zip(keys, image, strict=True))
        assert unit == pytest.approx(np.stack([by_key[key] for key in batch]), abs=1e-3)
    place = {key: row for row, key in enumerate(keys)}
    for row in np.flatnonzero(known):
        batches = []
        for batch, _, _ in three:
            rows = [place[key] for key in batch]
            batches.append(rows if row in rows else [*rows[:-1], row])
        wanted = neg_clip_loss(image, text, batches, TEMPERATURE)[row]
        assert got[row] == pytest.approx(wanted, abs=1e-5)

    pictures = np.isfinite(image).all(1)
    unit = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    products = np.abs(image[pictures] @ unit.T)
    two, infinity = (column(dataset, "scores", f"norm_sim_{p}_mine") for p in ("2", "inf"))
    assert two[pictures] == pytest.approx(np.sqrt((products**2).sum(1)), abs=1e-4)
    assert infinity[pictures] == pytest.approx(products.max(1), abs=1e-4)
    assert np.isnan(two[~pictures]).all()
    assert column(dataset, "scores", "norm_sim_inf_self")[pictures] == pytest.approx(1, abs=1e-3)
    assert stage.columns[0] == "neg_clip_loss"


def test_with_one_batch_for_all_it_is_the_papers_to_the_letter(
    clip: ScoreSettings, tmp_path: Path
) -> None:
    dataset = scored(make_dataset(tmp_path / "data", [shard(0, 12), shard(12, 11)]), clip)
    whole(dataset, clip, neg_clip_loss=str(TEMPERATURE))
    image, text = (column(dataset, "embeddings", name) for name in ("image", "text"))
    wanted = neg_clip_loss(image, text, [list(range(23))], TEMPERATURE)
    assert column(dataset, "scores", "neg_clip_loss") == pytest.approx(wanted, abs=1e-5)


def test_batches_stay_while_a_dataset_grows_and_are_drawn_again_when_it_doubled(
    clip: ScoreSettings, tmp_path: Path
) -> None:
    options = {"neg_clip_loss": "model", "neg_clip_batch": 5, "neg_clip_divisions": 2}
    shards = [shard(0, 8), shard(8, 7), shard(15, 6)]
    grown = scored(make_dataset(tmp_path / "grown", shards[:1]), clip)
    whole(grown, clip, **options)
    first = grown.table_path("scores", "00000").read_bytes()
    kept = (grown.directory / FILE).read_bytes()

    more = make_dataset(tmp_path / "more", shards)
    for number, now in ((1, "is kept"), (2, "is drawn again")):
        name = f"{number:05d}"
        for path in ("shards", "input", "tables/samples"):
            [file] = (more.directory / path).glob(f"{name}.*")
            (grown.directory / path / file.name).write_bytes(file.read_bytes())
        stage = whole(scored(grown, clip), clip, **options)
        same = (grown.directory / FILE).read_bytes() == kept
        assert same == (now == "is kept"), "7 more than 8 are under twice as many, 13 are not"
        assert (grown.table_path("scores", "00000").read_bytes() == first) == same
    # At once or in pieces: when the same samples were there at the draw, so are the numbers.
    at_once = scored(more, clip)
    whole(at_once, clip, **options)
    assert (at_once.directory / FILE).read_bytes() == (grown.directory / FILE).read_bytes()
    one, other = (column(d, "scores", "neg_clip_loss") for d in (at_once, grown))
    assert np.array_equal(one, other)
    # Scoring again keeps what is there, and other embeddings make it stale.
    before = grown.table_path("scores", "00001").read_bytes()
    assert scored(grown, clip).table_path("scores", "00001").read_bytes() == before
    scored(grown, clip.model_copy(update={"jpeg_draft": False}))
    assert not stage.is_done(grown, "00001")


def test_the_temperature_is_read_from_the_weights(clip: ScoreSettings) -> None:
    import torch

    model = Clip.of(clip)[0].load().model
    wanted = float(torch.exp(-model.logit_scale))
    assert temperature_of(Clip.of(clip)[0]) == pytest.approx(wanted)


def test_what_cannot_be_is_refused_before_any_work(clip: ScoreSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="say model, or a temperature"):
        load_settings(WholeSettings, None, {"neg_clip_loss": "hot"})
    with pytest.raises(ConfigError, match="does not exist"):
        WholeScoreStage(WholeSettings(norm_sim={"a": str(tmp_path / "none.npy")}), clip)
    with pytest.raises(ConfigError, match="cannot name a column"):
        WholeScoreStage(WholeSettings(norm_sim={"A b": str(tmp_path)}), clip)
    np.save(tmp_path / "wide.npy", np.ones((3, 17), np.float32))
    dataset = scored(make_dataset(tmp_path / "data", [shard(0, 3)]), clip)
    with pytest.raises(ConfigError, match=r"17 numbers and the embeddings here 16"):
        whole(dataset, clip, norm_sim={"wide": str(tmp_path / "wide.npy")})
