"""Textual inversion: new tokens learn, everything else stands, and diffusers loads the outcome."""

from pathlib import Path
from typing import Any

import pytest
import torch

from curate.base.errors import ConfigError
from tests.train.text import tiny_pipelines as tiny
from train.model_settings import ModelConfig, TextConfig
from train.text import build_text
from train.text.new_tokens import add_tokens, extended

TEXTS = ["a <blob> ring", "red", "<blob><dot>"]


def sdxl(folder: Path) -> tuple[Any, ModelConfig]:
    from diffusers import StableDiffusionXLPipeline

    first, second = tiny.clip_tokenizer(), tiny.clip_tokenizer(pad="!")
    pipeline = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=tiny.clip_model(first, 16),
        text_encoder_2=tiny.clip_model(second, 24, projection=20, seed=1),
        tokenizer=first,
        tokenizer_2=second,
        unet=None,
        scheduler=None,
    )
    pipeline.save_pretrained(folder)
    text = (
        TextConfig(kind="clip", layer=-2),
        TextConfig(kind="clip", name="text_encoder_2", layer=-2, pooled=True),
    )
    return pipeline, ModelConfig(source=str(folder), text=text)


def test_new_tokens_of_all_encoders_learn_and_nothing_else(tmp_path: Path) -> None:
    _, config = sdxl(tmp_path)
    encoder, untouched = build_text(config), build_text(config)
    with torch.no_grad():
        before = encoder(encoder.tokenize(["red"])).sequence
    assert not encoder.trainable
    add_tokens(encoder, {"<blob>": "ring", "<dot>": "top"})
    learned = {name: embedding.rows for name, embedding in extended(encoder).items()}
    assert encoder.trainable
    assert {name: tuple(rows.shape) for name, rows in learned.items()} == {
        "text_encoder": (2, 16),
        "text_encoder_2": (2, 24),
    }
    trained = [p for p in encoder.parameters() if p.requires_grad]
    assert [id(p) for p in trained] == [id(p) for p in learned.values()]
    assert encoder.tokenizer.pieces("a <blob> ring") == [
        "<|startoftext|>", "a", "<blob>", "ring", "<|endoftext|>"
    ]  # fmt: skip
    with torch.no_grad():
        # A new token starts as its word.
        new, old = (encoder(encoder.tokenize([text])) for text in ("a <blob>", "a ring"))
        torch.testing.assert_close(new.sequence, old.sequence)
        assert torch.equal(encoder(encoder.tokenize(["red"])).sequence, before)
    optimiser = torch.optim.AdamW(trained, lr=0.1)
    encoder(encoder.tokenize(TEXTS)).sequence.square().sum().backward()
    optimiser.step()
    with torch.no_grad():
        moved = encoder(encoder.tokenize(["a <blob>"])).sequence
        assert not torch.allclose(moved, old.sequence, atol=1e-3)
        assert torch.equal(encoder(encoder.tokenize(["red"])).sequence, before)
    kept = {name.replace(".base.", "."): p for name, p in encoder.named_parameters()}
    assert all(torch.equal(p, kept[name]) for name, p in untouched.named_parameters())


def test_diffusers_reads_the_learned_embeddings_as_they_were_trained(tmp_path: Path) -> None:
    pipeline, config = sdxl(tmp_path)
    encoder = build_text(config)
    add_tokens(encoder, {"<blob>": "ring", "<dot>": "top"})
    for embedding in extended(encoder).values():
        with torch.no_grad():
            noise = torch.randn(embedding.rows.shape, generator=torch.Generator().manual_seed(0))
            embedding.rows.add_(noise)
    with torch.no_grad():
        found = encoder(encoder.tokenize(TEXTS))
    for name, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        for token, embedding in extended(encoder)[name].learned().items():
            pipeline.load_textual_inversion(
                {token: embedding},
                text_encoder=getattr(pipeline, name),
                tokenizer=getattr(pipeline, tokenizer),
            )
    with torch.no_grad():
        asked, _, pooled, _ = pipeline.encode_prompt(TEXTS, do_classifier_free_guidance=False)
    torch.testing.assert_close(found.sequence, asked)
    torch.testing.assert_close(found.pooled, pooled)


def test_t5_with_spare_rows_and_own_words_learn_new_tokens(tmp_path: Path) -> None:
    from diffusers import PixArtSigmaPipeline

    tokenizer = tiny.t5_tokenizer()
    parts = {"text_encoder": tiny.t5_model(tokenizer, 24), "tokenizer": tokenizer}
    PixArtSigmaPipeline(**parts, vae=None, transformer=None, scheduler=None).save_pretrained(
        tmp_path
    )
    t5 = build_text(ModelConfig(source=str(tmp_path), text=(TextConfig(kind="t5", tokens=12),)))
    words = build_text(
        ModelConfig(text=(TextConfig(kind="words", tokens=12, trainable=True),)), ["a red ring"]
    )
    for encoder in (t5, words):
        add_tokens(encoder, {"<blob>": "ring"})
        embedding = extended(encoder)["text_encoder"]
        tokens = encoder.tokenize(["a red <blob>"])
        with torch.no_grad():
            asked = encoder(encoder.tokenize(["a red ring"])).sequence
            torch.testing.assert_close(encoder(tokens).sequence[:, :2], asked[:, :2])
        encoder(tokens).sequence.sum().backward()
        assert float(embedding.rows.grad.abs().sum()) > 0
        assert sum(p.requires_grad for p in encoder.parameters()) == 1
        assert list(embedding.learned()) == ["<blob>"]


def test_a_token_that_is_there_and_a_word_that_is_not_are_refused() -> None:
    def encoder() -> Any:
        text = TextConfig(kind="words", options={"stop_words": ["the"]})
        return build_text(ModelConfig(text=(text,)), ["a red ring"])

    with pytest.raises(ConfigError, match="'red' is a token of text_encoder already"):
        add_tokens(encoder(), {"red": "ring"})
    with pytest.raises(ConfigError, match="does not know the word 'blue'"):
        add_tokens(encoder(), {"<blob>": "blue"})
    with pytest.raises(ConfigError, match="does not know the word 'the'"):
        add_tokens(encoder(), {"<blob>": "the"})
