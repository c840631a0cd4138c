"""Words that the model cannot read are counted, told, and refused before a step."""

from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from tests.train.tiny_run import squares, tiny
from train.run import train
from train.settings import ModelConfig
from train.shards import TrainingSamples
from train.vocabulary import refuse_unknown_words, unknown_words, vocabulary

SMALL = ModelConfig(
    vocabulary=("red", "ring", "top_left"), stop_words=("a",), phrases=("top left",)
)


def test_unknown_words_are_counted_for_each_group_of_texts_with_examples() -> None:
    tokenizer = vocabulary(SMALL, {})
    groups = {
        "short captions": ["a red ring", "a red CUBE top left", "Cube"],
        "alt captions": ["", "a"],
    }
    short, alt = unknown_words(tokenizer, groups)
    assert (short.words, short.unknown, short.examples) == (6, 2, ("cube",))
    assert str(short) == "33.3% of the 6 words of short captions (such as cube)"
    assert (alt.words, alt.share) == (0, 0.0)


def test_over_a_twentieth_of_unknown_words_is_refused_unless_asked_for() -> None:
    tokenizer = vocabulary(SMALL, {})
    counts = unknown_words(tokenizer, {"x": ["red " * 19 + "blue"], "y": ["red " * 18 + "blue"]})
    refuse_unknown_words(counts[:1], allowed=False)
    with pytest.raises(ConfigError, match=r"5\.3% of the 19 words of y \(such as blue\).*--allow"):
        refuse_unknown_words(counts, allowed=False)
    refuse_unknown_words(counts, allowed=True)


def test_a_run_that_could_not_read_its_captions_is_refused_before_a_step(tmp_path: Path) -> None:
    samples = squares()
    alt = [[f"IMG_{i} plain"] for i in range(len(samples))]
    noisy = TrainingSamples(samples.keys, samples.images, {**samples.captions, "alt": alt})
    model = tmp_path / "model.yaml"
    model.write_text(
        "model: {resolution: 16, width: 32, heads: 2, vocabulary_size: 12, text_tokens: 12}\n"
        "train: {steps: 1, batch_size: 4, validation_share: 0.1, grid_size: 0, log_every: 1}\n"
    )
    settings = tiny(model=str(model), captions={"descriptive": 0.5, "alt": 0.5})
    with pytest.raises(ConfigError, match="of the 80 words of alt captions") as caught:
        train(noisy, settings, tmp_path / "run")
    assert "descriptive" not in str(caught.value)
    assert not (tmp_path / "run").exists()
    allowed = settings.model_copy(update={"allow_unknown_words": True})
    summary = train(noisy, allowed, tmp_path / "run")
    assert summary.unknown_words["descriptive captions"] == 0
    assert summary.unknown_words["alt captions"] > 0.3
