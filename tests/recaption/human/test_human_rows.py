"""Captions that people wrote, corrected or judged, as rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from caption_dataset import make_dataset, stored_keys

from curate.base.errors import ConfigError
from curate.store.captions import CaptionRef, accepted_captions, read_made_from, text_mark
from curate.store.contract import WRITTEN_BY
from recaption.human.rows import HumanCaption, source_of, store_human
from recaption.measure.token_counts import TokenCounter


def test_what_is_said_of_a_caption_stands_once_and_says_of_which_text(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1, per_shard=3)
    first, second, third = stored_keys(dataset)
    source, tokens = source_of(WRITTEN_BY, "anna"), TokenCounter("")
    short = CaptionRef("short", "qwen-1", 0, text_mark("a dog"))
    long = CaptionRef("long", "qwen-1", 0, text_mark("a dog that runs"))
    store_human(
        dataset,
        source,
        "00000",
        [
            HumanCaption(first, "a dog", about=short, mark="good", raw_text="a dog"),
            HumanCaption(first, "a cat that runs", about=long, mark="edited", raw_text="a dog ..."),
            HumanCaption(second, about=short, mark="bad", raw_text="a dog"),
            HumanCaption(third, "written from nothing"),
        ],
        tokens,
    )
    # Said again of the same caption: another row in its place.
    store_human(
        dataset,
        source,
        "00000",
        [HumanCaption(first, about=short, mark="bad", raw_text="a dog")],
        tokens,
        remove=[(third, 0)],
    )
    rows = dataset.read_table("captions", "00000", source).to_pylist()
    told = {(row["key"], row["sample_index"]): row for row in rows}
    assert set(told) == {(first, 0), (first, 1), (second, 0)}
    bad, edited = told[first, 0], told[first, 1]
    assert (bad["status"], bad["reason"], bad["flags"]) == ("rejected", "bad", ["bad"])
    assert (bad["text"], bad["raw_text"], bad["model"]) == (None, "a dog", "qwen-1")
    assert read_made_from(bad["prompt_variables"]) == [short]
    assert (edited["text"], edited["words"], edited["prompt_id"]) == ("a cat that runs", 4, "long")
    accepted = accepted_captions(dataset, ["human"])
    assert accepted.column("text").to_pylist() == ["a cat that runs"]


@pytest.mark.parametrize("name", ["", "../x", "Anna B", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name who wrote"):
        source_of(WRITTEN_BY, name)
