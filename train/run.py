"""A training run and its directory: `train(dataset, settings, out)`.

OUT/
  run.json                 resolved settings, model config, versions, fingerprint of the data
  checkpoints/             STEP.safetensors: the newest two, and the one from before the cool-down
  metrics.parquet          a row every `log_every` steps
  validation.parquet       long: step, caption kind, timestep, loss
  grids/step-000500.png    fixed prompts, fixed noise; the prompts stand in grids/prompts.json
  tensorboard/             event files, where `trackers` asks for them
  receipt.parquet          which captions it was trained on, and how often
  pipeline/                the averaged weights for diffusers, float32
  lora/, learned_embeds.safetensors  or these, where adapters or new tokens were trained
  summary.json             last of all; its presence says that the run is finished
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import read_json, read_record, sha256_file, write_json
from curate.base.progress import tell
from curate.base.provenance import provenance
from curate.base.telling.summaries import Summary
from curate.store.caption_blend import blend_order
from curate.store.claims import claim_directory
from train.assemble import build_model
from train.checkpoints import Progress
from train.distributed import Ranks
from train.loop import train_loop, write_tables
from train.meter import refuse_missing_trackers
from train.model import TextToImage, Trained
from train.model_settings import ModelConfig
from train.settings import TrainSettings, model_config, settled, stored_settings
from train.sources import packaged_mark
from train.validation import validation_means

if TYPE_CHECKING:
    from curate.store.dataset import Dataset
    from train.data.index import TrainingIndex
    from train.data.loader import TrainingData
    from train.text.vocabulary import UnknownWords

# Captions of a kind among which those that do not fit the window are counted.
_COUNTED = 100_000


@dataclass(frozen=True)
class RunSummary(Summary):
    """The outcome of a run, as in its summary.json."""

    directory: str
    steps: int
    skipped_steps: int
    samples: int
    """Training pictures, without the held-out ones."""
    dropped_samples: int
    """Left out because they lack a caption of the blend, or all where it falls back."""
    loss: float | None
    """Mean over the last row of the metrics; None where every step in it was skipped."""
    validation: dict[str, float]
    """Caption kind -> mean validation loss."""
    blend: dict[str, float]
    """Caption kind -> realised share of the captions drawn, before dropout."""
    caption_dropout: float
    """Realised share of the captions drawn that were emptied."""
    truncated: dict[str, int]
    """Caption kind -> captions that did not fit the token window, among the first 100,000."""
    unknown_words: dict[str, float]
    """What kind of texts -> share of their words that are outside the vocabulary."""
    parameters: int
    """That were trained."""
    precision: str
    device: str
    processes: int
    images_per_second: float
    teraflops: float | None
    """Of the network, forward and backward, a second and device; as the last row says."""
    mfu: float | None
    """The same over what a large matrix product reaches on that device."""
    seconds: float
    cpu_seconds: float
    weights: dict[str, str]
    """File -> sha256."""
    fell_back: float = 0.0
    """Share of the captions drawn that are of another kind, as the picture lacks the one meant."""


def train(
    data: Dataset | Path | str,
    settings: TrainSettings,
    out: Path | str,
    selection: str | None = None,
    caption_sources: Mapping[str, str] | None = None,
    keys: Sequence[str] | None = None,
    on_step: Callable[[int, int, str], None] | None = None,
    say: Callable[[str], None] = tell,
) -> RunSummary:
    """Train one model, or continue, or return the summary of the finished run.

    A finished run that is given more steps goes on from before its cool-down. Called in every
    process that torchrun or Ray Train started, it trains one model in all of them.

    Args:
        data: the dataset of which `selection` is read.
        out: the run's directory; it belongs to these settings and this data.
        caption_sources: kind -> who wrote it, where several captioners wrote that kind.
        keys: train on these samples of the selection alone; None takes all of them.
        on_step: called with (steps done, steps in all, loss and speed of the last row of the
            metrics in words) after every step, in place of a bar.
        say: called with a sentence that the person should read.

    Raises:
        ConfigError: settings that do not fit the data, the model or the number of processes.
        DatasetError: `out` belongs to other settings or other data; nothing is overwritten.
        CaplabError: training does not stay finite.
    """
    from curate.store.dataset import Dataset
    from curate.store.holes import refuse_holes

    out = Path(out)
    settings = settled(settings, stored_settings(out / "run.json"))
    config = model_config(settings)
    refuse_missing_trackers(settings.trackers)
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    if selection is None:
        known = ", ".join(dataset.selections()) or "none yet"
        raise ConfigError(f"Say which selection to train on (selections: {known}).")
    refuse_holes(dataset, [selection])
    ranks = Ranks.join(settings.device)
    try:
        ranks.share(settings)
        run = _Run(dataset, settings, config, out, selection, caption_sources, keys, ranks)
        return run.train(on_step, say if ranks.first else _silent)
    finally:
        ranks.leave()


@dataclass
class _Run:
    """What `train` was told, resolved."""

    dataset: Dataset
    settings: TrainSettings
    config: ModelConfig
    out: Path
    selection: str
    caption_sources: Mapping[str, str] | None
    keys: Sequence[str] | None
    ranks: Ranks

    def train(
        self, on_step: Callable[[int, int, str], None] | None, say: Callable[[str], None]
    ) -> RunSummary:
        from train.data.index import build_index
        from train.data.loader import open_data
        from train.export.pipeline import check_exportable

        settings, config, out, ranks = self.settings, self.config, self.out, self.ranks
        asked = (self.selection, self.caption_sources, self.keys)
        with ranks.first_alone():
            training, held_out = build_index(self.dataset, settings, config, *asked)
        identity = {
            "settings": settings.identity(),
            "model_config": config.resolved(),
            "data": data_identity(settings, config, training, held_out),
        }
        if packaged := packaged_mark(config.source):
            identity["packaged"] = packaged
        if (out / "summary.json").exists():
            self._claim(identity)
            if (summary := _finished(out, settings.steps)) is not None:
                return summary
            say(f"What {out} holds is of fewer steps, or was lost or cut; it is trained further.")
        unknown = _unknown_words(config, settings, training, held_out)

        def make_model() -> Any:
            made = build_model(config, settings, chain(training.texts(), held_out.texts()))
            if made.conditions is not None:
                made.conditions.edges = training.condition_edges
            return made

        model = make_model()
        refuse_cut_buckets(model, training)
        check_exportable(Trained(model, settings, config))
        opened = open_data(
            self.dataset, settings, config, model.text, *asked, latents=model.latents
        )
        self._claim(identity)
        mark = read_record(out / "run.json")["identity_fingerprint"]
        trained, state = train_loop(
            model, make_model, opened, settings, config, out, mark, ranks, None, on_step, say
        )
        if ranks.first:
            self._finish(trained, state, opened, unknown)
        ranks.barrier()
        return RunSummary(**read_json(out / "summary.json"))

    def _claim(self, identity: Mapping[str, Any]) -> None:
        """Make `out` this run's, or check that it is; what may change is recorded as it is now."""
        record = self.out / "run.json"
        with self.ranks.first_alone():
            told = provenance(self.settings)
            new = claim_directory(self.out, record, "training run", identity, told)
            if self.ranks.first and not new:
                stored = read_record(record)
                if stored.get("settings") != _as_json(told["settings"]):
                    write_json(record, {**stored, "settings": told["settings"]})

    def _finish(
        self,
        trained: Trained,
        state: Progress,
        data: TrainingData,
        unknown: Sequence[UnknownWords],
    ) -> None:
        """Write weights, export, receipt and, last of all, the summary."""
        from train.data.receipt import write_receipt
        from train.export.pipeline import export_run
        from train.text.vocabulary import cut_texts

        settings, out = self.settings, self.out
        (out / "summary.json").unlink(missing_ok=True)
        write_tables(out, state)
        export_run(trained, out)
        receipt = write_receipt(data, out / "receipt.parquet", state.step)
        tokenizer = trained.model.text.tokenizer_side()
        first = {
            kind: list(islice(data.index.texts([kind]), _COUNTED)) for kind in data.draws.kinds
        }
        last = state.metrics[-1]
        summary = RunSummary(
            directory=str(out),
            steps=state.step,
            skipped_steps=state.skipped,
            samples=len(data.index),
            dropped_samples=data.index.dropped,
            loss=last["loss"] if np.isfinite(last["loss"]) else None,
            validation=validation_means(state.validation),
            blend=receipt.blend,
            fell_back=receipt.fell_back / max(receipt.total, 1),
            caption_dropout=receipt.caption_dropout,
            truncated={own.texts: own.cut for own in cut_texts(tokenizer, first)},
            unknown_words={count.texts: count.share for count in unknown},
            parameters=state.parameters,
            precision=settings.precision,
            device=settings.device,
            processes=self.ranks.world,
            images_per_second=state.step * settings.batch_size / max(state.seconds, 1e-9),
            teraflops=last["teraflops"],
            mfu=last["mfu"],
            seconds=state.seconds,
            cpu_seconds=state.cpu_seconds,
            weights={name: sha256_file(out / name) for name in _weights(out)},
        )
        write_json(out / "summary.json", asdict(summary))


