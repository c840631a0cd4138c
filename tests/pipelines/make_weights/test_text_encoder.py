"""The world's text encoder: what is shipped, and that it can be made again."""

import hashlib
from pathlib import Path

import pytest
import torch

from curate.base.files import read_json
from pipelines.make_weights.clause_labels import LABELS, token_labels
from pipelines.make_weights.text_encoder import (
    FOLDER,
    TextTraining,
    make_text_encoder,
    text_tokenizer,
)
from pipelines.make_weights.text_pairs import FULL, SHORT_FORMS, text_pairs
from pipelines.world.scene import WorldConfig, sample_scenes
from pipelines.world.words import PLACES
from pipelines.world.writers import write_alt
from train.settings import load_train_settings, model_config
from train.sources import packaged_mark
from train.text import build_text

SMALL, RICH = WorldConfig.small(), WorldConfig.rich()


def test_the_shipped_files_have_the_hashes_of_their_manifest() -> None:
    manifest = read_json(FOLDER / "manifest.json")
    files = [p for p in FOLDER.rglob("*") if p.is_file() and p.name != "manifest.json"]
    found = {
        path.relative_to(FOLDER).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert found == manifest["sha256"]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert sum(path.stat().st_size for path in files) == manifest["bytes"] < 2_000_000
    assert set(packaged_mark("caplab:world-text")) == {"text_encoder"}


def test_the_shipped_encoder_understood_every_wording() -> None:
    held_out = read_json(FOLDER / "manifest.json")["held_out"]
    words = {name: value for name, value in held_out.items() if name.endswith("_words")}
    assert {f"descriptive/{wording}_words" for wording in FULL} <= set(words)
    assert min(words.values()) > 0.9, words


@pytest.mark.parametrize("config", [SMALL, RICH], ids=["small", "rich"])
def test_every_word_of_every_writer_is_known_and_fits_the_window(config: WorldConfig) -> None:
    text = build_text(model_config(load_train_settings(None, {"model": "world-small"})))
    scenes = sample_scenes(config, 300, seed=1, combinations="any")
    texts = [alt.text for alt in write_alt(scenes, 2)]
    for write in (*FULL.values(), *SHORT_FORMS.values()):
        texts += write(scenes, 3)
    own = text.tokenizer_side().own[0]
    ids = own.whole(texts)
    unknown = own.tokenizer.unk_token_id
    assert not [t for t, row in zip(texts, ids, strict=True) if unknown in row][:3]
    if config is SMALL:
        assert not text.tokenizer_side().cut(texts).any()
        assert max(map(len, own.whole(FULL["captioner"](scenes, 0)))) <= 25


def test_the_shipped_encoder_is_frozen_and_reads_a_caption_alike_in_any_company() -> None:
    text = build_text(model_config(load_train_settings(None, {"model": "world-small"})))
    assert not text.trainable
    assert not any(parameter.requires_grad for parameter in text.parameters())
    captions = FULL["captioner"](sample_scenes(SMALL, 4, seed=4), 0)
    with torch.no_grad():
        together, alone = text(text.tokenize(captions)), text(text.tokenize(captions[1:2]))
    kept = together.mask[1].bool()
    torch.testing.assert_close(together.sequence[1][kept], alone.sequence[0][kept])
    assert (
        text.identity()
        == build_text(model_config(load_train_settings(None, {"model": "world-small"}))).identity()
    )


def test_the_words_of_a_clause_are_labelled_with_all_that_it_says() -> None:
    tokenizer = text_tokenizer()
    scenes = sample_scenes(SMALL, 60, seed=5)
    for write in FULL.values():
        for caption, scene in zip(write(scenes, 6), scenes, strict=True):
            spans = tokenizer(caption, return_offsets_mapping=True)["offset_mapping"]
            rows = token_labels(caption, spans, scene.grid)[:, :4].tolist()
            names = [LABELS[name] for name in ("shape", "colour", "size", "place")]
            found = {
                tuple(own[k] for own, k in zip(names, row, strict=True))
                for row in rows
                if min(row) >= 0
            }
            assert found == {
                (o.shape, o.colour, o.size, PLACES[scene.grid][o.cell]) for o in scene.objects
            }, caption


def test_no_wording_is_asked_for_more_often_than_another() -> None:
    pairs = [pair for pair in text_pairs(3000, 7) if pair.form == "descriptive"]
    for side in ("source_wording", "target_wording"):
        counts = [sum(getattr(pair, side) == name for pair in pairs) for name in FULL]
        assert min(counts) > 0.75 * max(counts)


def test_it_is_made_again_from_nothing(tmp_path: Path) -> None:
    few = TextTraining(width=16, depth=1, heads=2, feed_forward=16, steps=2, batch=8)
    first, second = (make_text_encoder(tmp_path / name, 3, few, scenes=8) for name in "ab")
    assert first["sha256"] == second["sha256"]
    shipped = read_json(FOLDER / "manifest.json")
    assert set(first["sha256"]) == set(shipped["sha256"])
    assert set(first["held_out"]) == set(shipped["held_out"])
