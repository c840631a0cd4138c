"""Trains the world's text encoder: a small T5, from text alone, once for all arms.

The whole T5 reads a text and writes the same facts in another wording (`text_pairs`); then the
decoder is thrown away and the encoder is frozen. What a text says is thus in its features whatever
its wording, and an arm's captions decide only what the picture model makes of them, as with the
T5 and CLIP encoders of published models.

python -m pipelines.make_weights.text_encoder --seed 100
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curate.base.files import sha256_file, write_json
from pipelines.make_weights.clause_labels import LABELS, UNSAID, token_labels
from pipelines.make_weights.text_pairs import WORDINGS, TextPair, held_out_pairs, text_pairs
from pipelines.make_weights.train_clip import training_dtype
from pipelines.world.words import SYNONYMS, VOCABULARY
from train.backbones import is_hidden_matrix
from train.model_settings import TextConfig
from train.optimizer import Optimizer, learning_rate_scale
from train.settings import TrainSettings
from train.text.words import words_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

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
    noise: float = 0.5
    agreement: float = 1.0
    clauses: float = 1.0


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


class Paraphraser(nn.Module):
    """T5 whose decoder is told a wording first. Its head is not tied to the words."""

    def __init__(
        self, training: TextTraining, tokenizer: PreTrainedTokenizerFast, seed: int
    ) -> None:
        from transformers import T5Config, T5ForConditionalGeneration

        super().__init__()
        self.tokenizer = tokenizer
        words = len(tokenizer)
        config = TextConfig(
            kind="words",
            options={
                "width": training.width,
                "depth": training.depth,
                "heads": training.heads,
                "feed_forward": training.feed_forward,
            },
        )
        self.encoder = words_model(config, words, seed)
        own = self.encoder.config.to_dict()
        torch.manual_seed(seed)
        # One layer: what belongs together has to be joined by the encoder.
        whole = T5ForConditionalGeneration(
            T5Config(
                **{
                    **own,
                    "vocab_size": words + len(WORDINGS),
                    "num_decoder_layers": 1,
                    "is_encoder_decoder": True,
                    "tie_word_embeddings": False,
                    "decoder_start_token_id": 0,
                },
                attn_implementation="eager",
            )
        )
        self.decoder, self.head = whole.decoder, whole.lm_head
        self.decoder.embed_tokens = nn.Embedding(words + len(WORDINGS), training.width)
        self.labels = nn.ModuleDict(
            {name: nn.Linear(training.width, len(names)) for name, names in LABELS.items()}
        )

    def forward(self, source: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        """Logits (B, T, V) of the next word, after the wording and the words before."""
        state = self.encoder(input_ids=source, attention_mask=mask).last_hidden_state
        return self.written(state, mask, told)

    def written(self, state: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        output = self.decoder(
            input_ids=told, encoder_hidden_states=state, encoder_attention_mask=mask
        )
        logits: Tensor = self.head(output.last_hidden_state)
        return logits

    def batch(self, pairs: Sequence[TextPair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Source ids and mask (B, S), what the decoder is told and what it is to write (B, T)."""
        source = self.read([pair.source for pair in pairs])
        target = self.read([pair.target for pair in pairs])
        wanted = target.input_ids.masked_fill(target.attention_mask == 0, -100)
        first = torch.tensor(
            [len(self.tokenizer) + WORDINGS.index(pair.target_wording) for pair in pairs]
        )
        told = torch.cat([first[:, None], target.input_ids[:, :-1]], 1)
        return source.input_ids, source.attention_mask, told, wanted

    def labelled(self, state: Tensor, texts: Sequence[str], grids: Sequence[int]) -> Tensor:
        """Cross-entropy of what every token's clause says, read off its feature linearly."""
        spans = self.tokenizer(list(texts), truncation=True, return_offsets_mapping=True)
        wanted = torch.full((*state.shape[:2], len(LABELS)), UNSAID)
        for row, text, grid, own in zip(wanted, texts, grids, spans["offset_mapping"], strict=True):
            row[: len(own)] = torch.from_numpy(token_labels(text, own, grid))
        losses = [
            F.cross_entropy(head(state).flatten(0, 1), wanted[..., k].flatten(), reduction="sum")
            for k, head in enumerate(self.labels.values())
        ]
        return torch.stack(losses).sum() / (wanted != UNSAID).sum().clamp(min=1)

    def read(self, texts: Sequence[str]) -> Any:
        """Ids and mask, padded to the longest of them."""
        return self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")


def train_text_encoder(seed: int, training: TextTraining | None = None) -> Paraphraser:
    """A trained paraphraser in float32; a few minutes on one core."""
    plan = training or TextTraining()
    model = Paraphraser(plan, text_tokenizer(), seed)
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
        source, mask, told, wanted = model.batch(pairs)
        state = model.encoder(input_ids=source, attention_mask=mask).last_hidden_state
        twin = model.read([pair.target for pair in pairs])
        other = model.encoder(input_ids=twin.input_ids, attention_mask=twin.attention_mask)
        apart = _read_apart(state, mask, other.last_hidden_state, twin.attention_mask)
        rate = plan.hidden * torch.rand(len(mask), 1)
        seen = mask * (torch.rand(mask.shape) >= rate)
        # A text of which nothing is left shows everything.
        seen = torch.where(seen.any(1, keepdim=True), seen, mask)
        noised = state + plan.noise * torch.randn(state.shape)
        logits = model.written(noised, seen, told).float()
        own = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        grids = [pair.grid for pair in pairs]
        again = other.last_hidden_state
        again = again + plan.noise * torch.randn(again.shape)
        told = model.labelled(noised, [p.source for p in pairs], grids)
        told = told + model.labelled(again, [p.target for p in pairs], grids)
        loss = own + plan.agreement * apart + plan.clauses * told
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(step, learning_rate_scale(step, stepping))
        if step % 100 == 0 or step == plan.steps - 1:
            click.echo(
                f"text encoder step {step}: loss {own.item():.3f}, apart {apart.item():.4f}, "
                f"clauses {told.item() / 2:.3f}"
            )
    model.float()
    optimizer.write_back()
    return model.eval()


def _read_apart(one: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
    """How differently any attention reads two texts, by random queries: 0 = alike."""
    queries = torch.randn(one.shape[-1], 64) * torch.exp(torch.empty(64).uniform_(-4, -1))

    def read(state: Tensor, mask: Tensor) -> Tensor:
        scores = (state @ queries).masked_fill(mask[..., None] == 0, -torch.inf)
        return scores.softmax(1).transpose(1, 2) @ state

    return F.mse_loss(read(one, mask), read(other, other_mask))


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
