"""Captioners are fitted from nothing and from published architectures, and load like any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_captioners import picture

from curate.base.errors import ConfigError, DatasetError
from pipelines.bench.common.children import tied
from recaption.engines.protocol import CaptionRequest, Sampling
from recaption.engines.transformers.engine import TransformersEngine
from recaption.fit.loop import newest_state
from recaption.fit.rehearsal import rehearse
from recaption.fit.run import FitSummary, fit
from recaption.fit.settings import FitSettings
from recaption.prompts.templates import BUILT_IN

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (30, 60, 220)}
TINY = {
    "batch_size": 12,
    "width": 32,
    "heads": 2,
    "vision_depth": 1,
    "depth": 2,
    "image_side": 16,
    "vocabulary": 320,
    "validations": 2,
    "validation_share": 0.1,
    "learning_rate": 1e-2,
    "muon_learning_rate": 0.03,
    "threads": 1,
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 plain pictures with a short and a descriptive caption and an alt text each."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for i in range(36):
        name, colour = list(COLOURS.items())[i % 3]
        Image.new("RGB", (24, 20), tuple(c + i // 3 for c in colour)).save(folder / f"{i}.png")
        captions = {
            "short": f"a {name} sheet",
            "descriptive": f"a {name} sheet, of nothing but {name}",
            "alt": f"{name}_{i % 5}.jpg",
        }
        rows += [{"image": f"{i}.png", "kind": k, "caption": c} for k, c in captions.items()]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def fitted(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> FitSummary:
    settings = FitSettings(
        **TINY, pretrain=str(pairs), pretrain_epochs=2, epochs=40, checkpoints=(0.1, 1.0)
    )
    return fit(pairs, tmp_path_factory.mktemp("fitted") / "run", settings)


def captions_of(folder: Path, kind: str, pictures: list[bytes]) -> list[str | None]:
    request = CaptionRequest(
        pictures,
        BUILT_IN[kind].render([None] * len(pictures)),
        [0] * len(pictures),
        Sampling(max_new_tokens=30),
    )
    return [outcome.text for outcome in TransformersEngine(folder).caption(request)]


def test_a_new_captioner_learns_each_kind_from_one_pretrained_start(
    pairs: Path, fitted: FitSummary
) -> None:
    files = [(pairs / f"{i}.png").read_bytes() for i in range(3)]
    run = Path(fitted.directory)
    assert captions_of(run / "short", "short", files) == [f"a {name} sheet" for name in COLOURS]
    assert captions_of(run / "descriptive", "descriptive", files) == [
        f"a {name} sheet, of nothing but {name}" for name in COLOURS
    ]
    assert [captioner.name for captioner in fitted.captioners] == [
        "pretrained",
        "short",
        "descriptive",
    ]


def test_checkpoints_are_captioners_with_a_higher_held_out_loss(fitted: FitSummary) -> None:
    run = Path(fitted.directory)
    losses = []
    for folder in (
        run / "checkpoints" / "descriptive-0.1",
        run / "checkpoints" / "descriptive-1",
    ):
        losses.append(json.loads((folder / "held_out.json").read_text())["loss"])
        captions = captions_of(folder, "descriptive", [picture(0)])
        assert captions[0] is not None
    final = fitted.captioners[-1].held_out_loss
    assert final <= losses[1] < losses[0]


def test_a_finished_run_returns_its_summary_and_other_pairs_are_refused(
    pairs: Path, fitted: FitSummary, tmp_path: Path
) -> None:
    settings = json.loads((Path(fitted.directory) / "fit.json").read_text())["settings"]
    assert fit(pairs, fitted.directory, FitSettings(**settings)) == fitted
    row = {"image": str(pairs / "0.png"), "short": "one", "descriptive": "two"}
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(row) + "\n")
    with pytest.raises(DatasetError, match="other settings"):
        fit(other, fitted.directory, FitSettings(**settings))


def test_one_captioner_may_learn_all_kinds_and_is_told_by_prompt(
    pairs: Path, tmp_path: Path
) -> None:
    fit(pairs, tmp_path / "run", FitSettings(**TINY, together=True, epochs=25))
    file = (pairs / "1.png").read_bytes()
    folder = tmp_path / "run" / "together"
    assert captions_of(folder, "short", [file]) == ["a green sheet"]
    assert captions_of(folder, "descriptive", [file]) == ["a green sheet, of nothing but green"]


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_a_loaded_captioner_is_fine_tuned_and_keeps_what_is_frozen(
    family: str, pairs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(family)
    settings = FitSettings(
        base=str(base),
        kinds=("short",),
        batch_size=6,
        accumulate=2,
        epochs=20,
        learning_rate=3e-3,
        freeze_vision=True,
        validations=4,
        checkpoints=(0.05,),
        threads=1,
    )
    summary = fit(pairs, tmp_path / "run", settings)
    first = json.loads((tmp_path / "run/checkpoints/short-0.05/held_out.json").read_text())
    assert summary.captioners[0].held_out_loss < 0.5 * first["loss"]
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "run" / "short" / "model.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved, "nothing was trained"
    assert not [name for name in moved if "vision_tower" in name or "visual" in name]
    files = [(pairs / f"{i}.png").read_bytes() for i in range(3)]
    # The test's tokenizer has few words; "sheet" is unknown to it, and colours are not.
    told = captions_of(tmp_path / "run" / "short", "short", files)
    assert all(text is not None and text.startswith("a ") for text in told), told


def test_a_step_in_parts_learns_as_one_large_step(pairs: Path, tmp_path: Path) -> None:
    # Captions of both kinds differ in length, so a mean of the parts' means would differ.
    whole = FitSettings(**TINY, together=True, epochs=2, optimizer="adamw")
    parts = whole.model_copy(update={"batch_size": 4, "accumulate": 3})
    rows = []
    for name, settings in (("whole", whole), ("parts", parts)):
        fit(pairs, tmp_path / name, settings)
        rows.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    for one, other in zip(*rows, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert other["held_out_loss"] == pytest.approx(one["held_out_loss"], rel=1e-3)
    assert rows[0][1]["loss"] < 0.9 * rows[0][0]["loss"]


@pytest.mark.faults
def test_a_killed_run_continues_to_the_same_weights(pairs: Path, tmp_path: Path) -> None:
    settings = {
        **TINY,
        "kinds": ("descriptive",),
        "epochs": 10.0,
        "pretrain": str(pairs),
        "pretrain_epochs": 1.0,
        "contrastive_weight": 1.0,
        "dropout": 0.1,
        "augment": 1.0,
        "resume_every": 3,
        "checkpoints": (0.5,),
    }
    fit(pairs, tmp_path / "whole", FitSettings(**settings))
    config = tmp_path / "settings.yaml"
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pipelines.cli", "captioner", "fit", str(pairs)]
    command += ["--config", str(config), "--out", str(tmp_path / "killed")]
    state = tmp_path / "killed" / "state" / "descriptive" / "checkpoint-3" / "trainer_state.json"
    process = subprocess.Popen(tied(command), env={**os.environ}, stderr=subprocess.DEVNULL)
    _wait(state.exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()

    fit(pairs, tmp_path / "killed", FitSettings(**settings))
    for folder in ("descriptive", "checkpoints/descriptive-0.5"):
        whole = load_file(tmp_path / "whole" / folder / "model.safetensors")
        killed = load_file(tmp_path / "killed" / folder / "model.safetensors")
        assert all(torch.equal(killed[name], tensor) for name, tensor in whole.items())


def test_a_dry_run_tells_sizes_and_time_and_stores_nothing(pairs: Path, tmp_path: Path) -> None:
    told = rehearse(pairs, FitSettings(**TINY, pretrain=str(pairs), epochs=4))
    assert "parameters" in told
    assert "minutes" in told
    assert [line.split(":")[0] for line in told.splitlines()[1:4]] == [
        "left out",
        "pretrained",
        "short",
    ]


def test_settings_that_cannot_work_are_refused_before_work(
    pairs: Path, tmp_path: Path, blip: Path
) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        fit(pairs, tmp_path / "a", FitSettings(base=str(blip), kinds=("short",)))
    with pytest.raises(ConfigError, match="pre-trained"):
        FitSettings(base="x/y", pretrain="z")
    with pytest.raises(ConfigError, match="no prompt for captions of kind"):
        fit(pairs, tmp_path / "b", FitSettings(kinds=("haiku",)))
    with pytest.raises(ConfigError, match="max_caption_tokens"):
        fit(pairs, tmp_path / "c", FitSettings(**TINY, max_caption_tokens=1))


def test_a_state_that_a_kill_cut_short_is_passed_over(tmp_path: Path) -> None:
    for step, note in ((9, "{}"), (10, '{"glo'), (11, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if note is not None:
            (folder / "trainer_state.json").write_text(note)
    assert newest_state(tmp_path) == str(tmp_path / "checkpoint-9")
    assert newest_state(tmp_path / "none") is None


def _wait(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
