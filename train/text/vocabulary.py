"""What a model cannot read of its captions: words that become <unk>, and ends that are cut off.

Nothing in a loss curve says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.telling.words import amount
from curate.store.caption_blend import blend_order
from train.model_settings import ModelConfig
from train.settings import TrainSettings
from train.text.build import build_tokenizer
from train.text.joined import JoinedTokenizer
from train.text.tokens import CaptionTokenizer

MOST_UNKNOWN = 0.05
"""Share of words outside the vocabulary from which a run is refused."""
_EXAMPLES = 3
_AT_ONCE = 4096

Captions = Mapping[str, Iterable[Iterable[str]]]
"""Kind -> the texts of each picture."""


@dataclass(frozen=True)
class UnknownWords:
    """How many words of some texts are outside the vocabulary (stop words are no words)."""

    texts: str
    """What they are: "alt captions", "short prompts of prompts.jsonl"."""
    words: int
    unknown: int
    examples: tuple[str, ...] = ()
    """The most frequent ones."""

    @property
    def share(self) -> float:
        """In 0..1; 0 where there is no word at all."""
        return self.unknown / max(self.words, 1)

    def __str__(self) -> str:
        told = f" (such as {', '.join(self.examples)})" if self.examples else ""
        return f"{self.share:.1%} of the {amount(self.words, 'word')} of {self.texts}{told}"


@dataclass(frozen=True)
class CutTexts:
    """How many of some texts are longer than the window of the longest-reading encoder."""

    texts: str
    count: int
    cut: int
    window: int
    """Tokens."""

    @property
    def share(self) -> float:
        """In 0..1; 0 where there is no text at all."""
        return self.cut / max(self.count, 1)

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the {self.count:,} {self.texts} end behind {self.window} tokens"
        )


def vocabulary(config: ModelConfig, captions: Captions) -> JoinedTokenizer:
    """The tokenizer of a run; every caption kind feeds it, so that all arms share one."""
    texts = (text for _, own in sorted(captions.items()) for row in own for text in row)
    return build_tokenizer(config, texts)


def vocabulary_fingerprint(config: ModelConfig, texts: Iterable[str]) -> str:
    """16 hex digits of the words, with their numbers, of the encoders that read whole words."""
    own = [o for o in build_tokenizer(config, texts).own if o.config.kind == "words"]
    return fingerprint([side.tokenizer.get_vocab() for side in own])


def unknown_words(
    tokenizer: JoinedTokenizer, texts: Mapping[str, Iterable[str]]
) -> list[UnknownWords]:
    """Counts for each group of texts; none where no encoder reads whole words.

    Published tokenizers fall back to pieces of words, so nothing is unknown to them.
    """
    own = [side for side in tokenizer.own if side.config.kind == "words"]
    return [_unknown(own[0], name, group) for name, group in texts.items()] if own else []


def cut_texts(tokenizer: JoinedTokenizer, texts: Mapping[str, Iterable[str]]) -> list[CutTexts]:
    """For each group of texts, how many of them are cut."""
    longest = max(tokenizer.own, key=lambda side: side.tokens)
    counts = []
    for name, group in texts.items():
        total = cut = 0
        for part in _parts(group):
            total += len(part)
            cut += int(tokenizer.cut(part).sum())
        counts.append(CutTexts(name, total, cut, longest.tokens))
    return counts


def texts_read(settings: TrainSettings, captions: Captions) -> dict[str, Iterable[str]]:
    """The texts that a run will read by what they are: each caption kind, and the grids' prompts.

    Raises:
        ConfigError: there are no captions of a kind of the blend.
    """
    texts: dict[str, Iterable[str]] = {}
    for kind in blend_order(settings.captions):
        if kind not in captions:
            known = ", ".join(sorted(captions)) or "none"
            raise ConfigError(f"There are no {kind} captions here (there are: {known}).")
        texts[f"{kind} captions"] = (text for own in captions[kind] for text in own)
    if settings.grid_prompts:
        texts["grid_prompts"] = settings.grid_prompts
    return texts


def words_unknown_to(
    tokenizer: JoinedTokenizer, settings: TrainSettings, captions: Captions
) -> list[UnknownWords]:
    """Counts of unknown words in each caption kind of the blend, and in the grids' prompts."""
    return unknown_words(tokenizer, texts_read(settings, captions))


def refuse_unknown_words(counts: Sequence[UnknownWords], allowed: bool) -> None:
    """Raise ConfigError for texts of which over 5% of the words are unknown, unless `allowed`."""
    over = [str(count) for count in counts if count.share > MOST_UNKNOWN]
    if over and not allowed:
        raise ConfigError(
            f"Over {MOST_UNKNOWN:.0%} of the words are outside the model's vocabulary, so it could "
            f"not read them: {'; '.join(over)}. Take a model with a larger vocabulary_size, or say "
            f"--allow-unknown-words (allow_unknown_words: true)."
        )


def _unknown(side: CaptionTokenizer, name: str, texts: Iterable[str]) -> UnknownWords:
    words = 0
    unknown: Counter[str] = Counter()
    for part in _parts(texts):
        encoded = side.tokenizer(
            part,
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        for text, ids, spans in zip(
            part, encoded["input_ids"], encoded["offset_mapping"], strict=True
        ):
            words += len(ids)
            unknown.update(
                text[start:end].lower()
                for token, (start, end) in zip(ids, spans, strict=True)
                if token == side.tokenizer.unk_token_id
            )
    examples = tuple(word for word, _ in unknown.most_common(_EXAMPLES))
    return UnknownWords(name, words, unknown.total(), examples)


def _parts(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while part := list(islice(rest, _AT_ONCE)):
        yield part
