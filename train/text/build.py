"""A config's text encoders, with their weights: from a pipeline, a run, or from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curate.base.errors import ConfigError
from train.model_settings import ModelConfig, TextConfig
from train.sources import Source, find_part, load_part, part_class, part_folder
from train.text.clip import ClipText, WindowTokenizer
from train.text.decoder import DecoderText, TemplateTokenizer
from train.text.encoder import Encoder, tokenizer_name
from train.text.joined import JoinedText, JoinedTokenizer
from train.text.t5 import T5Text
from train.text.tokens import CaptionTokenizer
from train.text.words import words_model, words_tokenizer


def build_text(
    config: ModelConfig, texts: Iterable[str] = (), source: Path | None = None, seed: int = 0
) -> JoinedText:
    """The text encoders of a model, on the CPU.

    Args:
        texts: captions that the words of a new tokenizer come from, where it is of the kind words.
        source: a run's or pipeline's folder that is looked into before `config.source`.
        seed: of weights that are made from nothing.

    Raises:
        ConfigError: a part is missing or cannot be read, or the config does not fit it.
    """
    return JoinedText([_build(own, texts, (source, config.source), seed) for own in config.text])


def build_tokenizer(
    config: ModelConfig, texts: Iterable[str] = (), source: Path | None = None
) -> JoinedTokenizer:
    """What `build_text(...).tokenizer_side()` gives, without loading any weights."""
    return JoinedTokenizer([_tokenizer(own, texts, (source, config.source)) for own in config.text])


def _tokenizer(
    config: TextConfig, texts: Iterable[str], sources: tuple[Source | None, ...]
) -> CaptionTokenizer:
    _check(config)
    name = tokenizer_name(config.name)
    if config.kind == "words":
        from transformers import PreTrainedTokenizerFast

        known = find_part(name, sources)
        if known is None:
            return CaptionTokenizer(words_tokenizer(config, texts), config)
        return CaptionTokenizer(load_part(PreTrainedTokenizerFast, known, name), config)
    place = _place(config, sources)
    return _SIDES[config.kind](load_part(part_class(place, name), place, name), config)


def _build(
    config: TextConfig, texts: Iterable[str], sources: tuple[Source | None, ...], seed: int
) -> Encoder:
    tokenizer = _tokenizer(config, texts, sources)
    if config.kind != "words":
        place = _place(config, sources)
        model = _weights(part_class(place, config.name), place, config)
        return _ENCODERS[config.kind](config, tokenizer, model, part_folder(place, config.name))
    # A run's folder may hold the tokenizer alone, beside its checkpoints.
    found = find_part(config.name, sources)
    if found is None:
        model = words_model(config, len(tokenizer.tokenizer), seed)
        return T5Text(config, tokenizer, model)
    from transformers import T5EncoderModel

    model = _weights(T5EncoderModel, found, config, attn_implementation="eager")
    # Weights that are trained further are not those of their files for long.
    folder = None if config.trainable else part_folder(found, config.name)
    return T5Text(config, tokenizer, model, folder)


def _check(config: TextConfig) -> None:
    if config.kind == "clip":
        return
    for field, value in (("pooled", config.pooled), ("windows", config.windows > 1)):
        if value:
            raise ConfigError(f"{config.name} is of the kind {config.kind}; {field} is for clip.")


def _place(config: TextConfig, sources: tuple[Source | None, ...]) -> Source:
    place = find_part(config.name, sources)
    if place is None:
        where = " or ".join(str(source) for source in sources if source is not None)
        raise ConfigError(
            f"There is no {config.name} in {where}."
            if where
            else f"{config.name} ({config.kind}) is a published part: the model needs a source."
        )
    return place


def _weights(cls: Any, place: Source, config: TextConfig, **options: Any) -> Any:
    """Trained weights in float32, frozen ones as they are stored."""
    dtype = "float32" if config.trainable else "auto"
    return load_part(cls, place, config.name, use_safetensors=True, dtype=dtype, **options)


_SIDES = {"clip": WindowTokenizer, "t5": CaptionTokenizer, "decoder": TemplateTokenizer}
_ENCODERS = {"clip": ClipText, "t5": T5Text, "decoder": DecoderText}
