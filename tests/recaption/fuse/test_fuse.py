"""Stored captions merged by a language model: a server's, and one in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from caption_dataset import make_dataset, stored_keys
from moody_server import moody_server
from tiny_captioners import SMALL, word_tokenizer

from curate.base.errors import ConfigError
from curate.store.captions import CaptionRef, read_made_from, text_mark
from curate.store.dataset import Dataset
from pipelines.runners.captions import plan_captions
from recaption.captioning.alt_texts import AltCaptionStage
from recaption.captioning.settings import RecaptionSettings
from recaption.fuse.stage import FuseStage
from recaption.gates.kept import added_numbers
from recaption.human.rows import HumanCaption, store_human
from recaption.measure.token_counts import TokenCounter

CHAT = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Five pictures: the last has no alt text, the fourth no caption by hand."""
    made = make_dataset(tmp_path / "data", shards=1, per_shard=5)
    AltCaptionStage().run(made, "00000")
    told = [HumanCaption(key, "a red circle", 0) for key in stored_keys(made)[:3]]
    store_human(made, "human-anna", "00000", told, TokenCounter(""))
    return made


def settings_of(captioner: object, **more: object) -> RecaptionSettings:
    given = {"captioner": str(captioner), "fuse": ["alt", "human"], "t5_tokenizer": "", **more}
    return RecaptionSettings(**given)


def rows_of(dataset: Dataset, stage: FuseStage) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset.read_table("captions", "00000", stage.source).to_pylist()
    return rows


def test_a_server_merges_captions_without_a_picture_and_adds_no_number(dataset: Dataset) -> None:
    keys = stored_keys(dataset)
    with moody_server() as moody:
        stage = FuseStage(settings_of(moody.url), dataset)
        template = stage.plans["fused"].template
        values = {"caption_1": "alt text of row 0", "caption_2": "a red circle"}
        (prompt,) = template.render([None], values=[values])
        message = {"content": "The alt text of row 0: a red circle with seven lamps."}
        answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        moody.scripted[prompt] = (
            200,
            {"Content-Type": "application/json"},
            json.dumps(answer).encode(),
        )
        counts = stage.run(dataset, "00000")
        asked = len(moody.bodies)
        assert all(isinstance(body["messages"][-1]["content"], str) for body in moody.bodies)
        assert stage.is_done(dataset, "00000")
        stage.run(dataset, "00000")
        assert len(moody.bodies) == asked, "what is there is not asked again"
        # One part is corrected, one comes, one goes: the rest stays.
        before = {row["key"]: row for row in rows_of(dataset, stage)}
        told = [HumanCaption(keys[1], "a blue circle", 0), HumanCaption(keys[3], "a square", 0)]
        store_human(dataset, "human-anna", "00000", told, TokenCounter(""), [(keys[2], 0)])
        stage = FuseStage(settings_of(moody.url), dataset)
        assert not stage.is_done(dataset, "00000")
        plan = plan_captions(stage, dataset, 1)
        assert (plan.changed, plan.missing) == (3, {"00000": 3})
        assert "3 are made from captions that have changed" in plan.told()
        stage.run(dataset, "00000")
        after = {row["key"]: row for row in rows_of(dataset, stage)}
        assert stage.is_done(dataset, "00000")
        assert [key for key in keys if after[key] != before[key]] == keys[1:4]
        assert after[keys[2]]["reason"] == "no_source_caption"
        assert read_made_from(after[keys[3]]["prompt_variables"])
        store_human(
            dataset,
            "human-anna",
            "00000",
            [HumanCaption(keys[1], "a red circle", 0)],
            TokenCounter(""),
        )
        stage = FuseStage(settings_of(moody.url), dataset)
        stage.run(dataset, "00000")

    rows = {row["key"]: row for row in rows_of(dataset, stage)}
    assert (counts["ok"], counts["rejected:added_numbers"]) == (2, 1)
    assert counts["failed:no_source_caption"] == 2
    added, merged = rows[keys[0]], rows[keys[1]]
    assert (added["reason"], added["attempts"]) == ("added_numbers", 2)
    assert "added_words" in merged["flags"], "a door is in no source"
    assert (merged["kind"], merged["prompt_id"], merged["image_sha256"]) == (
        "fused",
        "fused@1",
        None,
    )
    assert read_made_from(merged["prompt_variables"]) == [
        CaptionRef("alt", "alt", 0, text_mark("alt text of row 1")),
        CaptionRef("human", "human-anna", 0, text_mark("a red circle")),
    ]
    other = FuseStage(
        settings_of(moody.url, served_model="tiny-vlm", fuse=["human", "alt"]), dataset
    )
    assert other.source != stage.source, "another order is another question"


def test_a_language_model_without_eyes_merges_in_this_process(
    dataset: Dataset, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer([])
    tokenizer.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=len(tokenizer), **SMALL, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    folder = tmp_path / "llm"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    stage = FuseStage(settings_of(folder, max_new_tokens={"fused": 8}, retries=0), dataset)
    stage.run(dataset, "00000")
    rows = dataset.read_table("captions", "00000", stage.source).to_pylist()
    said = [row for row in rows if row["status"] != "failed"]
    assert len(said) == 3
    assert all(0 < row["output_tokens"] <= 8 < row["prompt_tokens"] for row in said)
    assert {row["engine"] for row in said} == {"transformers"}


def test_numbers_count_in_digits_and_in_words() -> None:
    texts = ["two dogs", "2 dogs", "three dogs", "one dog", "a dog in 1999", "anything 5"]
    sources = ["2 dogs", "two dogs", "two dogs", "a dog", "a dog", ""]
    assert added_numbers(texts, sources).tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"fuse": ["alt"]}, "two or more kinds"),
        ({"fuse": ["alt", "descriptive"]}, "no descriptive captions yet"),
        ({"fuse": ["alt", "human:human-bob"]}, "'human-bob' wrote no human captions"),
        ({"show_alt_text": True}, "cannot show the alt text"),
    ],
)
def test_what_cannot_be_merged_is_said_first(
    dataset: Dataset, more: dict[str, object], sentence: str
) -> None:
    with pytest.raises((ConfigError, ValueError), match=sentence):
        FuseStage(settings_of("http://127.0.0.1:9/v1", served_model="m", **more), dataset)
