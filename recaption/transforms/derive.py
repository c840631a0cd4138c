"""Derive a caption set from captions of a dataset, shard by shard, into its captions table.

A derived set is a source of its own, "derived-HASH", with one kind, its name. Each shard's table
notes what it was made from, so that a killed run continues, an unchanged set costs one reading of
its source, and a shard whose source has changed since is stale and made again.

Cost: a shard is in memory at a time (shuffling: a block of shards, about 200,000 captions), and
time grows with the number of captions. `wrong_attributes` first counts the words of the whole set,
and so is stale as a whole where any of its shards changed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.column_marks import note, noted_in
from curate.base.errors import ConfigError, StageError
from curate.base.files import fingerprint, write_json
from curate.base.kinds import check_kind
from curate.base.progress import progress, tell
from curate.base.provenance import provenance
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.captions import caption_writer, writers_of
from curate.store.contract import DERIVED
from curate.store.dataset import Dataset
from curate.store.dataset_card import write_dataset_card
from curate.store.holes import note_finished
from curate.store.lock import writing
from recaption.captioning.drafts import OK
from recaption.measure.token_counts import CACHED, TokenCounter
from recaption.structured.schema import Unread
from recaption.transforms.attributes import Usage, by_class, usage
from recaption.transforms.derivation import Derivation
from recaption.transforms.rows import derived_rows
from recaption.transforms.rules import Columns, apply

BLOCK_ROWS = 200_000
"""Captions among which those of one picture are shuffled, at least (all, where there are fewer)."""

# Raised where a rule gives other captions than before.
VERSION = 1
_NOTE = b"caplab_derived"
_COLUMNS = ["key", "kind", "sample_index", "status", "reason", "text"]


@dataclass(frozen=True)
class DerivedSet(Summary):
    """A derived set, and what this call did for it.

    Attributes:
        kind, source: what `caption_sources` and blends call it.
        counts: status -> captions.
        reasons: reason -> captions that failed.
        written, kept, stale: shards made now, found whole, and (of those made now) out of date.
        changed, changeable: words or clauses that a dosed rule changed, and could have changed.
    """

    kind: str
    source: str
    counts: Mapping[str, int]
    reasons: Mapping[str, int]
    written: int = 0
    kept: int = 0
    stale: int = 0
    changed: int = 0
    changeable: int = 0

    def text(self) -> str:
        """What the command prints."""
        told = [
            f"{name} {count:,}"
            for counts in (self.counts, self.reasons)
            for name, count in counts.items()
        ]
        lines = [f"{self.kind}: {amount(sum(self.counts.values()), 'caption')} by {self.source}"]
        lines.append(", ".join(told))
        if self.changeable:
            share = self.changed / self.changeable
            lines.append(
                f"changed {share:.1%} of {self.changeable:,} words or clauses that could be"
            )
        shards = f"{amount(self.written, 'shard')} written, {self.kept:,} there before"
        stale = amount(self.stale, "was", "were")
        lines.append(f"{shards}; {stale} out of date" if self.stale else shards)
        return "\n  ".join(lines)


@dataclass(frozen=True)
class _Shard:
    """Captions of one shard that a set is made from, accepted or not, in the table's order."""

    name: str
    rows: pa.Table
    like: Mapping[str, str]

    @property
    def stamp(self) -> str:
        """Changes with any of them."""
        digest = hashlib.sha256()
        for row in zip(*(self.rows.column(n).to_pylist() for n in _COLUMNS), strict=True):
            digest.update(repr(row).encode())
        digest.update(repr(sorted(self.like.items())).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class _Plan:
    dataset: Dataset
    name: str
    derivation: Derivation
    of: str
    like: str | None
    source: str
    said: Usage = field(default_factory=dict)


def derive(dataset: Dataset, name: str, derivation: Derivation) -> DerivedSet:
    """Derive the set `name`, or what of it is missing or out of date.

    Raises:
        ConfigError: the captions that it needs are not there or are of several writers, or the name
            is another set's; before any work.
        StageError: no caption could be derived; the rows with their reasons are kept.
    """
    plan = _planned(dataset, name, derivation)
    with writing(dataset.directory, f"captions/{plan.source}"):
        return _derive(_with_usage(plan))


def examples(
    dataset: Dataset, name: str, derivation: Derivation, count: int = 5
) -> list[tuple[str, str]]:
    """(before, after) of some captions, those that change first; nothing is stored.

    Of the first shards that hold any.

    Raises:
        ConfigError: as `derive`.
    """
    plan = _with_usage(_planned(dataset, name, derivation))
    found: list[tuple[str, str]] = []
    for block in _blocks(plan):
        columns, _ = _columns(plan, block)
        made = apply(derivation, columns)
        for row, text in zip(made.rows, made.texts, strict=True):
            after = f"({text.reason}: {text.detail})" if isinstance(text, Unread) else text
            found.append((columns.texts[row], after))
        if found:
            break
    return sorted(found, key=lambda pair: pair[0] == pair[1])[:count]


def _planned(dataset: Dataset, name: str, derivation: Derivation) -> _Plan:
    check_kind(name)
    of = caption_writer(dataset, derivation.of, derivation.source or None)
    like = derivation.like and caption_writer(dataset, derivation.like)
    decisive = {"name": name, "made_from": [of, like], "version": VERSION}
    source = f"{DERIVED}{fingerprint(derivation.decisive() | decisive)[:8]}"
    if others := [one for one in writers_of(dataset, name) if one != source]:
        told = "was derived by another rule" if others[0].startswith(DERIVED) else "is there"
        raise ConfigError(
            f"A caption set {name!r} {told} ({', '.join(others)}); choose another name."
        )
    return _Plan(dataset, name, derivation, of, like or None, source)


def _with_usage(plan: _Plan) -> _Plan:
    if plan.derivation.rule != "wrong_attributes":
        return plan
    counts: Counter[str] = Counter()
    for shard in _shards(plan):
        counts += usage(_accepted(_read(plan, shard).rows).column("text").to_pylist())
    return _Plan(**{**vars(plan), "said": by_class(counts)})


def _derive(plan: _Plan) -> DerivedSet:
    dataset, source = plan.dataset, plan.source
    write_json(
        dataset.directory / "captioners" / f"{source}.json",
        provenance({"name": plan.name, **plan.derivation.resolved()}, {plan.of: "captions"}),
    )
    shards = _shards(plan)
    for path in dataset.table_files("captions", source):
        if path.stem not in shards:
            path.unlink()  # its captions are gone
    tokens = TokenCounter(CACHED)
    done: Counter[str] = Counter()
    with progress(len(shards), f"deriving {plan.name}", "shard") as bar:
        for block in _blocks(plan):
            done.update(_write(plan, block, tokens))
            bar.update(len(block))
    if done["stale"]:
        tell(f"{plan.name}: the captions it is made from have changed; it was made again")
    note_finished(dataset, f"captions/{source}")
    write_dataset_card(dataset)
    return _summary(plan, done)


def _write(plan: _Plan, block: Sequence[_Shard], tokens: TokenCounter) -> dict[str, int]:
    """Write the shards of a block that are missing or stale; counts of shards."""
    stamp = fingerprint([VERSION, plan.said, [one.stamp for one in block]])
    paths = [plan.dataset.table_path("captions", one.name, plan.source) for one in block]
    notes = [noted_in(path, _NOTE) for path in paths]
    wanted = [k for k, found in enumerate(notes) if found.get("stamp") != stamp]
    if wanted:
        columns, places = _columns(plan, block)
        made = apply(plan.derivation, columns)
        for k in wanted:
            rows, changes = derived_rows(
                block[k].rows, columns, made, places[k], plan.derivation, plan.name, plan.of, tokens
            )
            noted = note({"stamp": stamp, **changes}, _NOTE)
            table = rows.replace_schema_metadata(noted)
            plan.dataset.write_table("captions", table, block[k].name, plan.source)
    return {
        "written": len(wanted),
        "kept": len(block) - len(wanted),
        "stale": sum(bool(notes[k]) for k in wanted),
    }


def _shards(plan: _Plan) -> list[str]:
    return [path.stem for path in plan.dataset.table_files("captions", plan.of)]


def _blocks(plan: _Plan) -> Iterator[list[_Shard]]:
    """Shards that are derived together: one at a time, or a block among which is shuffled."""
    if plan.derivation.rule != "shuffle":
        for shard in _shards(plan):
            yield [_read(plan, shard)]
        return
    names = _shards(plan)
    counts = [
        pq.read_metadata(plan.dataset.table_path("captions", name, plan.of)).num_rows
        for name in names
    ]
    blocks: list[list[str]] = [[]]
    rows = 0
    for place, (name, count) in enumerate(zip(names, counts, strict=True)):
        blocks[-1].append(name)
        rows += count
        if rows >= BLOCK_ROWS and sum(counts[place + 1 :]) >= BLOCK_ROWS:
            blocks.append([])
            rows = 0
    for block in blocks:
        yield [_read(plan, name) for name in block]


def _read(plan: _Plan, shard: str) -> _Shard:
    rows = _of_kind(plan.dataset, shard, plan.of, plan.derivation.of)
    like: dict[str, str] = {}
    if plan.like and plan.dataset.has_shard("captions", shard, plan.like):
        assert plan.derivation.like is not None
        found = _accepted(_of_kind(plan.dataset, shard, plan.like, plan.derivation.like))
        # Backwards, so that the first of several samples stays.
        for row in reversed(found.to_pylist()):
            like[row["key"]] = row["text"]
    return _Shard(shard, rows, like)


def _of_kind(dataset: Dataset, shard: str, source: str, kind: str) -> pa.Table:
    rows = dataset.read_table("captions", shard, source, _COLUMNS)
    rows = rows.filter(pc.field("kind") == kind)
    return rows.sort_by([("key", "ascending"), ("sample_index", "ascending")])


def _accepted(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.field("status") == OK)


def _columns(plan: _Plan, block: Sequence[_Shard]) -> tuple[Columns, list[range]]:
    """The accepted captions of a block, and which of the rows are each shard's."""
    tables = [_accepted(one.rows) for one in block]
    whole = pa.concat_tables(tables)
    ends = [0]
    for table in tables:
        ends.append(ends[-1] + len(table))
    like: dict[str, str] = {}
    for one in block:
        like |= one.like
    keys, indices, texts = (
        whole.column(name).to_pylist() for name in ("key", "sample_index", "text")
    )
    columns = Columns(keys, indices, texts, like, plan.said)
    return columns, [range(*pair) for pair in pairwise(ends)]


def _summary(plan: _Plan, done: Mapping[str, int]) -> DerivedSet:
    dataset, source = plan.dataset, plan.source
    connection = dataset.connect(["captions"])
    counts, reasons = (
        _counted(
            connection.execute(
                f"SELECT {column}, count(*) FROM {dataset.scan('captions', source)} "
                f"WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
            ).fetchall()
        )
        for column in ("status", "reason")
    )
    changes: Counter[str] = Counter()
    for path in dataset.table_files("captions", source):
        found = noted_in(path, _NOTE)
        changes.update({name: found[name] for name in ("changed", "changeable")})
    if OK not in counts:
        told = ", ".join(f"{name} {count:,}" for name, count in reasons.items()) or "none is there"
        raise StageError(f"No caption of {plan.derivation.of} could be derived ({told}).")
    return DerivedSet(plan.name, source, counts, reasons, **done, **changes)


def _counted(rows: Sequence[Sequence[Any]]) -> dict[str, int]:
    return {str(name): int(count) for name, count in rows}
