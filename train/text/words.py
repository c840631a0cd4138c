"""The world's own text encoder: a small T5 over whole words, made from nothing."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from curate.base.errors import ConfigError
from curate.base.seeds import generator_of
from curate.base.settings import Settings, load_settings
from train.model_settings import TextConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"

# Initial text attention: score lost a word away from the neighbour that a head looks at, at most.
NEIGHBOUR_SLOPE = 3.0
NEIGHBOUR_FLOOR = 6.0


class WordsOptions(Settings):
    """`options` of a text encoder of the kind words."""

    width: int = Field(128, gt=0, description="Channels.")
    depth: int = Field(1, gt=0, description="Layers.")
    heads: int = Field(4, gt=0, description="Attention heads; divides width.")
    feed_forward: int = Field(256, gt=0, description="Hidden channels of its feed-forward.")
    vocabulary: tuple[str, ...] | None = Field(
        None, description="Words that are tokens; null = the most frequent words of all captions."
    )
    vocabulary_size: int = Field(
        512, gt=3, description="Most tokens that a vocabulary collected from captions may have."
    )
    stop_words: tuple[str, ...] = Field((), description="Words that the tokenizer drops.")
    phrases: tuple[str, ...] = Field((), description="Phrases that become one token each.")


def words_options(config: TextConfig) -> WordsOptions:
    """The checked options.

    Raises:
        ConfigError: an unknown option, or one out of its range.
    """
    options = load_settings(WordsOptions, None, config.options)
    if options.width % options.heads:
        raise ConfigError(f"{config.name}: heads must divide width.")
    return options


def words_tokenizer(config: TextConfig, captions: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the config's vocabulary, or the most frequent ones of `captions`.

    In the manner of T5: lower case, words, </s> at the end, padding. Words are runs of letters
    and digits, or runs of punctuation. Stop words vanish and each phrase ("top left") becomes one
    token, which nearly halves the tokens of a descriptive caption; a text token costs about as
    much as a patch. The empty caption is the lone </s>.

    It is saved and loaded by transformers, and pads as diffusers' pipelines ask.

    Raises:
        ConfigError: there is neither a vocabulary nor a caption.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    options = words_options(config)
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()]
    for phrase in sorted(options.phrases, key=lambda phrase: (-len(phrase), phrase)):
        # One run of word characters, which the splitter below leaves whole.
        joined = re.sub(r"\W+", "_", phrase.lower())
        pattern = r"\W+".join(re.findall(r"\w+", phrase.lower()))
        steps.append(normalizers.Replace(Regex(rf"\b{pattern}\b"), joined))
    if options.stop_words:
        stop = "|".join(sorted(re.escape(word.lower()) for word in options.stop_words))
        steps.append(normalizers.Replace(Regex(rf"\b({stop})\b"), " "))
    normalizer = normalizers.Sequence(steps)
    splitter = pre_tokenizers.Whitespace()

    words = list(options.vocabulary or ())
    if not words:
        counts = Counter(
            word
            for caption in captions
            for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption))
        )
        # Ties go by the word itself, so the vocabulary does not hang on the captions' order.
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        words = sorted(ranked[: options.vocabulary_size - 3])
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
        model_max_length=config.tokens,
        model_input_names=["input_ids", "attention_mask"],
    )


def words_model(config: TextConfig, vocabulary_size: int, seed: int) -> T5EncoderModel:
    """A freshly initialised T5 encoder on the CPU in float32.

    Every parameter draws from a generator of its own, seeded with (seed, its name): two runs of
    one seed start from the same weights even where one has a larger vocabulary.
    """
    from transformers import T5Config, T5EncoderModel

    options = words_options(config)
    model = T5EncoderModel(
        T5Config(
            vocab_size=vocabulary_size,
            d_model=options.width,
            d_kv=options.width // options.heads,
            d_ff=options.feed_forward,
            num_layers=options.depth,
            num_heads=options.heads,
            # One bucket a distance up to 16 tokens either way: exact word order within a clause.
            relative_attention_num_buckets=64,
            relative_attention_max_distance=128,
            dropout_rate=0.0,
            feed_forward_proj="relu",
            use_cache=False,
            pad_token_id=0,
            eos_token_id=1,
            attn_implementation="eager",
        )
    )
    initialise(model, seed, config.name)
    return model


@torch.no_grad()
def initialise(model: T5EncoderModel, seed: int, prefix: str = "text_encoder") -> None:
    """Initialise in place: linear layers Xavier-uniform, words N(0, 1), norms 1."""
    for name, parameter in model.named_parameters():
        generator = generator_of(seed, f"{prefix}.{name}")
        if name.endswith("relative_attention_bias.weight"):
            parameter.copy_(_local_bias(model))
        elif name.endswith("shared.weight"):
            # T5's layer norm does not centre; unit rows keep its input at scale 1.
            parameter.normal_(0, 1, generator=generator)
        elif "layer_norm" in name:
            parameter.fill_(1)
        else:
            fan_out, fan_in = parameter.shape
            bound = math.sqrt(6 / (fan_in + fan_out))
            parameter.uniform_(-bound, bound, generator=generator)
    for block in model.encoder.block:
        attention = block.layer[0].SelfAttention
        # T5 does not divide its scores by sqrt(d_kv); the query's initial scale stands in for it.
        attention.q.weight.mul_(attention.key_value_proj_dim**-0.5)


def _local_bias(model: T5EncoderModel) -> Tensor:
    """Initial relative position bias (buckets, heads): each head looks at one neighbour.

    T5 starts without any, so that every word first sees the mean of all words, and the bias, a
    few scalars under AdamW, needs a thousand steps to tell neighbours from strangers. Here head 0
    starts on the word before, head 1 on the word behind, and so on outwards; the last head starts
    flat. It is a learned convolution over words at the start and free to become anything else.
    """
    attention = model.encoder.block[0].layer[0].SelfAttention
    half = attention.relative_attention_num_buckets // 2
    bucket = torch.arange(2 * half)
    # The first half of the buckets are words before (and the word itself), the second behind.
    distance = torch.where(bucket < half, -bucket, bucket - half).float()
    bias = torch.zeros(2 * half, attention.n_heads)
    for head in range(attention.n_heads - 1):
        offset = (head // 2 + 1) * (-1 if head % 2 == 0 else 1)
        bias[:, head] = -(NEIGHBOUR_SLOPE * (distance - offset).abs()).clamp(max=NEIGHBOUR_FLOOR)
    return bias
