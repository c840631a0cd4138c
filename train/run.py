"""A training run and its directory: `train(samples or dataset, settings, out)`.

OUT/
  run.json                 resolved settings, model config, versions, hashes of the data
  tokenizer/               as transformers loads it
  checkpoints/             STEP.safetensors, the newest two
  metrics.parquet          a row every `log_every` steps
  validation.parquet       long: step, caption kind, timestep, loss
  grids/step-000500.png    fixed prompts, fixed noise
  ema.safetensors          the averaged weights, float32
  pipeline/                the same for diffusers
  summary.json             last of all; its presence says that the run is finished
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import atomic_path, read_json, sha256_file, write_json
from curate.base.progress import tell
from curate.base.provenance import provenance
from curate.store.caption_blend import blend_order
from curate.store.claims import claim_directory
from curate.store.dataset import Dataset
from curate.store.holes import refuse_holes
from train.captions import texts_of
from train.loop import LoopResult, train_loop, write_tables
from train.settings import TrainSettings, model_config, settled, stored_settings
from train.shards import (
    TrainingSamples,
    held_out,
    load_training_samples,
    with_captions,
)
from train.vocabulary import (
    UnknownWords,
    refuse_unknown_words,
    vocabulary,
    vocabulary_kinds,
    words_unknown_to,
)


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run, as in its summary.json."""

    directory: str
    steps: int
    skipped_steps: int
    samples: int
    """Training pictures, without the held-out ones."""
    dropped_samples: int
    """Left out because they lack a caption of the blend."""
    loss: float | None
    """Mean over the last row of the metrics; None where every step in it was skipped."""
    validation: dict[str, float]
    """Caption kind -> mean validation loss."""
    blend: dict[str, float]
    """Caption kind -> realised share of the captions drawn, before dropout."""
    caption_dropout: float
    """Realised share of the captions drawn that were emptied."""
    truncated: dict[str, int]
    """Caption kind -> captions that did not fit the token window."""
    unknown_words: dict[str, float]
    """What kind of texts -> share of their words that are outside the vocabulary."""
    parameters: int
    precision: str
    device: str
    images_per_second: float
    seconds: float
    cpu_seconds: float
    weights: dict[str, str]
    """File -> sha256."""


def train(
    data: TrainingSamples | Dataset | Path | str,
    settings: TrainSettings,
    out: Path | str,
    selection: str | None = None,
    caption_sources: Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = tell,
) -> RunSummary:
    """Train one model, or continue, or return the summary of the finished run.

    Args:
        data: samples in memory, or a dataset of which `selection` is read.
        out: the run's directory; it belongs to these settings and this data.
        caption_sources: kind -> who wrote it, where several captioners wrote that kind.
        keys: train on these samples of the selection alone; None takes all of them.
        on_step: called with (steps done, steps in all) after every step, in place of a bar.
        say: called with a sentence that the person should read.

    Raises:
        ConfigError: settings that do not fit the data.
        DatasetError: `out` belongs to other settings or other data; nothing is overwritten.
        CaplabError: training does not stay finite.
    """
    out = Path(out)
    settings = settled(settings, stored_settings(out / "run.json"))
    config = model_config(settings)
    samples = _samples(data, settings, config.resolution, selection, caption_sources)
    if keys is not None:
        wanted = set(keys)
        samples = samples.take(np.flatnonzero([key in wanted for key in samples.keys]))
    if samples.images.shape[1] != config.resolution:
        raise ConfigError(
            f"The pictures have {samples.images.shape[1]} pixels a side and the model "
            f"{config.resolution}; set resolution, or load them at that size."
        )
    kinds = blend_order(settings.captions)
    for kind in kinds:
        texts_of(samples.captions, kind)
    whole = len(samples)
    if settings.missing_captions == "drop":
        samples = with_captions(samples, kinds)
        if not len(samples):
            raise ConfigError(f"No sample has captions of all of {', '.join(kinds)}.")
    held_out(samples.keys, settings.validation_share, settings.validation_samples)
    identity = {
        "settings": settings.identity(),
        "model_config": config.resolved(),
        "data": samples.hashes(),
    }
    if (out / "summary.json").exists():
        claim_directory(out, out / "run.json", "training run", identity, provenance(settings))
        if (summary := _finished(out)) is not None:
            return summary
        say(f"What {out} holds was lost or cut since it was finished; it is made again.")
    tokenizer = vocabulary(config, samples.captions)
    unknown = words_unknown_to(tokenizer, settings, samples.captions)
    refuse_unknown_words(unknown, settings.allow_unknown_words)
    claim_directory(out, out / "run.json", "training run", identity, provenance(settings))
    tokenizer.save_pretrained(out / "tokenizer")
    result = train_loop(samples, settings, config, tokenizer, out, on_step=on_step, say=say)
    return _finish(result, out, whole - len(samples), unknown)


