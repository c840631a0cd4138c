"""Published CLIP models by short names, such as `--clip-model siglip2-so400m-384`.

A name stands for one of open_clip's models and one of its pretrained tags. Settings hold what it
stands for, never the name, so a record tells which weights made a score whatever becomes of this
list. Tokenizer, context length, size and normalisation are those of open_clip's config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.base.errors import ConfigError

_NONE = (None, "", "none")


@dataclass(frozen=True)
class ClipPreset:
    """One published model.

    Attributes:
        model, pretrained: open_clip's name and tag.
        tokens: of a text that it reads, its end included.
        width: numbers of an embedding.
        languages: "English" or "many": what its texts were.
    """

    model: str
    pretrained: str
    tokens: int
    width: int
    languages: str = "English"

    def __str__(self) -> str:
        """MODEL@TAG, as --more-clips takes it."""
        return f"{self.model}@{self.pretrained}"


def _siglip2(model: str, width: int) -> ClipPreset:
    return ClipPreset(model, "webli", 64, width, "many")


def _metaclip2(model: str, width: int) -> ClipPreset:
    return ClipPreset(model, "metaclip2_worldwide", 77, width, "many")


CLIP_PRESETS: Mapping[str, ClipPreset] = {
    "openai-b32": ClipPreset("ViT-B-32-quickgelu", "openai", 77, 512),
    "openai-l14": ClipPreset("ViT-L-14-quickgelu", "openai", 77, 768),
    "siglip-so400m-384": ClipPreset("ViT-SO400M-14-SigLIP-384", "webli", 64, 1152),
    "siglip2-b32-256": _siglip2("ViT-B-32-SigLIP2-256", 768),
    "siglip2-b16-224": _siglip2("ViT-B-16-SigLIP2", 768),
    "siglip2-b16-256": _siglip2("ViT-B-16-SigLIP2-256", 768),
    "siglip2-b16-384": _siglip2("ViT-B-16-SigLIP2-384", 768),
    "siglip2-b16-512": _siglip2("ViT-B-16-SigLIP2-512", 768),
    "siglip2-l16-256": _siglip2("ViT-L-16-SigLIP2-256", 1024),
    "siglip2-l16-384": _siglip2("ViT-L-16-SigLIP2-384", 1024),
    "siglip2-l16-512": _siglip2("ViT-L-16-SigLIP2-512", 1024),
    "siglip2-so400m-224": _siglip2("ViT-SO400M-14-SigLIP2", 1152),
    "siglip2-so400m-256": _siglip2("ViT-SO400M-16-SigLIP2-256", 1152),
    "siglip2-so400m-378": _siglip2("ViT-SO400M-14-SigLIP2-378", 1152),
    "siglip2-so400m-384": _siglip2("ViT-SO400M-16-SigLIP2-384", 1152),
    "siglip2-so400m-512": _siglip2("ViT-SO400M-16-SigLIP2-512", 1152),
    "siglip2-gopt-256": _siglip2("ViT-gopt-16-SigLIP2-256", 1536),
    "siglip2-gopt-384": _siglip2("ViT-gopt-16-SigLIP2-384", 1536),
    "dfn2b-b16": ClipPreset("ViT-B-16-quickgelu", "dfn2b", 77, 512),
    "dfn2b-l14": ClipPreset("ViT-L-14-quickgelu", "dfn2b", 77, 768),
    "dfn2b-l14-39b": ClipPreset("ViT-L-14", "dfn2b_s39b", 77, 768),
    "dfn5b-h14": ClipPreset("ViT-H-14-quickgelu", "dfn5b", 77, 1024),
    "dfn5b-h14-378": ClipPreset("ViT-H-14-378-quickgelu", "dfn5b", 77, 1024),
    "metaclip2-h14": _metaclip2("ViT-H-14-worldwide-quickgelu", 1024),
    "metaclip2-h14-378": _metaclip2("ViT-H-14-worldwide-378", 1024),
    "metaclip2-g14": _metaclip2("ViT-bigG-14-worldwide", 1280),
    "metaclip2-g14-378": _metaclip2("ViT-bigG-14-worldwide-378", 1280),
    "pe-core-t16-384": ClipPreset("PE-Core-T-16-384", "meta", 32, 512),
    "pe-core-s16-384": ClipPreset("PE-Core-S-16-384", "meta", 32, 512),
    "pe-core-b16": ClipPreset("PE-Core-B-16", "meta", 32, 1024),
    "pe-core-l14-336": ClipPreset("PE-Core-L-14-336", "meta", 32, 1024),
    "pe-core-g14-448": ClipPreset("PE-Core-bigG-14-448", "meta", 72, 1280),
}


def resolved_clip(model: str, pretrained: str | None) -> tuple[str, str | None]:
    """(model, weights) with what a preset's name stands for; anything else as it is.

    Raises:
        ConfigError: a preset with weights that are not its own.
    """
    preset = CLIP_PRESETS.get(model)
    if preset is None:
        return model, pretrained
    if pretrained not in (*_NONE, preset.pretrained):
        raise ConfigError(
            f"The CLIP model {model!r} is {preset} and brings its own weights; leave out "
            f"{pretrained!r}."
        )
    return preset.model, preset.pretrained


def resolved_label(source: str) -> str:
    """An entry of `more_clips` with what a preset's name stands for."""
    return str(CLIP_PRESETS.get(source, source))


def with_preset(given: Any) -> Any:
    """Settings as given, `clip_model` and `clip_pretrained` as `resolved_clip` makes them.

    Weights that were not given are the preset's own, whatever a setting's default is.
    """
    if not isinstance(given, dict) or given.get("clip_model") not in CLIP_PRESETS:
        return given
    try:
        model, pretrained = resolved_clip(given["clip_model"], given.get("clip_pretrained"))
    except ConfigError as error:
        raise ValueError(str(error).rstrip(".")) from error
    return {**given, "clip_model": model, "clip_pretrained": pretrained}
