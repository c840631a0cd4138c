"""From a list of prompts to a Parquet file of rewrites: durable parts, resumed by prompt hash."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from curate.base.errors import ConfigError, DatasetError, StageError
from curate.base.files import atomic_path, remove_leftovers
from curate.base.progress import counted, progress
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.store.lock import hold
from recaption.captioning.collapse import Acceptance, Tally
from recaption.captioning.drafts import FAILED, OK
from recaption.prompts.file import ListedPrompt, read_prompts
from recaption.upsample.rewrite import UPSAMPLED, Upsampler
from recaption.upsample.settings import UpsampleSettings

_IDENTITY = b"caption-lab.upsample"


@dataclass(frozen=True)
class UpsampleReport(Summary):
    """What a run made. `counts`: rows by status, and by status and reason."""

    out: Path
    counts: dict[str, int]
    kept: int
    """Prompts that an earlier run had rewritten."""

    def text(self) -> str:
        """A few lines for a person."""
        lines = [f"{name:24} {count:>9,}" for name, count in self.counts.items()]
        return "\n".join([f"upsampled prompts: {self.out}", *lines, f"{'kept':24} {self.kept:>9,}"])


def upsample(source: Path, out: Path, settings: UpsampleSettings) -> UpsampleReport:
    """Rewrite every prompt of a list; one row a listed row in `out`, in the list's order.

    Equal prompts are asked once. A killed run continues with what its parts lack, and a longer list
    with what `out` lacks.

    Raises:
        ConfigError: the list or a setting is wrong.
        DatasetError: `out` was made with other settings.
        StageError: nothing is accepted any more (`stop_after_unaccepted`), or nothing was at all.
            What was written stays, and the same call asks again for what was not accepted since.
    """
    if out.suffix != ".parquet":
        raise ConfigError(f"--out must name a .parquet file; {out} does not.")
    listed = read_prompts(source, settings.prompt_column)
    upsampler = Upsampler(settings)
    with hold(out.parent, [out.name]):
        remove_leftovers(out.parent, out.name)
        return _upsample(listed, upsampler, out, settings)


def _upsample(
    listed: list[ListedPrompt], upsampler: Upsampler, out: Path, settings: UpsampleSettings
) -> UpsampleReport:
    parts = _Parts(out, upsampler.identity)
    done = parts.load(settings.retry_failed)
    missing = {row.sha256: row.prompt for row in listed if row.prompt is not None}
    kept = len(missing.keys() & done.keys())
    prompts = [prompt for sha256, prompt in missing.items() if sha256 not in done]
    acceptance = Acceptance(settings.stop_after_unaccepted)
    step = min(settings.part_rows, settings.stop_after_unaccepted or settings.part_rows)
    with progress(len(missing), "upsample", "prompt", initial=kept) as bar:
        for start in range(0, len(prompts), step):
            asked = [p for p in prompts[start : start + step] if p]
            end = bar.n + len(asked)  # what is asked again counts once
            with counted(partial(_count, bar, end)):
                rows = upsampler.rewrite(asked)
            bar.update(end - bar.n)
            parts.add(rows)
            done |= _by_hash(rows)
            acceptance.add(Tally.of(rows))
            if acceptance.collapsed:
                raise StageError(acceptance.sentence("prompt"))
    table = _in_order(listed, done)
    parts.finish(table)
    if acceptance.fruitless:
        raise StageError(acceptance.sentence("prompt"))
    return UpsampleReport(out, _counts(table), kept)


def _count(bar: tqdm[Any], end: float, rows: float) -> None:
    bar.update(min(rows, end - bar.n))


def dry_run(source: Path, settings: UpsampleSettings, count: int) -> str:
    """Rewrite the first `count` prompts and say how fast it went, with the texts; writes nothing.

    Raises:
        ConfigError: as `upsample`.
    """
    listed = read_prompts(source, settings.prompt_column)
    distinct = dict.fromkeys(row.prompt for row in listed if row.prompt is not None)
    prompts = list(distinct)[:count]
    if not prompts:
        raise ConfigError(f"The prompt list {source} holds no prompts.")
    upsampler = Upsampler(settings)
    upsampler.opened()
    started = time.perf_counter()
    rows = upsampler.rewrite(prompts).to_pylist()
    seconds = time.perf_counter() - started
    accepted = sum(row["text"] is not None for row in rows)
    lines = [
        f"{amount(len(rows), 'prompt')} in {seconds:.1f} s, {accepted / len(rows):.0%} accepted; "
        f"all {len(distinct):,} take about {len(distinct) * seconds / len(rows) / 3600:.2f} hours"
    ]
    for row in rows:
        marks = ", ".join(row["flags"]) or "no flags"
        said = row["text"] if row["text"] is not None else row["raw_text"] or row["detail"] or ""
        lines += ["", f"{row['status']} ({marks})", f"  {row['prompt']}", f"  {said}"]
    return "\n".join(lines)


class _Parts:
    """The finished file and, until there is one, the parts beside it."""

    def __init__(self, out: Path, identity: str) -> None:
        self._out = out
        self._identity = identity
        # Other settings have other parts, so that no part is ever read by a run that did not make
        # its like.
        self._folder = out.parent / f".{out.name}.{identity}.parts"

    def load(self, without_failed: bool) -> dict[str, dict[str, Any]]:
        """Rows written so far, by prompt hash; the newest of each.

        Without the last parts in which nothing was accepted, what the part before them did not
        accept, and a whole file of such rows: the captioner may have been at fault, and is asked
        again.

        Args:
            without_failed: leave out what failed in the finished file.

        Raises:
            DatasetError: the finished file is of other settings, or no such file.
        """
        done: dict[str, dict[str, Any]] = {}
        if self._out.exists():
            try:
                found = (pq.read_schema(self._out).metadata or {}).get(_IDENTITY, b"").decode()
                table = pq.read_table(self._out)
            except (OSError, pa.ArrowException) as error:
                raise DatasetError(f"{self._out} cannot be read ({error}).") from error
            if found != self._identity:
                raise DatasetError(
                    f"{self._out} was made by another captioner or with other settings; name "
                    f"another --out."
                )
            if without_failed:
                table = table.filter(pc.field("status") != FAILED)
            if OK in table.column("status").to_pylist():
                done |= _by_hash(table)
        parts = [pq.read_table(path) for path in sorted(self._folder.glob("[0-9]*.parquet"))]
        before = len(parts)
        while parts and OK not in parts[-1].column("status").to_pylist():
            parts.pop()
        if parts and len(parts) < before:
            parts[-1] = parts[-1].filter(pc.field("status") == OK)
        for part in parts:
            done |= _by_hash(part)
        return done

    def add(self, rows: pa.Table) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.stem) for path in self._folder.glob("[0-9]*.parquet")]
        with atomic_path(self._folder / f"{max(numbers, default=-1) + 1:06d}.parquet") as temporary:
            pq.write_table(rows, temporary)

    def finish(self, table: pa.Table) -> None:
        marked = table.replace_schema_metadata({_IDENTITY: self._identity.encode()})
        with atomic_path(self._out) as temporary:
            pq.write_table(marked, temporary)
        shutil.rmtree(self._folder, ignore_errors=True)


def _by_hash(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["prompt_sha256"]: row for row in table.to_pylist() if row["prompt_sha256"]}


def _in_order(listed: list[ListedPrompt], done: dict[str, dict[str, Any]]) -> pa.Table:
    rows = []
    for number, row in enumerate(listed):
        if row.sha256 is None:
            found: dict[str, Any] = {"status": FAILED, "reason": row.reason, "flags": []}
        else:
            found = done[row.sha256]
        rows.append({**found, "row": number})
    return pa.Table.from_pylist(rows, schema=UPSAMPLED)


def _counts(table: pa.Table) -> dict[str, int]:
    statuses = table.column("status").to_pylist()
    counts = Counter(statuses)
    for status, reason in zip(statuses, table.column("reason").to_pylist(), strict=True):
        if reason is not None:
            counts[f"{status}:{reason}"] += 1
    return dict(sorted(counts.items()))
