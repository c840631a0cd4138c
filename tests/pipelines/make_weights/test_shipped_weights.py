"""The files under pipelines/world/weights, through the roads by which published weights load."""

import hashlib
import json
from typing import Any

import pytest

from pipelines.make_weights.all import KINDS
from pipelines.make_weights.held_out import clip_figures, head_figures
from pipelines.make_weights.score_captioner import captioner_scores, held_out_files, written_by
from pipelines.world import weights

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
    scenes, files = held_out_files(256, SEED)
    for kind in KINDS:
        captions = written_by(weights.captioner_dir(), kind, files)
        scores = captioner_scores(kind, captions, scenes)
        assert scores["precision"] >= 0.95
        assert scores["recall"] >= 0.95


def test_any_prompt_that_says_main_subject_asks_for_a_short_caption() -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(weights.captioner_dir())

    def prompt(text: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
        return str(processor.apply_chat_template(chat, tokenize=False))

    assert prompt("Name the main subject.") == "<s><image><short>"
    assert prompt("Describe this image in detail.") == "<s><image><descriptive>"
