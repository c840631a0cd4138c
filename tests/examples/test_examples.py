"""The examples, run as they stand on the pictures of a small folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.store.dataset import Dataset
from examples.ablation_from_python import main as ablate
from examples.curate_and_select import main as curate_and_select
from pipelines.commands.recaption import RecaptionCommandSettings, recaption

COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A dataset of twelve plain pictures with texts, and what the example selected of it."""
    place = tmp_path_factory.mktemp("examples")
    pictures = place / "pictures"
    pictures.mkdir()
    for number in range(12):
        # Blocks of their own each, so that none is a copy of another.
        blocks = np.random.default_rng(number).integers(0, 120, (6, 8, 3), np.uint8)
        blocks[..., number % 3] += 100
        Image.fromarray(blocks).resize((96, 72), Image.Resampling.BICUBIC).save(
            pictures / f"{number}.png"
        )
        words = f"a wall in {COLOURS[number % 3]}" if number else "wall"
        (pictures / f"{number}.txt").write_text(words)
    return place / "data", curate_and_select(str(pictures), str(place / "data"))


def test_the_selection_holds_what_the_rule_lets_through(selected):
    assert len(selected[1]) == 11  # one text has a single word


def test_a_captioner_and_a_gate_of_one_s_own_fill_the_captions_table(selected):
    settings = RecaptionCommandSettings(
        captioner="examples.captioner_of_your_own:Brightest",
        gates=("examples.gate_of_your_own:GUESSES",),
        kinds=("descriptive",),
        min_words={"descriptive": 3},
    )
    summary = recaption(selected[0], settings)
    dataset = Dataset.open(selected[0])
    rows = dataset.read_table("captions", "00000", summary.source).to_pylist()
    assert {row["text"] for row in rows} == {f"A picture that is mostly {c}." for c in COLOURS}
    assert {row["status"] for row in rows} == {"ok"}


def test_an_ablation_from_python_gives_its_answer_in_words(selected, tmp_path):
    answer = ablate(str(selected[0]), str(tmp_path / "study"), steps=2, scenes=4, words=True)
    assert len(answer) == 1
    assert "descriptive minus alt on short prompts" in answer[0]