def _finished(out: Path) -> RunSummary | None:
    """The summary of a finished run; None where what it tells of is not there any more."""
    try:
        summary = RunSummary(**read_json(out / "summary.json"))
        whole = all(sha256_file(out / name) == mark for name, mark in summary.weights.items())
    except (DatasetError, OSError, TypeError):
        return None
    return summary if whole and (out / "pipeline" / "model_index.json").exists() else None


def _samples(
    data: TrainingSamples | Dataset | Path | str,
    settings: TrainSettings,
    resolution: int,
    selection: str | None,
    caption_sources: Mapping[str, str] | None,
) -> TrainingSamples:
    if isinstance(data, TrainingSamples):
        return data
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    if selection is None:
        known = ", ".join(dataset.selections()) or "none yet"
        raise ConfigError(f"Say which selection to train on (selections: {known}).")
    refuse_holes(dataset, [selection])
    kinds = vocabulary_kinds(dataset, blend_order(settings.captions), caption_sources)
    return load_training_samples(dataset, selection, kinds, resolution, caption_sources)


def _finish(
    result: LoopResult, out: Path, dropped: int, unknown: Sequence[UnknownWords]
) -> RunSummary:
    """Write weights, export and summary."""
    from safetensors.torch import save_file

    from train.export import export_pipeline

    state, trained, settings = result.progress, result.trained, result.trained.settings
    write_tables(out, state)
    weights = {
        name: parameter.detach().float().cpu().contiguous()
        for name, parameter in trained.model.named_parameters()
    }
    with atomic_path(out / "ema.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    export_pipeline(trained, out / "pipeline")
    blend, dropout = realised_blend(result)
    loss = state.metrics[-1]["loss"]
    summary = RunSummary(
        directory=str(out),
        steps=state.step,
        skipped_steps=state.skipped,
        samples=result.order.samples,
        dropped_samples=dropped,
        loss=loss if np.isfinite(loss) else None,
        validation=_validation(state.validation),
        blend=blend,
        caption_dropout=dropout,
        truncated=result.bank.truncated,
        unknown_words={count.texts: count.share for count in unknown},
        parameters=sum(weight.numel() for weight in weights.values()),
        precision=settings.precision,
        device=settings.device,
        images_per_second=state.step * settings.batch_size / max(state.seconds, 1e-9),
        seconds=state.seconds,
        cpu_seconds=state.cpu_seconds,
        weights={"ema.safetensors": sha256_file(out / "ema.safetensors")},
    )
    write_json(out / "summary.json", asdict(summary))
    return summary


def realised_blend(result: LoopResult) -> tuple[dict[str, float], float]:
    """Share of each caption kind among all captions drawn, and of those that were emptied.

    Draws are functions of (seed, step), so they are made again and counted; nothing has to be
    kept while training, and an interrupted run counts the same.
    """
    bank = result.bank
    counts, dropped = np.zeros(len(bank.kinds), np.int64), 0
    for step in range(result.progress.step):
        drawn = bank.draw(*result.order.batch(step))
        counts += np.bincount(drawn.kind, minlength=len(bank.kinds))
        dropped += int(drawn.dropped.sum())
    total = max(int(counts.sum()), 1)
    shares = {kind: int(n) / total for kind, n in zip(bank.kinds, counts, strict=True)}
    return shares, dropped / total


def _validation(rows: list[dict[str, Any]]) -> dict[str, float]:
    from train.validation import validation_means

    return validation_means(rows)
