"""From settings to scorers: which ones a run asks for, with their weights found and checked."""

from __future__ import annotations

import re

from curate.base.errors import ConfigError
from curate.base.weight_download import split_hash
from curate.scoring.scorers.classifier import ImageClassifier, LaionWatermark, is_laion_watermark
from curate.scoring.scorers.clip import Clip
from curate.scoring.scorers.head_source import find_head
from curate.scoring.scorers.heads import HeadScorer
from curate.scoring.scorers.image_basics import Fingerprint, ImageBasics
from curate.scoring.scorers.own import load_own
from curate.scoring.scorers.published import PUBLISHED
from curate.scoring.scorers.scorer import Scorer
from curate.scoring.scorers.text_basics import TextBasics, TextNormalised
from curate.scoring.scorers.text_language import TextLanguage
from curate.scoring.scorers.text_words import TextWords
from curate.scoring.settings import ScoreSettings

_LABEL = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")


def make_scorers(settings: ScoreSettings) -> list[Scorer]:
    """The scorers that the settings ask for.

    Raises:
        ConfigError: a model, tag or file that does not exist; before anything is read.
    """
    basics = [Fingerprint(), ImageBasics(), TextBasics(), TextNormalised()]
    texts = [TextLanguage(), TextWords(settings.word_list)]
    models = [*_heads(settings), *_classifiers(settings)]
    own = [load_own(name) for name in settings.scorers]
    return [*make_clips(settings), *basics, *texts, *models, *own]


def make_clips(settings: ScoreSettings) -> list[Clip]:
    """The main CLIP model and the further ones, by label."""
    options = (settings.precision, settings.device, settings.jpeg_draft)
    trusted = settings.allow_pickle
    main = (settings.clip_model, settings.clip_pretrained, settings.clip_tokenizer)
    clips = [Clip(*main, *options, allow_pickle=trusted)]
    for label, source in settings.more_clips.items():
        check_label(label)
        whole = source.startswith(("hf-hub:", "local-dir:"))  # these bring their own weights
        model, _, pretrained = (source, "", "") if whole else source.partition("@")
        clips.append(Clip(model, pretrained or None, None, *options, label, trusted))
    return clips


def _heads(settings: ScoreSettings) -> list[Scorer]:
    wanted = {
        column: source
        for column, source in (
            ("aesthetic", settings.aesthetic_head),
            ("nsfw", settings.nsfw_head),
        )
        if source is not None
    }
    scorers: list[Scorer] = []
    for column, source in {**wanted, **settings.more_heads}.items():
        check_label(column)
        path, label = split_label(source)
        if label and label not in settings.more_clips:
            raise ConfigError(
                f"The head {column!r} rests on the CLIP model {label!r}, which is not among "
                f"--more-clips ({', '.join(settings.more_clips) or 'none'})."
            )
        _check_clip(column, path, settings.more_clips[label] if label else _main_clip(settings))
        embedding = f"image_embedding_{label}" if label else "image_embedding"
        scorers.append(HeadScorer(column, find_head(path, settings.allow_pickle), embedding))
    return scorers


def _main_clip(settings: ScoreSettings) -> str:
    return "@".join(filter(None, (settings.clip_model, settings.clip_pretrained)))


def _check_clip(column: str, head: str, clip: str) -> None:
    """Raise ConfigError for a published head on another published CLIP model than its own.

    Local weights and hub models are taken at their user's word: they may be the same model.
    """
    entry = PUBLISHED.get(split_hash(head)[0])
    published = "/" not in clip and ":" not in clip and not clip.endswith(".json")
    if entry is not None and entry.clip and published and clip != entry.clip:
        raise ConfigError(
            f"The head {head} for {column!r} was trained on {entry.clip}; on {clip} its numbers "
            f"mean nothing. Add --more-clips LABEL={entry.clip} and write {head}@LABEL."
        )


def _classifiers(settings: ScoreSettings) -> list[Scorer]:
    device, draft = settings.device, settings.jpeg_draft
    scorers: list[Scorer] = []
    if settings.nsfw_classifier is not None:
        source, labels = settings.nsfw_classifier, settings.nsfw_labels
        scorers.append(ImageClassifier("nsfw_classifier", source, labels, device, draft))
    if settings.watermark_model is not None:
        source = settings.watermark_model
        if is_laion_watermark(source):
            scorers.append(LaionWatermark(source, device, draft, settings.allow_pickle))
        else:
            labels = settings.watermark_labels
            scorers.append(ImageClassifier("watermark", source, labels, device, draft))
    return scorers


def split_label(source: str) -> tuple[str, str]:
    """(source, label of the CLIP model that it rests on): `HEAD@b32`; "" is the main model."""
    head, separator, label = source.rpartition("@")
    # A hub's revision is followed by a file: hf-hub:ORG/NAME@REVISION/FILE.
    if not separator or "/" in label:
        return source, ""
    return head, label


def check_label(label: str) -> None:
    """Raise ConfigError for a name that cannot be part of a column's name."""
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            f"{label!r} cannot name a column; use lower-case letters, digits and underscores."
        )
