"""Words that the model cannot read: they become <unk>, and nothing in a loss curve says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.base.errors import ConfigError
from curate.store.caption_blend import blend_order
from curate.store.dataset import Dataset
from train.captions import texts_of
from train.settings import ModelConfig, TrainSettings
from train.shards import available_kinds
from train.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MOST_UNKNOWN = 0.05
"""Share of words outside the vocabulary from which a run is refused."""
_EXAMPLES = 3


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
        return f"{self.share:.1%} of the {self.words:,} words of {self.texts}{told}"


def vocabulary(
    config: ModelConfig, captions: Mapping[str, Sequence[Sequence[str]]]
) -> PreTrainedTokenizerFast:
    """The tokenizer of a run; every caption kind feeds it, so that all arms share one."""
    texts = (text for _, own in sorted(captions.items()) for row in own for text in row)
    return build_tokenizer(config, texts)


def unknown_words(
    tokenizer: PreTrainedTokenizerFast, texts: Mapping[str, Iterable[str]]
) -> list[UnknownWords]:
    """Counts for each group of texts."""
    counts = []
    for name, own in texts.items():
        given = list(own)
        words = 0
        unknown: Counter[str] = Counter()
        for text, encoding in zip(
            given, tokenizer.backend_tokenizer.encode_batch(given), strict=True
        ):
            words += len(encoding.ids) - 1  # without </s>
            if tokenizer.unk_token_id in encoding.ids:
                unknown.update(
                    text[start:end].lower()
                    for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
                    if token == tokenizer.unk_token_id
                )
        examples = tuple(word for word, _ in unknown.most_common(_EXAMPLES))
        counts.append(UnknownWords(name, words, unknown.total(), examples))
    return counts


def words_unknown_to(
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainSettings,
    captions: Mapping[str, Sequence[Sequence[str]]],
) -> list[UnknownWords]:
    """Counts of unknown words in each caption kind of the blend, and in the grids' prompts."""
    texts: dict[str, list[str]] = {
        f"{kind} captions": [text for own in texts_of(captions, kind) for text in own]
        for kind in blend_order(settings.captions)
    }
    if settings.grid_prompts:
        texts["grid_prompts"] = list(settings.grid_prompts)
    return unknown_words(tokenizer, texts)


def vocabulary_kinds(
    dataset: Dataset, kinds: Sequence[str], caption_sources: Mapping[str, str] | None
) -> list[str]:
    """All caption kinds that feed the vocabulary: those asked for, and all others of the dataset.

    Not the blend's alone, so that every arm of a dataset has the same vocabulary.
    """
    return sorted({*kinds, *available_kinds(dataset, caption_sources)})


def refuse_unknown_words(counts: Sequence[UnknownWords], allowed: bool) -> None:
    """Raise ConfigError for texts of which over 5% of the words are unknown, unless `allowed`."""
    over = [str(count) for count in counts if count.share > MOST_UNKNOWN]
    if over and not allowed:
        raise ConfigError(
            f"Over {MOST_UNKNOWN:.0%} of the words are outside the model's vocabulary, so it could "
            f"not read them: {'; '.join(over)}. Take a model with a larger vocabulary_size, or say "
            f"--allow-unknown-words (allow_unknown_words: true)."
        )
