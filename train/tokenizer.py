"""A word-level tokenizer in the manner of T5: lower case, words, </s> at the end, padding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from curate.base.errors import ConfigError
from train.settings import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


def build_tokenizer(config: ModelConfig, captions: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are `config.vocabulary`, or the most frequent ones of `captions`.

    Words are runs of letters and digits, or runs of punctuation. `config.stop_words` vanish and
    each of `config.phrases` ("top left") becomes one token, which nearly halves the tokens of a
    descriptive caption; a text token costs about as much as a patch. The empty caption is the
    lone </s>.

    It is saved and loaded by transformers, and pads as diffusers' pipelines ask.

    Raises:
        ConfigError: there is neither a vocabulary nor a caption.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()]
    for phrase in sorted(config.phrases, key=lambda phrase: (-len(phrase), phrase)):
        # One run of word characters, which the splitter below leaves whole.
        joined = re.sub(r"\W+", "_", phrase.lower())
        pattern = r"\W+".join(re.findall(r"\w+", phrase.lower()))
        steps.append(normalizers.Replace(Regex(rf"\b{pattern}\b"), joined))
    if config.stop_words:
        stop = "|".join(sorted(re.escape(word.lower()) for word in config.stop_words))
        steps.append(normalizers.Replace(Regex(rf"\b({stop})\b"), " "))
    normalizer = normalizers.Sequence(steps)
    splitter = pre_tokenizers.Whitespace()

    words = list(config.vocabulary or ())
    if not words:
        counts = Counter(
            word
            for caption in captions
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption))
        )
        # Ties go by the word itself, so the vocabulary does not hang on the captions' order.
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        words = sorted(ranked[: config.vocabulary_size - 3])
    if not words:
        raise ConfigError("The tokenizer needs a vocabulary or captions to collect one from.")

    tokens = [PAD, EOS, UNKNOWN, *words]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, vocabulary[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=config.text_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )
