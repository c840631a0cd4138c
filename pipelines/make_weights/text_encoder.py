"""Trains the world's text encoder: a small T5, from text alone, once for all arms.

A T5 reads a text and writes the same facts in another wording (`text_pairs`, `paraphraser`); then
the decoder is thrown away and the encoder is frozen. What a text says is thus in its features
whatever its wording, and an arm's captions decide only what the picture model makes of them, as
with the T5 and CLIP encoders of published models.

python -m pipelines.make_weights.text_encoder --seed 100
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch

from curate.base.files import sha256_file, write_json
from pipelines.make_weights.paraphraser import Paraphraser
from pipelines.make_weights.text_pairs import TextPair, held_out_pairs, text_pairs
from pipelines.make_weights.train_clip import training_dtype
from pipelines.world.words import SYNONYMS, VOCABULARY
from train.backbones import is_hidden_matrix
from train.model_settings import TextConfig
from train.optimizer import Optimizer, learning_rate_scale
from train.settings import TrainSettings
from train.text.words import words_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5EncoderModel

FOLDER = Path(__file__).parents[2] / "train" / "weights" / "world-text"
"""In the layout of a pipeline: text_encoder/, tokenizer/, and manifest.json."""

WINDOW = 96
"""Tokens. A descriptive caption takes up to 25, its JSON some 60, in the rich world more."""

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
_STOP_WORDS = (
    "a an the it in at on of is there with shape shapes picture image one two three four background"
)
_PLACE = r"(?:top|center|bottom)-(?:left|center|right)"
_MARKS = (",", ".", ";", "+", "&", "-", "{", "}")
_TYPED = (
    "top bottom center upper lower middle centre has bg backdrop pic just need draw colored single"
)
_STRUCTURED = "summary objects name attributes place background style text"


@dataclass(frozen=True)
class TextTraining:
    """Sizes and length of the training."""

    width: int = 128
    depth: int = 2
    heads: int = 8
    feed_forward: int = 256
    steps: int = 450
    batch: int = 96
    muon_rate: float = 0.01
    adam_rate: float = 2e-3
    hidden: float = 0.7
    """Most of a text's features that the decoder may not see; the share is drawn from 0 to this."""
    noise: float = 0.5
    """Standard deviation of what is added to the features, whose root mean square is about 1."""


