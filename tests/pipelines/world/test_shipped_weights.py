"""The files under pipelines/world/weights, through the roads by which published weights load."""

import hashlib
import json
from typing import Any

import pytest

from pipelines.world import weights
from pipelines.world.held_out import (
    caption,
    captioner_figures,
    clip_figures,
    head_figures,
    held_out_pictures,
)

SEED = 77  # other scenes than those of the manifest's figures


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(weights.manifest_path().read_text())
    return loaded


def test_every_shipped_file_has_the_hash_of_the_manifest(manifest: dict[str, Any]) -> None:
    found = {
        path.relative_to(weights.WEIGHTS_DIR).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in weights.WEIGHTS_DIR.rglob("*")
        if path.is_file() and path != weights.manifest_path()
    }
    assert found == manifest["sha256"]
    assert {"clip/open_clip_model.safetensors", "captioner/model.safetensors"} <= set(found)


def test_the_files_stay_under_ten_megabytes_and_hold_no_pickle() -> None:
    files = [path for path in weights.WEIGHTS_DIR.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}


def test_every_declared_path_exists() -> None:
    for path in (
        weights.clip_config_path(),
        weights.clip_weights_path(),
        weights.aesthetic_head_path(),
        weights.nsfw_head_path(),
        weights.captioner_dir() / "config.json",
    ):
        assert path.is_file(), path


def test_clip_tells_matched_from_mismatched_texts() -> None:
    figures = clip_figures(weights.clip_dir(), n=512, seed=SEED)
    assert figures["clip_auc_descriptive"] >= 0.99
    assert figures["clip_auc_alt"] >= 0.99
    assert figures["clip_auc_alt_weak"] >= 0.99
    assert figures["clip_auc_short"] >= 0.97
    assert figures["clip_one_wrong"] >= 0.8


def test_the_heads_tell_ugly_and_marked_pictures() -> None:
    figures = head_figures(
        weights.clip_dir(),
        weights.aesthetic_head_path(),
        weights.nsfw_head_path(),
        n=512,
        seed=SEED,
    )
    assert figures["aesthetic_auc"] >= 0.95
    assert figures["nsfw_auc"] >= 0.97


def test_the_captioner_names_every_object_in_its_place() -> None:
    figures = captioner_figures(
        weights.captioner_dir(),
        weights.CAPTION_PROMPTS,
        weights.MAX_NEW_TOKENS,
        n=256,
        seed=SEED,
    )
    assert figures["descriptive_precision"] >= 0.95
    assert figures["descriptive_recall"] >= 0.95
    assert figures["short_main_object"] >= 0.95


def test_any_prompt_that_asks_for_the_main_subject_gets_a_short_caption() -> None:
    _, pictures = held_out_pictures(2, SEED)
    for prompt, longest in (
        ("Name only the main subject of this image in one short sentence.", 7),
        ("Describe this image in one paragraph.", 48),
    ):
        written = caption(weights.captioner_dir(), pictures.pixels, prompt, 48)
        lengths = [len(text.split()) for text in written]
        assert max(lengths) <= longest
        assert (min(lengths) > 7) == (longest > 7)
