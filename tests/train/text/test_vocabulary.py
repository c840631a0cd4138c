"""Words that the model cannot read, and ends that it never sees, are counted; words are refused."""

from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from tests.train.text import tiny_pipelines as tiny
from train.model_settings import ModelConfig, TextConfig
from train.settings import TrainSettings
from train.text.vocabulary import (
    cut_texts,
    refuse_unknown_words,
    texts_read,
    unknown_words,
    vocabulary,
    words_unknown_to,
)

SMALL = ModelConfig(
    text=(
        TextConfig(
            kind="words",
            tokens=4,
            options={
                "vocabulary": ["red", "ring", "top_left"],
                "stop_words": ["a"],
                "phrases": ["top left"],
            },
        ),
    )
)


def test_unknown_words_are_counted_for_each_group_of_texts_with_examples() -> None:
    tokenizer = vocabulary(SMALL, {})
    tokenizer(["red"])  # texts that were padded and cut before do not pad and cut the counts
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


def test_texts_that_end_behind_the_window_are_counted() -> None:
    tokenizer = vocabulary(SMALL, {})
    texts = ["a red ring red", "red ring red ring", "", "red red red red red"]
    (found,) = cut_texts(tokenizer, {"alt captions": iter(texts)})
    assert (found.count, found.cut, found.share) == (4, 2, 0.5)
    assert str(found) == "50.0% of the 4 alt captions end behind 4 tokens"
    assert cut_texts(tokenizer, {"x": []})[0].share == 0.0


def test_captions_of_the_blend_and_the_grids_prompts_are_what_a_run_reads() -> None:
    settings = TrainSettings(
        model="tiny-test", captions={"descriptive": 0.5, "alt": 0.5}, grid_prompts=("a cat",)
    )
    captions = {"alt": [["red", "ring"], []], "descriptive": [["cube"], ["red"]], "tags": [["x"]]}
    tokenizer = vocabulary(SMALL, captions)
    shares = {count.texts: count.share for count in words_unknown_to(tokenizer, settings, captions)}
    assert shares == {"descriptive captions": 0.5, "alt captions": 0.0, "grid_prompts": 1.0}
    with pytest.raises(ConfigError, match="no alt captions here"):
        texts_read(settings, {"descriptive": [["red"]]})


def test_published_tokenizers_know_all_words_and_count_cut_texts_by_the_longest_window(
    tmp_path: Path,
) -> None:
    from diffusers import FluxPipeline

    clip, t5 = tiny.clip_tokenizer(), tiny.t5_tokenizer()
    parts = (tiny.clip_model(clip, 16), clip, tiny.t5_model(t5, 24), t5)
    FluxPipeline(None, None, *parts, None).save_pretrained(tmp_path)
    config = ModelConfig(
        source=str(tmp_path),
        text=(
            TextConfig(kind="clip", sequence=False, pooled=True),
            TextConfig(kind="t5", name="text_encoder_2", tokens=100),
        ),
    )
    tokenizer = vocabulary(config, {})
    texts = {"alt captions": ["a red ring", "red " * 90, "red " * 110]}
    assert unknown_words(tokenizer, texts) == []
    assert [str(count) for count in cut_texts(tokenizer, texts)] == [
        "33.3% of the 3 alt captions end behind 100 tokens"
    ]