def text_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the closed vocabulary, single digits and the marks that part clauses.

    Stop words, quotation marks, colons and square brackets vanish: they tell nothing, and a text
    token costs the picture model about as much as a patch.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from tokenizers import normalizers as normal
    from transformers import PreTrainedTokenizerFast

    stop = _STOP_WORDS.split()
    known = [*VOCABULARY, *SYNONYMS, *_TYPED.split(), *_STRUCTURED.split(), *_MARKS]
    words = [word for word in known if word not in (*stop, ":")]
    ids = {word: k for k, word in enumerate(dict.fromkeys([PAD, END, UNKNOWN, *words]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normal.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(
            rf"{_PLACE}|(?<![a-z])(?!(?:{'|'.join(sorted(stop))})(?![a-z]))[a-z]+|[0-9]"
            r"|[,.;+&{}]|(?<= )-(?= )"
        ),
        "removed",
        invert=True,
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=WINDOW,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _encoder(plan: TextTraining, tokenizer: PreTrainedTokenizerFast, seed: int) -> T5EncoderModel:
    options = {
        "width": plan.width,
        "depth": plan.depth,
        "heads": plan.heads,
        "feed_forward": plan.feed_forward,
    }
    return words_model(TextConfig(kind="words", options=options), len(tokenizer), seed)


def train_text_encoder(seed: int, training: TextTraining | None = None) -> Paraphraser:
    """A trained paraphraser in float32; a few minutes on one core."""
    plan, tokenizer = training or TextTraining(), text_tokenizer()
    model = Paraphraser(_encoder(plan, tokenizer, seed), tokenizer, seed)
    stepping = TrainSettings(
        steps=plan.steps,
        muon_learning_rate=plan.muon_rate,
        adamw_learning_rate=plan.adam_rate,
        adamw_betas=(0.9, 0.98),
        warmup_steps=max(plan.steps // 20, 1),
        cooldown_share=0.7,
    )
    optimizer = Optimizer(
        dict(model.named_parameters()),
        stepping,
        lambda name, weight: (
            not name.startswith(("head.", "labels.")) and is_hidden_matrix(name, weight)
        ),
    )
    model.to(training_dtype()).train()
    batches = _batches(text_pairs(plan.steps * plan.batch, seed), plan.batch, seed)
    for step, pairs in enumerate(batches):
        paraphrase, apart, clauses = model.losses(pairs, plan.hidden, plan.noise)
        loss = paraphrase + apart + clauses
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(step, learning_rate_scale(step, stepping))
        if step % 100 == 0 or step == plan.steps - 1:
            click.echo(
                f"text encoder step {step}: paraphrase {paraphrase.item():.3f}, "
                f"apart {apart.item():.4f}, clauses {clauses.item():.3f}"
            )
    model.float()
    optimizer.write_back()
    return model.eval()


def _batches(pairs: list[TextPair], batch: int, seed: int) -> list[list[TextPair]]:
    """All pairs, those of like length together so that little is padding, in random order."""
    pairs = sorted(pairs, key=lambda pair: len(pair.source) + len(pair.target))
    batches = [pairs[start : start + batch] for start in range(0, len(pairs), batch)]
    return [batches[k] for k in np.random.default_rng([seed, 41]).permutation(len(batches))]


@torch.no_grad()
def paraphrase_figures(model: Paraphraser, n: int = 400, seed: int = 2001) -> dict[str, float]:
    """By "form/wording" of held-out texts written again in the captioner's wording.

    NAME_words     share of words that are right after the right ones before
    NAME_exact     share of texts of which every word is, so that greedy decoding writes them
    """
    figures = {}
    for name, pairs in held_out_pairs(n, seed).items():
        source, mask, told, wanted = model.batch(pairs)
        right = model(source, mask, told).argmax(-1) == wanted
        asked = wanted != -100
        figures[f"{name}_words"] = float((right & asked).sum() / asked.sum())
        figures[f"{name}_exact"] = float((right | ~asked).all(1).float().mean())
    return figures


def save_text_encoder(model: Paraphraser, folder: Path) -> None:
    """The encoder without the decoder, float32, as part of a pipeline in diffusers' layout."""
    model.encoder.save_pretrained(folder / "text_encoder")
    model.tokenizer.save_pretrained(folder / "tokenizer")
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "DiffusionPipeline",
            "text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        },
    )


def make_text_encoder(
    folder: Path, seed: int, training: TextTraining | None = None, scenes: int = 400
) -> dict[str, Any]:
    """Train, save and measure it; the manifest."""
    began = time.process_time()
    model = train_text_encoder(seed, training)
    seconds = time.process_time() - began
    save_text_encoder(model, folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json")
    manifest = {
        "command": f"python -m pipelines.make_weights.text_encoder --seed {seed}",
        "seed": seed,
        "precision": str(training_dtype()).removeprefix("torch."),
        "cpu_seconds": round(seconds, 1),
        "held_out": {name: round(v, 4) for name, v in paraphrase_figures(model, scenes).items()},
        "sha256": {p.relative_to(folder).as_posix(): sha256_file(p) for p in files},
        "bytes": sum(p.stat().st_size for p in files),
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


@click.command()
@click.option("--out", default=FOLDER, type=click.Path(path_type=Path), show_default="the package")
@click.option("--seed", default=100, show_default=True, help="0 to 999.")
def main(out: Path, seed: int) -> None:
    """Train the text encoder of the synthetic world from nothing."""
    torch.set_num_threads(1)
    for name, value in make_text_encoder(out, seed)["held_out"].items():
        click.echo(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
