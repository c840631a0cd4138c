"""Search a dataset's pictures by a text, by a stored picture or by a file.

    found = search("data/mine", SearchSettings(text="a red bicycle", count=50))
    for hit in found.hits: print(hit.similarity, hit.key, hit.text, hit.url)

`Searcher` keeps the index and the model for further questions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.base.duplicate_methods import METHODS
from curate.base.errors import ConfigError
from curate.base.reasons import printable
from curate.base.telling.summaries import Summary
from curate.base.telling.words import amount
from curate.duplicates.candidates.vectors import Floats
from curate.search.clip_query import ClipQuery, read_picture
from curate.search.index import open_index
from curate.search.passing import passing_rows
from curate.search.settings import SearchSettings
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan

_TEXT_SHOWN = 60


@dataclass(frozen=True)
class Hit:
    """A sample that was found.

    Attributes:
        similarity: cosine, -1 to 1: about 0.2 to 0.35 between a text and a picture that fits.
        copy_of: the key of a better hit, or of the picture asked for, that this is a copy of by
            duplicate search; None where it is none's.
        text: its alt text.
    """

    key: str
    similarity: float
    copy_of: str | None
    text: str | None
    url: str | None


@dataclass(frozen=True)
class Ranked:
    """What was found, before its texts are read: rows of the index, keys, and so on as in `Hit`."""

    rows: NDArray[np.int64]
    keys: list[str]
    similarity: NDArray[np.float32]
    copy_of: list[str | None]
    among: int

    def hits(self) -> Iterator[tuple[str, float, str | None]]:
        """Key, similarity and copy_of, best first."""
        return zip(self.keys, map(float, self.similarity), self.copy_of, strict=True)


@dataclass(frozen=True)
class Found(Summary):
    """The hits, best first, and among how many pictures they were looked for.

    `unread`: tokens at the end of the text that the model did not read; see `words_unread`.
    """

    hits: tuple[Hit, ...]
    among: int
    unread: int = 0

    def text(self) -> str:
        """A line a hit."""
        lines = [f"{len(self.hits):,} of {amount(self.among, 'picture')}"]
        for hit in self.hits:
            text = printable(hit.text or "")
            text = text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"
            copy = "  (a copy)" if hit.copy_of else ""
            url = printable(hit.url or "")
            lines.append(f"{hit.similarity:6.3f}  {hit.key}  {text:<{_TEXT_SHOWN}}  {url}{copy}")
        return "\n".join(lines)

    def jsonl(self) -> str:
        """A JSON object a hit and line."""
        return "\n".join(json.dumps(asdict(hit)) for hit in self.hits)


def search(directory: Path | str, settings: SearchSettings) -> Found:
    """Search once; see `Searcher` for the errors and what it costs."""
    searcher = Searcher(Dataset.open(directory), settings.clip, settings.device)
    key, unread = None, 0
    if settings.text is not None:
        query, unread = searcher.model.text(settings.text)
    else:
        like = str(settings.like)
        key = like if searcher.has(like) else None
        query = searcher.of(like) if key else searcher.model.picture(read_picture(Path(like)))
    found = searcher.nearest(query, settings.count, settings.where, settings.selection, key)
    return replace(found, unread=unread)


def words_unread(unread: int) -> str:
    """A sentence on a text that is longer than the model reads; empty where it is not."""
    return (
        f"The text is longer than this CLIP reads: its last {unread:,} "
        f"{'token' if unread == 1 else 'tokens'} did not count."
        if unread
        else ""
    )


class Searcher:
    """The index of one dataset and one CLIP model. Threads may share it.

    Making one opens the index, and builds it where the embeddings changed (curate.search.index has
    the cost). `model` turns texts and pictures into queries, and loads CLIP when it has to.

    Raises:
        ConfigError: no CLIP model of that label.
        DatasetError: no embeddings, or another process builds the index at this moment.
    """

    def __init__(
        self,
        dataset: Dataset,
        label: str | None = None,
        device: str = "auto",
        rule_seconds: float | None = None,
    ) -> None:
        """`rule_seconds`: that a rule which filters may take; None sets no limit."""
        self.dataset, self._rule_seconds = dataset, rule_seconds
        self.index = open_index(dataset, label)
        self.model = ClipQuery(dataset, label, device)

    def has(self, key: str) -> bool:
        """Whether `key` is an embedded sample's."""
        return self.index.vectors.row_of(key) is not None

    def of(self, key: str) -> Floats:
        """(D,) embedding of a stored picture.

        Raises:
            ConfigError: no sample has that key, or its picture has no embedding.
        """
        row = self.index.vectors.row_of(key)
        vector = None if row is None else self.index.vectors.take(np.array([row]))[0]
        if vector is None or np.isnan(vector[0]):
            raise ConfigError(f"No stored picture with an embedding has the key {printable(key)}.")
        return vector

    def nearest(
        self,
        query: Floats,
        count: int,
        where: str = "true",
        selection: str | None = None,
        key: str | None = None,
    ) -> Found:
        """`ranked`, with the texts and URLs of what was found."""
        ranked = self.ranked(query, count, where, selection, key)
        shards = self.index.shards_of(ranked.rows)
        texts = _texts(self.dataset, shards, ranked.keys)
        hits = (
            Hit(found, similarity, copy_of, *texts.get(found, (None, None)))
            for found, similarity, copy_of in ranked.hits()
        )
        return Found(tuple(hits), ranked.among)

    def ranked(
        self,
        query: Floats,
        count: int,
        where: str = "true",
        selection: str | None = None,
        key: str | None = None,
    ) -> Ranked:
        """The `count` pictures nearest to `query` (D,).

        Args:
            where, selection: only samples that pass; fewer than `count` only where fewer pass.
            key: of the picture that is asked for, which is not among its own hits.

        Raises:
            ConfigError: the rule is wrong, or there is no such selection.
        """
        starts, total = self.index.starts, len(self.index)
        seconds = self._rule_seconds
        among = passing_rows(self.dataset, starts, total, where, selection, seconds)
        rows, similarity = self.index.nearest(query, count + (key is not None), among)
        keys = self.index.vectors.keys(rows)
        kept = [place for place, found in enumerate(keys) if found != key][:count]
        keys = [keys[place] for place in kept]
        groups = _groups(self.dataset, [*([key] if key else []), *keys])
        first = {groups[key]: key} if key in groups else {}
        copies = []
        for found in keys:
            group = groups.get(found)
            leader = first.setdefault(group, found) if group else found
            copies.append(None if leader == found else leader)
        many = total if among is None else int(among.sum())
        return Ranked(rows[kept], keys, similarity[kept], copies, many)


