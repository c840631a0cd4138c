"""Texts from files, taken into a dataset as captions of kind `human`, shard by shard.

The source imported-NAME says what its files say, no more and no less: a rerun after the files have
changed makes it so again. Each shard's table notes what it was made from, so a killed run goes on,
and a run with nothing new writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from curate.base.column_marks import note, noted_in
from curate.base.errors import ConfigError, DatasetError
from curate.base.files import atomic_path, fingerprint, read_record, write_json
from curate.base.progress import progress
from curate.base.provenance import provenance
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.contract import CAPTIONS, IMPORTED_FROM
from curate.store.dataset import Dataset
from curate.store.dataset_card import write_dataset_card
from curate.store.holes import note_finished
from curate.store.lock import writing
from recaption.human.match import Match, Matches, matched
from recaption.human.read import TextsGiven, look_at_texts
from recaption.human.rows import HumanCaption, human_rows, source_of
from recaption.human.settings import ImportSettings
from recaption.measure.token_counts import CACHED, TokenCounter

# Raised where equal files give other captions than before.
VERSION = 1
_NOTE = b"caplab_imported"
_SHOWN = 3


@dataclass(frozen=True)
class Imported(Summary):
    """What was taken in.

    Attributes:
        given: text files, and rows of lists.
        stored: pictures of the dataset.
        left_out: reason -> those of the given that became no caption.
        examples: place, reason and detail of the first of them.
        listed: the file that names them all.
        written, kept: shards made now, and found as they should be.
        shown: the first captions, of a rehearsal.
    """

    source: str
    given: int
    captions: int
    pictures: int
    stored: int
    left_out: Mapping[str, int]
    examples: Sequence[Mapping[str, Any]] = ()
    listed: Path | None = None
    written: int = 0
    kept: int = 0
    shown: Sequence[Match] = field(default_factory=list)

    def text(self) -> str:
        """What the command prints."""
        lines = [
            f"{amount(self.captions, 'human caption')} of {amount(self.pictures, 'picture')}, from "
            f"{amount(self.given, 'text')} ({self.source})",
            *(f"{match.key}  {match.place}: {_short(match.texts[0])}" for match in self.shown),
        ]
        if self.left_out:
            told = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            where = f"; {self.listed} lists them" if self.listed else ""
            lines.append(f"{amount(sum(self.left_out.values()), 'text')} left out: {told}{where}")
            for one in self.examples:
                lines.append(f"  {one['place']}: {one['reason']} ({one['detail'] or 'no text'})")
        own = "has" if self.pictures == 1 else "have"
        lines.append(f"{self.pictures:,} of {amount(self.stored, 'stored picture')} {own} one")
        if self.written or self.kept:
            lines.append(f"{amount(self.written, 'shard')} written, {self.kept:,} there before")
        return "\n  ".join(lines)


def import_captions(
    directory: Path | str, texts: str, settings: ImportSettings, dry_run: bool = False
) -> Imported:
    """Take texts in files into a dataset, each as a caption of its picture.

    Args:
        texts: a folder of .txt files, or a list; local, or s3:// and the like.
        dry_run: match and count, store nothing.

    Raises:
        ConfigError: `texts` is no such thing, or fits no picture; or the name stands for others.
        DatasetError: there is no dataset, or somebody else writes there.
    """
    dataset = Dataset.open(directory)
    if not dataset.has_table("samples"):
        raise DatasetError(f"{dataset.directory} has no samples yet.")
    given = look_at_texts(texts, settings.text_column, settings.encoding)
    source = source_of(IMPORTED_FROM, settings.name or given.name)
    _refuse_another(dataset, source, given)
    if dry_run:
        with matched(dataset, given) as matches:
            return _counted(dataset, source, matches)
    with writing(dataset.directory, f"captions/{source}"), matched(dataset, given) as matches:
        found = _counted(dataset, source, matches)
        return _store(dataset, source, given, settings, matches, found)


def _store(
    dataset: Dataset,
    source: str,
    given: TextsGiven,
    settings: ImportSettings,
    matches: Matches,
    found: Imported,
) -> Imported:
    record = provenance(settings, {}) | {"texts": given.address}
    write_json(dataset.directory / "captioners" / f"{source}.json", record)
    listed = dataset.directory / "captioners" / f"{source}.left_out.jsonl"
    with atomic_path(listed) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for one in matches.each_left_out():
            file.write(json.dumps(one, ensure_ascii=False) + "\n")
    tokens = TokenCounter(CACHED)
    tokens.open()
    told = matches.shards()
    before = [path.stem for path in dataset.table_files("captions", source)]
    written = 0
    shards = sorted({*told, *before})
    with progress(len(shards), f"{source}", "shard") as bar:
        for shard in shards:
            written += _write(dataset, source, shard, matches.of(shard), tokens)
            bar.update()
    note_finished(dataset, f"captions/{source}")
    write_dataset_card(dataset)
    counts = {"written": written, "kept": len(shards) - written, "listed": listed}
    return Imported(**{**vars(found), **counts, "shown": []})


def _write(
    dataset: Dataset, source: str, shard: str, texts: Sequence[Match], tokens: TokenCounter
) -> bool:
    """Make a shard's table what the files say; whether it was not."""
    stamp = fingerprint([VERSION, [[one.key, list(one.texts)] for one in texts]])
    path = dataset.table_path("captions", shard, source)
    if noted_in(path, _NOTE).get("stamp") == stamp:
        return False
    placed = {
        (one.key, index): HumanCaption(one.key, text, index, found_in=one.place)
        for one in texts
        for index, text in enumerate(one.texts)
    }
    rows = human_rows(placed, tokens).cast(CAPTIONS)
    marked = rows.replace_schema_metadata(note({"stamp": stamp}, _NOTE))
    dataset.write_table("captions", marked, shard, source)
    return True


def _counted(dataset: Dataset, source: str, matches: Matches) -> Imported:
    """What was found; the first texts of the first shard, for a rehearsal.

    Raises:
        ConfigError: nothing fits.
    """
    counts, left_out = matches.counts(), matches.left_out()
    examples = list(islice(matches.each_left_out(), _SHOWN))
    if not counts["pictures"]:
        told = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        first = f"; first {examples[0]['place']}: {examples[0]['detail']}" if examples else ""
        raise ConfigError(
            f"No text is of a picture in {dataset.directory} ({told or 'no text'}{first})."
        )
    return Imported(
        source,
        given=counts["given"],
        captions=counts["captions"],
        pictures=counts["pictures"],
        stored=counts["stored"],
        left_out=left_out,
        examples=examples,
        shown=matches.of(matches.shards()[0])[:_SHOWN],
    )


def _refuse_another(dataset: Dataset, source: str, given: TextsGiven) -> None:
    """One name is one place: another's texts would go without a word."""
    path = dataset.directory / "captioners" / f"{source}.json"
    if path.exists() and (known := read_record(path).get("texts")) != given.address:
        raise ConfigError(
            f"{source} holds the texts of {known}, and these are of {given.address}; choose "
            f"another --name."
        )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