def data_identity(
    settings: TrainSettings, config: ModelConfig, training: TrainingIndex, held_out: TrainingIndex
) -> dict[str, str]:
    """What a run learns from, by content: captions that it does not draw count only as words."""
    found = {
        "training": training.fingerprint_of(blend_order(settings.captions)),
        "held_out": held_out.fingerprint,
    }
    if any(own.kind == "words" for own in config.text):
        from train.text.vocabulary import vocabulary_fingerprint

        found["vocabulary"] = vocabulary_fingerprint(
            config, chain(training.texts(), held_out.texts())
        )
    return found


def refuse_cut_buckets(model: TextToImage, index: TrainingIndex) -> None:
    """
    Raises:
        ConfigError: a bucket has a side that the autoencoder or the network's patches cannot cut.
    """
    unit = model.latents.factor * model.backbone.row.divisor(model.backbone.config)
    for bucket in index.buckets:
        if bucket.width % unit or bucket.height % unit:
            raise ConfigError(
                f"A bucket of {bucket.width} x {bucket.height} pixels does not fit this model, "
                f"whose sides are multiples of {unit}; take a bucket_step that is one."
            )


def _finished(out: Path, steps: int) -> RunSummary | None:
    """The summary of a finished run; None where it is to go on, or what it tells of is lost.

    Raises:
        ConfigError: it has taken more steps than are asked for.
    """
    try:
        summary = RunSummary(**read_json(out / "summary.json"))
        whole = all(sha256_file(out / name) == mark for name, mark in summary.weights.items())
    except (DatasetError, OSError, TypeError):
        return None
    if summary.steps > steps:
        raise ConfigError(
            f"{out} has taken {summary.steps} steps and cannot be brought back to {steps}; choose "
            f"another --out, or ask for more steps."
        )
    whole &= (out / "receipt.parquet").exists()
    whole &= (out / "pipeline" / "model_index.json").exists() or not (out / "pipeline").exists()
    return summary if whole and summary.weights and summary.steps == steps else None