def _texts(
    dataset: Dataset, shards: Sequence[str], keys: Sequence[str]
) -> dict[str, tuple[str | None, str | None]]:
    """Key -> alt text and URL. Reads the hits' shards alone."""
    import duckdb

    if not keys:
        return {}
    scan = parquet_scan([dataset.table_path("samples", shard) for shard in shards])
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        rows = connection.execute(
            f"SELECT key, alt_text, url FROM {scan} WHERE key IN (SELECT unnest($1))", [list(keys)]
        ).fetchall()
    return {key: (text, url) for key, text, url in rows}


def _groups(dataset: Dataset, keys: Sequence[str]) -> dict[str, str]:
    """Key -> its group of copies, by the widest search that was made; of those that are in one."""
    import duckdb

    if not keys or not dataset.has_table("duplicates"):
        return {}
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        rows = connection.execute(
            f'SELECT method, key, "group" FROM {dataset.scan("duplicates")} '
            "WHERE key IN (SELECT unnest($1))",
            [list(keys)],
        ).fetchall()
    found: dict[str, dict[str, str]] = {method: {} for method in METHODS}
    for method, key, group in rows:
        if method in found:
            found[method][key] = group
    # Levels are cumulative: a wider one knows all that a narrower one does.
    return {key: group for method in METHODS for key, group in found[method].items()}
