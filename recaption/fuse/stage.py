"""The stage that merges captions: a CaptionStage that is shown texts in place of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.store.captions import (
    MADE_FROM,
    CaptionRef,
    caption_writer,
    made_from,
    read_made_from,
    text_mark,
)
from curate.store.dataset import Dataset
from recaption.captioning.ask import caption_kind, failed_rows
from recaption.captioning.collapse import NO_SOURCE
from recaption.captioning.drafts import OK, Pending
from recaption.captioning.missing import WorkRows, iter_pending
from recaption.captioning.parts import ShardCaptions
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage, Lacking
from recaption.engines.attention import RowByRow
from recaption.engines.identity import Captioner
from recaption.engines.protocol import CaptionEngine, CaptionOutcome, Sampling
from recaption.engines.registry import open_engine
from recaption.fuse.prompt import fuse_template, variable
from recaption.measure.similarity import Embedding
from recaption.prompts.template import PromptTemplate

_COLUMNS = ["key", "kind", "sample_index", "text", "status"]


class FuseStage(CaptionStage):
    """Writes captions that are made from stored ones; of each kind the first accepted is taken.

    A picture that lacks one of them gets a failed row. Each row names the captions that it was made
    from and the hashes of their texts (`curate.store.captions.read_made_from`); a row that would be
    made from others now is asked for again.
    """

    name = "fuse"
    needs = ("samples", "captions")

    def __init__(
        self, settings: RecaptionSettings, dataset: Dataset, captioner: Captioner | None = None
    ) -> None:
        """As CaptionStage.

        Raises:
            ConfigError: also where nobody wrote one of the kinds, or several did.
        """
        asked = [kind.partition(":") for kind in settings.fuse]
        self.of = {kind: caption_writer(dataset, kind, own or None) for kind, _, own in asked}
        if len(self.of) < len(asked):
            raise ConfigError("fuse names a kind twice.")
        if settings.prompt_columns or settings.prompt_variables:
            raise ConfigError("fuse shows captions alone; leave out the prompts' variables.")
        super().__init__(settings, captioner, dataset)
        self._texts: tuple[str, dict[str, dict[str, str]]] | None = None

    def templates(self) -> dict[str, PromptTemplate]:
        """The one prompt."""
        if not self.captioner.chat:
            raise ConfigError(
                f"{self.captioner.model!r} has no chat template and reads no instructions, so it "
                f"cannot merge captions."
            )
        (kind,) = self.settings.kinds
        return {kind: fuse_template(kind, list(self.of), self.settings.prompts)}

    def made_from(self) -> list[tuple[str, str]]:
        """Kind and source of the captions that are merged."""
        return list(self.of.items())

    def opened(self) -> CaptionEngine:
        """The language model, loaded or reached if it was not before."""
        if self._engine is None:
            (plan,) = self.plans.values()
            trial = Sampling.most_of([plan.sampling, plan.retry_sampling][: 1 + plan.retries])
            self._engine = open_engine(self.settings, self.captioner, trial)
        return self._engine

    def work(self, dataset: Dataset, shard: str, lacking: Lacking) -> pa.Table:
        """As CaptionStage.work; no tar is read."""
        alt_texts = self.selected(dataset, shard)
        values = self.inputs(dataset, shard, list(lacking))
        rows = WorkRows(shard)
        for key, slots in lacking.items():
            rows.add(key, None, alt_texts[key], slots, *values[key])
        return rows.table()

    def caption(self, work: pa.Table, row_by_row: bool = False) -> pa.Table:
        """As CaptionStage.caption."""
        engine: CaptionEngine = RowByRow(self.opened()) if row_by_row else self.opened()
        tables = []
        for kind, _, pending in iter_pending(work, list(self.plans)):
            there, lost = Pending(), Pending()
            for row in zip(*vars(pending).values(), strict=True):
                key, index, _, alt_text, values, embedding = row
                side = there if MADE_FROM in values else lost
                side.add(key, index, None, alt_text, values, embedding)
            plan, told = self.plans[kind], (self.captioner, self.measures)
            if len(there):
                tables.append(caption_kind(engine, told[0], plan, there, told[1]))
            if len(lost):
                why = CaptionOutcome(
                    error=NO_SOURCE, detail=f"not every one of {', '.join(self.of)}"
                )
                tables.append(failed_rows(plan, told[0], lost, told[1], why))
        return pa.concat_tables(tables)

    def inputs(
        self, dataset: Dataset, shard: str, keys: list[str]
    ) -> dict[str, tuple[Mapping[str, str], Embedding | None]]:
        """Key -> its captions as the prompt's values, and the picture's stored embedding."""
        embeddings = self.measures.similarity.embeddings(dataset, shard, keys)
        found = self._values(dataset, shard)
        pairs = zip(keys, embeddings, strict=True)
        return {key: (found.get(key, {}), embedding) for key, embedding in pairs}

    def written(self, dataset: Dataset, shard: str) -> ShardCaptions:
        """As CaptionStage.written, but for rows that would be made from other captions now."""
        values = self._values(dataset, shard)

        def stands(rows: pa.Table) -> pa.Table:
            pairs = zip(
                *(rows.column(n).to_pylist() for n in ("key", "prompt_variables")), strict=True
            )
            return rows.filter(
                pa.array(
                    [
                        read_made_from(made) == read_made_from(values.get(key, {}).get(MADE_FROM))
                        for key, made in pairs
                    ],
                    pa.bool_(),
                )
            )

        return ShardCaptions(dataset, self.source, shard, stands)

    def changed(self, dataset: Dataset, shard: str) -> int:
        """See CaptionStage.changed."""
        there = ShardCaptions(dataset, self.source, shard).finished()
        return len((there & self.wanted(dataset, shard)) - self.written(dataset, shard).finished())

    def _values(self, dataset: Dataset, shard: str) -> dict[str, dict[str, str]]:
        if self._texts is None or self._texts[0] != shard:
            self._texts = shard, _values(dataset, shard, self.of)
        return self._texts[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_texts": None}


def _values(dataset: Dataset, shard: str, of: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Key -> values of the prompt and MADE_FROM, for pictures that have every kind."""
    refs: dict[str, list[CaptionRef]] = {}
    values: dict[str, dict[str, str]] = {}
    for place, (kind, source) in enumerate(of.items()):
        if not dataset.has_shard("captions", shard, source):
            return {}
        rows = dataset.read_table("captions", shard, source, _COLUMNS)
        rows = rows.sort_by([("key", "ascending"), ("sample_index", "ascending")])
        for row in rows.to_pylist():
            key, own = row["key"], variable(place)
            known = values.setdefault(key, {})
            if row["kind"] == kind and row["status"] == OK and own not in known:
                known[own] = row["text"]
                mark = text_mark(row["text"])
                refs.setdefault(key, []).append(CaptionRef(kind, source, row["sample_index"], mark))
    return {
        key: own | {MADE_FROM: made_from(refs[key])}
        for key, own in values.items()
        if len(own) == len(of)
    }
