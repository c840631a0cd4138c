import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from moody_server import MoodyServer, moody_server

from curate.base.errors import ConfigError
from curate.base.files import write_json
from curate.base.provenance import provenance
from curate.scoring.captions import caption_scores
from curate.scoring.scorers.clip import Clip
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.store.dataset import Dataset
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage
from recaption.engines.identity import served_captioner
from recaption.gates.gates import DEFAULT_REJECTS
from recaption.measure.similarity import CaptionSimilarity
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip

LONG = (
    "A red fox sits in the deep snow, its breath white in the cold and one paw lifted. Behind it "
    "stands a very old oak tree with a hollow trunk. Birds sing."
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ScoreSettings:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    return ScoreSettings(clip_model=str(config), clip_pretrained=str(weights))


@pytest.fixture
def dataset(tmp_path: Path, clip: ScoreSettings) -> Dataset:
    """Three good pictures, with the worst of fifty texts, none and the best, and a broken one."""
    (scorer,) = Clip.of(clip)
    texts = [
        f"{how} {what}" for how in ("red", "old", "a", "no", "1") for what in LONG.split()[:10]
    ]
    fits = scorer.model.embed_texts(texts) @ scorer.model.embed_pictures(drawn(2)[None])[0]
    chosen = [texts[int(np.argmin(fits))], None, texts[int(np.argmax(fits))]]
    samples = [(encoded(drawn(2 if text else 1)), text) for text in chosen]
    made = make_dataset(tmp_path / "set", [[*samples, (b"broken", "x")]], failed=0)
    ScoreStage(clip).run(made, "00000")
    write_json(made.directory / "scores.json", provenance(clip))
    return made


@pytest.fixture(scope="module")
def moody() -> Iterator[MoodyServer]:
    with moody_server() as running:
        yield running


def settings_of(captioner: str = "x", **given: object) -> RecaptionSettings:
    return RecaptionSettings(captioner=captioner, t5_tokenizer="", **given)


def keys_of(dataset: Dataset) -> list[str]:
    return dataset.read_table("scores", "00000").column("key").to_pylist()


def captioned(dataset: Dataset, moody: MoodyServer, **given: object) -> dict[str, dict]:
    stage = CaptionStage(settings_of(moody.url, kinds=("descriptive",), **given), dataset=dataset)
    stage.run(dataset, "00000")
    rows = dataset.read_table("captions", "00000", stage.source).to_pylist()
    return {row["key"]: row for row in rows}


def test_a_caption_is_compared_by_sentence_with_the_stored_embedding_of_its_picture(
    dataset: Dataset, clip: ScoreSettings
) -> None:
    similarity = CaptionSimilarity(settings_of(), dataset)
    similarity.open()
    keys = keys_of(dataset)
    embeddings = similarity.embeddings(dataset, "00000", keys)
    assert [vector is not None for vector in embeddings] == [True, True, True, False]
    found = similarity.compare(embeddings, [LONG, None, "A cat.", LONG])

    (model,) = Clip.of(clip)
    stored = np.stack(dataset.read_table("embeddings", "00000").column("image")[:1].to_pylist())
    whole, truncated, _, mean, least, _ = caption_scores(model, stored.astype(np.float32), [LONG])
    assert truncated[0] > 0, "the whole does not fit into this model's twelve tokens"
    assert found.whole[0] == pytest.approx(whole[0], abs=1e-6)
    assert found.sentence_mean[0] == pytest.approx(mean[0], abs=1e-6)
    assert found.sentence_min[0] == pytest.approx(least[0], abs=1e-6)
    assert np.isnan(found.sentence_mean).tolist() == [False, True, False, True]


def test_the_last_words_of_a_long_caption_count(dataset: Dataset) -> None:
    similarity = CaptionSimilarity(settings_of(), dataset)
    pictures = similarity.embeddings(dataset, "00000", keys_of(dataset)[:1]) * 2
    # One sentence of forty words in a context of twelve tokens.
    texts = ["a " + "very " * 40 + end for end in ("old oak", "cold lake")]
    found = similarity.compare(pictures, texts)
    assert found.whole[0] == found.whole[1]
    assert found.sentence_mean[0] != found.sentence_mean[1]


def test_rows_hold_the_similarities_and_a_caption_below_its_alt_text_is_marked(
    dataset: Dataset, moody: MoodyServer
) -> None:
    rows = captioned(dataset, moody)
    worst, bare, best, broken = (rows[key] for key in keys_of(dataset))
    for row in (worst, best):
        assert -1 <= row["clip_sentence_min"] <= row["clip_sentence_mean"] <= 1
        assert row["alt_clip_similarity"] is not None
        assert row["status"] == "ok", "the gate marks, unless it is asked to reject"
    assert worst["clip_sentence_mean"] > worst["alt_clip_similarity"]
    assert "below_alt_text" not in worst["flags"]
    assert best["clip_sentence_mean"] < best["alt_clip_similarity"]
    assert best["flags"] == ["below_alt_text"]
    assert bare["clip_similarity"] is not None
    assert bare["alt_clip_similarity"] is None
    assert "below_alt_text" not in bare["flags"]
    assert broken["status"] == "failed"
    assert broken["clip_similarity"] is None


def test_the_gate_rejects_where_asked_and_the_margin_decides(
    dataset: Dataset, moody: MoodyServer
) -> None:
    strict = {"reject": (*DEFAULT_REJECTS, "below_alt_text"), "retries": 0}
    rows = captioned(dataset, moody, **strict).values()
    flagged = [row for row in rows if "below_alt_text" in row["flags"]]
    assert [(row["status"], row["reason"], row["text"]) for row in flagged] == [
        ("rejected", "below_alt_text", None)
    ]
    assert flagged[0]["clip_sentence_mean"] < flagged[0]["alt_clip_similarity"], "the evidence"
    generous = captioned(dataset, moody, clip_margin=2.0, **strict).values()
    assert not any("below_alt_text" in row["flags"] for row in generous)


def test_the_model_is_the_one_that_scored_the_dataset_or_none(
    tmp_path: Path, dataset: Dataset, clip: ScoreSettings
) -> None:
    found = CaptionSimilarity(settings_of(), dataset).clip
    assert found is not None
    assert found.source == clip.clip_model
    named = {"clip_model": clip.clip_model, "clip_pretrained": clip.clip_pretrained}
    assert CaptionSimilarity(settings_of(clip_gate="on", **named), dataset).clip is not None
    assert CaptionSimilarity(settings_of(clip_gate="off"), dataset).clip is None

    config, weights = tiny_clip(tmp_path / "other", seed=1)
    other = {"clip_model": str(config), "clip_pretrained": str(weights)}
    assert CaptionSimilarity(settings_of(**other), dataset).clip is None
    with pytest.raises(ConfigError, match="no picture embeddings of the CLIP model"):
        CaptionSimilarity(settings_of(clip_gate="on", **other), dataset)

    bare = make_dataset(tmp_path / "bare", [[(encoded(drawn(1)), "a")]])
    assert CaptionSimilarity(settings_of(), bare).clip is None
    with pytest.raises(ConfigError, match="score it with `caplab score` first"):
        CaptionSimilarity(settings_of(clip_gate="on"), bare)
    with pytest.raises(ConfigError, match="clip_gate = 'on' needs a dataset"):
        CaptionSimilarity(settings_of(clip_gate="on"))


def test_rejecting_by_a_comparison_that_is_not_made_is_a_mistake(dataset: Dataset) -> None:
    asked = settings_of(reject=("below_alt_text",), clip_gate="off")
    with pytest.raises(ConfigError, match="no captions are compared"):
        CaptionStage(asked, served_captioner("http://host/v1", "model"), dataset)


def test_lost_weights_of_the_scoring_model_are_told_before_any_work(
    dataset: Dataset, clip: ScoreSettings
) -> None:
    gone = clip.model_copy(update={"clip_pretrained": "/gone/weights.safetensors"})
    write_json(dataset.directory / "scores.json", provenance(gone))
    with pytest.raises(ConfigError, match="clip_gate = off leaves that out"):
        CaptionSimilarity(settings_of(), dataset)


def test_a_model_travels_by_pickle_without_weights_and_embeddings(dataset: Dataset) -> None:
    similarity = CaptionSimilarity(settings_of(), dataset)
    similarity.open()
    similarity.embeddings(dataset, "00000", keys_of(dataset))
    packed = pickle.dumps(similarity)
    assert len(packed) < 5_000
    again = pickle.loads(packed)
    assert again.compare(again.embeddings(dataset, "00000", keys_of(dataset)), ["a"] * 4)