def _weights(out: Path) -> list[str]:
    """Files of weights that a run wrote, as paths below its directory."""
    found = [
        *out.glob("pipeline/*/*.safetensors"),
        *out.glob("lora/*.safetensors"),
        *out.glob("*.safetensors"),
    ]
    return sorted(str(path.relative_to(out)) for path in found)


def _unknown_words(
    config: ModelConfig, settings: TrainSettings, *indexes: TrainingIndex
) -> list[UnknownWords]:
    """Words of the blend and the prompts that are outside of a vocabulary of whole words.

    Raises:
        ConfigError: they are too many.
    """
    if all(own.kind != "words" for own in config.text):
        return []
    from train.text.vocabulary import refuse_unknown_words, vocabulary, words_unknown_to

    captions = {kind: _Captions(indexes, kind) for kind in indexes[0].kinds}
    unknown = words_unknown_to(vocabulary(config, captions), settings, captions)
    refuse_unknown_words(unknown, settings.allow_unknown_words)
    return unknown


@dataclass(frozen=True)
class _Captions:
    """The captions of a kind, each by itself, read anew each time; none is kept in memory."""

    indexes: Sequence[TrainingIndex]
    kind: str

    def __iter__(self) -> Iterator[tuple[str]]:
        for index in self.indexes:
            for text in index.texts([self.kind]):
                yield (text,)


def _as_json(value: Any) -> Any:
    import json

    return json.loads(json.dumps(value, default=str))


def _silent(sentence: str) -> None:
    """What the first process says is enough."""
