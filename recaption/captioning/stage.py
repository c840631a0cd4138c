"""The recaption stage: writes every caption of a shard that is asked for and not there yet."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint
from curate.base.settings import nearest
from curate.store.contract import STORED
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from curate.store.stage import Stage
from recaption.captioning.ask import (
    KindPlan,
    caption_kind,
    failed_rows,
    missing_picture_rows,
)
from recaption.captioning.missing import WorkRows, iter_pending
from recaption.captioning.only_missing import OnlyMissing
from recaption.captioning.parts import CaptionId, ShardCaptions
from recaption.captioning.settings import RecaptionSettings
from recaption.engines.attention import RowByRow
from recaption.engines.identity import Captioner
from recaption.engines.protocol import CaptionEngine, CaptionOutcome, Sampling
from recaption.engines.registry import identify, open_engine
from recaption.measure.measures import CaptionMeasures
from recaption.measure.similarity import Embedding
from recaption.prompts.templates import LATER, PromptTemplate, templates_for

Lacking = dict[str, list[tuple[str, int]]]
"""Key -> kind and sample index of each caption that the picture lacks."""

logger = logging.getLogger(__name__)


class CaptionStage(Stage):
    """Writes captions/SOURCE/SHARD.parquet; see `source` for who SOURCE is.

    Exactly one row for every selected key, kind and sample index. Rows that are there already stay
    as they are: a larger selection, another kind or more samples only add rows.
    """

    name = "recaption"
    needs: ClassVar[tuple[str, ...]] = ("samples",)
    adds = ("captions",)

    def __init__(
        self,
        settings: RecaptionSettings,
        captioner: Captioner | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        """Identify the captioner (hashing a local folder's weights) and check every setting.

        Args:
            captioner: identified before; None identifies the one that the settings name.
            dataset: whose samples are captioned, for the embeddings and columns that it stores;
                None uses neither.

        Raises:
            ConfigError: no such captioner, or one that cannot write what is asked.
        """
        self.settings = settings
        self.captioner = captioner or identify(settings)
        templates = self.templates()
        self.plans = _plans(settings, templates)
        self.source = source_name(settings, self.captioner, templates, self.made_from())
        self.only_missing = (
            OnlyMissing(self.source, settings.kinds) if settings.only_missing else None
        )
        self.measures = CaptionMeasures(settings, dataset, settings.device, settings.prompt_columns)
        if "below_alt_text" in settings.reject and self.measures.similarity.clip is None:
            raise ConfigError(
                "reject names below_alt_text, but no captions are compared with their pictures: "
                "the dataset needs picture embeddings of the CLIP model, and clip_gate must not be "
                "off."
            )
        self._engine: CaptionEngine | None = None

    def templates(self) -> dict[str, PromptTemplate]:
        """What can be asked, by kind."""
        settings = self.settings
        return templates_for(
            self.captioner.family,
            self.captioner.chat,
            settings.prompts,
            settings.prompt_variables,
            settings.prompt_columns,
        )

    def made_from(self) -> list[tuple[str, str]]:
        """Kind and source of the captions that these are made from, if they are."""
        return []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether every selected key, kind and sample index has its row."""
        if not dataset.has_shard("samples", shard):
            return False
        written = self.written(dataset, shard)
        return self.wanted(dataset, shard) <= written.finished(
            without_failed=self.settings.retry_failed
        )

    def open(self) -> None:
        """Load the captioner or reach its server, and the models that measure captions."""
        self.opened()
        self.measures.open()

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Caption what is missing in one shard.

        Returns:
            Counters: "kept" (rows that were there), "ok", "rejected" and "failed" (rows written
            now), and each reason, such as "rejected:loop" or "failed:http_500".
        """
        self.open()
        counts: Counter[str] = Counter()
        for block in self.blocks(dataset, shard, self.settings.checkpoint_rows):
            counts.update(row_counts(self.write(dataset, self.work(dataset, shard, block))))
        new = counts["ok"] + counts["rejected"] + counts["failed"]
        counts["kept"] = self.finish(dataset, shard).num_rows - new
        return dict(counts)

    # ---- the parts of a run: what is missing, captions for it, the finished shard ---------------

    def missing(self, dataset: Dataset, shard: str) -> set[CaptionId]:
        """Captions of a shard that are wanted and not written."""
        written = self.written(dataset, shard)
        return self.wanted(dataset, shard) - written.written(self.settings.retry_failed)

    def written(self, dataset: Dataset, shard: str) -> ShardCaptions:
        """What is there of a shard."""
        return ShardCaptions(dataset, self.source, shard)

    def changed(self, dataset: Dataset, shard: str) -> int:
        """Captions that are there and asked for again, since what they are made from changed."""
        return 0

    def blocks(self, dataset: Dataset, shard: str, captions: int) -> Iterator[Lacking]:
        """What is missing now in a shard, about `captions` captions at a time, in its order."""
        missing = self.missing(dataset, shard)
        slots = list(product(self.plans, range(self.settings.samples_per_image)))
        block: Lacking = {}
        count = 0
        for key in self.selected(dataset, shard) if missing else ():
            if lacking := [slot for slot in slots if (key, *slot) in missing]:
                block[key] = lacking
                count += len(lacking)
                if count >= captions:
                    yield block
                    block, count = {}, 0
        if block:
            yield block

    def work(self, dataset: Dataset, shard: str, lacking: Lacking) -> pa.Table:
        """A table of WORK for pictures of one shard, in the tar's order.

        Those that its tar does not give (it is damaged, say) come last, without a picture.
        """
        alt_texts = self.selected(dataset, shard)
        values = self.inputs(dataset, shard, list(lacking))
        rows = WorkRows(shard)
        left = dict(lacking)
        for key, picture in _pictures(dataset, shard, lacking):
            rows.add(key, picture, alt_texts[key], left.pop(key), *values[key])
            if not left:
                break
        for key, slots in left.items():
            rows.add(key, None, alt_texts[key], slots, *values[key])
        return rows.table()

    def write(self, dataset: Dataset, work: pa.Table, row_by_row: bool = False) -> pa.Table:
        """Caption a table of WORK and put the captions beside their shards' tables, durably.

        Two threads may do so at once. The stage has to be open.

        Args:
            row_by_row: ask for one caption at a time.

        Returns:
            The captions, one row for every one that the pictures lacked.
        """
        rows = self.caption(work, row_by_row)
        self._add(dataset, work, rows)
        return rows

    def write_failed(self, dataset: Dataset, work: pa.Table, reason: str, detail: str) -> pa.Table:
        """As `write`, of captions that are given up: rows that failed; nothing is asked."""
        outcome = CaptionOutcome(error=reason, detail=detail)
        rows = pa.concat_tables(
            failed_rows(self.plans[kind], self.captioner, pending, self.measures, outcome)
            for kind, there, lost in iter_pending(work, list(self.plans))
            for pending in (there, lost)
            if len(pending)
        )
        self._add(dataset, work, rows)
        return rows

    def _add(self, dataset: Dataset, work: pa.Table, rows: pa.Table) -> None:
        keys = rows.column("key")
        for shard in work.column("shard").unique().to_pylist():
            own = work.filter(pc.field("shard") == shard).column("key")
            part = rows.filter(pc.is_in(keys, value_set=own.combine_chunks()))
            ShardCaptions(dataset, self.source, shard).add_part(part)

    def caption(self, work: pa.Table, row_by_row: bool = False) -> pa.Table:
        """Captions for a table of WORK, as rows of CAPTIONS. The stage has to be open."""
        engine, captioner = self.opened(), self.captioner
        if row_by_row:
            engine = RowByRow(engine)
        tables = []
        for kind, there, lost in iter_pending(work, list(self.plans)):
            plan = self.plans[kind]
            if len(there):
                tables.append(caption_kind(engine, captioner, plan, there, self.measures))
            if len(lost):
                tables.append(missing_picture_rows(plan, captioner, lost, self.measures))
        return pa.concat_tables(tables)

    def finish(self, dataset: Dataset, shard: str) -> pa.Table:
        """Merge a shard's parts into its table, and return the table."""
        return ShardCaptions(dataset, self.source, shard).finish()

    def opened(self) -> CaptionEngine:
        """The captioner, loaded or reached if it was not before."""
        if self._engine is None:
            asked = [
                sampling
                for plan in self.plans.values()
                for sampling in (plan.sampling, plan.retry_sampling)[: 1 + plan.retries]
            ]
            trial = Sampling.most_of(asked)
            self._engine = open_engine(self.settings, self.captioner, trial, self.settings)
        return self._engine

    def inputs(
        self, dataset: Dataset, shard: str, keys: list[str]
    ) -> dict[str, tuple[Mapping[str, str], Embedding | None]]:
        """Key -> values of the prompt's columns and the picture's embedding, for Pending.add."""
        values = self.measures.prompt_columns.values(dataset, shard, keys)
        embeddings = self.measures.similarity.embeddings(dataset, shard, keys)
        return dict(zip(keys, zip(values, embeddings, strict=True), strict=True))

    def selected(self, dataset: Dataset, shard: str) -> dict[str, str | None]:
        """Key of each stored and selected sample of a shard -> its alt text."""
        samples = stored_samples(dataset, shard)
        if self.settings.selection:
            selected = _selected(dataset, self.settings.selection)
            samples = samples.filter(pc.is_in(samples.column("key"), value_set=selected))
        return dict(zip(*(samples.column(n).to_pylist() for n in ("key", "alt_text")), strict=True))

    def wanted(self, dataset: Dataset, shard: str) -> set[CaptionId]:
        """Every caption of a shard that should be there, written or not."""
        indices = range(self.settings.samples_per_image)
        keys = self.selected(dataset, shard)
        if self.only_missing is None:
            return set(product(keys, self.plans, indices))
        held = self.only_missing.held(dataset, shard)
        return {
            (key, kind, index)
            for kind in self.plans
            for key in keys.keys() - held[kind]
            for index in indices
        }

    def held(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Kind -> selected pictures that are not asked for it, since they have one."""
        if self.only_missing is None:
            return {}
        keys = self.selected(dataset, shard).keys()
        return {
            kind: len(keys & there)
            for kind, there in self.only_missing.held(dataset, shard).items()
        }


def _pictures(dataset: Dataset, shard: str, keys: Container[str]) -> Iterator[tuple[str, bytes]]:
    """Key and encoded picture of some of a shard's samples, up to where its tar is damaged."""
    try:
        for key, picture, _ in iter_shard(dataset, shard, keys):
            yield key, picture
    except DatasetError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise  # a whole tar that is gone is no damage but a wrong place
        # What lies behind the damage becomes failed rows, which name the key and can be retried.
        logger.warning("%s", error)


def stored_samples(dataset: Dataset, shard: str) -> pa.Table:
    """key and alt_text of the stored samples of a shard."""
    samples = dataset.read_table("samples", shard, columns=["key", "alt_text", "status"])
    return samples.filter(pc.field("status") == STORED).select(["key", "alt_text"])


def source_name(
    settings: RecaptionSettings,
    captioner: Captioner,
    templates: dict[str, PromptTemplate],
    made_from: Sequence[tuple[str, str]] = (),
) -> str:
    """Who writes these captions: the captioner's name and a fingerprint of what decides them.

    The selection, the kinds chosen and the number of samples are no part of it, so a later run may
    ask for more of the same. The wording of every known prompt is part of it.
    """
    decisive = settings.identity()
    for name in (
        *("captioner", "selection", "only_missing", "kinds", "samples_per_image"),
        *("prompts", "revision"),
    ):
        del decisive[name]
    if not settings.gates:
        del decisive["gates"]  # as before there was this setting
    if captioner.engine == "http":
        del decisive["precision"]
    else:
        for name in ("image_format", "served_model", "api_key_env", "omit_fields", "extra_body"):
            del decisive[name]
    wordings = {kind: template.sha256 for kind, template in templates.items()}
    for later in LATER:  # as before there was this kind
        own = templates.get(later.name)
        if own is not None and (own.text, own.version) == (later.text, 1):
            del wordings[later.name]
    del decisive["fuse"]
    if made_from:
        decisive["made_from"] = made_from
    if not settings.max_words:
        del decisive["max_words"]  # as before there was this setting
    decisive |= {
        "engine": captioner.engine,
        "captioner": captioner.digest,
        "prompts": wordings,
    }
    return f"{captioner.short_name}-{fingerprint(decisive)[:8]}"


def _plans(
    settings: RecaptionSettings, templates: dict[str, PromptTemplate]
) -> dict[str, KindPlan]:
    plans = {}
    for kind in settings.kinds:
        template = templates.get(kind)
        if template is None:
            known = nearest(kind, list(templates))
            raise ConfigError(f"There is no prompt for captions of kind {kind!r}; {known}")
        if settings.show_alt_text and not template.shows_alt_text("x", True):
            raise ConfigError(
                f"The prompt for captions of kind {kind!r} cannot show the alt text; leave "
                f"show_alt_text off."
            )
        plans[kind] = KindPlan.of(settings, template)
    return plans


def _selected(dataset: Dataset, selection: str) -> pa.Array:
    path = dataset.selection_path(selection)
    # The time in the call makes a selection that was replaced a new one.
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _read_selection(dataset.directory.as_posix(), selection, changed)


@lru_cache(maxsize=4)
def _read_selection(directory: str, selection: str, changed: int) -> pa.Array:
    return pa.array(Dataset(directory).selection_keys(selection), pa.string())


def row_counts(rows: pa.Table) -> Counter[str]:
    """Rows by status, and by status and reason, such as "rejected:loop"."""
    counts: Counter[str] = Counter(rows.column("status").to_pylist())
    reasons = zip(rows.column("status").to_pylist(), rows.column("reason").to_pylist(), strict=True)
    counts.update(f"{status}:{reason}" for status, reason in reasons if reason is not None)
    return counts
