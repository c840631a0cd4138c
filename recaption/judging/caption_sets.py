"""Which sets of captions a dataset holds, and the pictures on which they are compared.

A set is what one source wrote of one kind: the descriptive captions of one captioner, or the alt
texts. Sets are compared on the same pictures, chosen by a hash of the key, so every set has the
same number of captions and no measure that grows with their number favours the smaller set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError, DatasetError
from curate.base.kinds import HUMAN
from curate.base.settings import nearest
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan
from recaption.captioning.alt_texts import ALT
from recaption.captioning.ask import OK

_KIND_ORDER = (ALT, "short", "descriptive")
SIMILARITIES = ("clip_similarity", "clip_sentence_mean")
# What a sampled caption brings along from its row.
COLUMNS = ("text", "clip_tokens", "t5_tokens", *SIMILARITIES)


@dataclass(frozen=True, order=True)
class CaptionSet:
    """The captions of one source and kind."""

    source: str
    kind: str

    @property
    def name(self) -> str:
        """How the set is called: SOURCE/KIND, or "alt"."""
        return ALT if self.source == self.kind == ALT else f"{self.source}/{self.kind}"

    @property
    def is_human(self) -> bool:
        """Whether these are the web's own texts."""
        return self.source == ALT

    @property
    def is_of_people(self) -> bool:
        """Whether people wrote, imported or marked them here."""
        return self.kind == HUMAN


@dataclass(frozen=True)
class CaptionSample:
    """Captions of several sets, one a picture and set.

    Attributes:
        keys: N keys in the order of their hash; with `shared` False empty, because then each set
            has its own.
        tables: set -> table with `key` and COLUMNS, N rows in the same order.
        shared: whether all sets tell of the same pictures. Where no picture has a caption of every
            set, each set is sampled on its own, to equal size, and nothing is paired.
        candidates: pictures that could have been chosen.
    """

    keys: tuple[str, ...]
    tables: dict[CaptionSet, pa.Table]
    shared: bool
    candidates: int

    def texts(self, one: CaptionSet) -> list[str]:
        """The N captions of a set."""
        found: list[str] = self.tables[one].column("text").to_pylist()
        return found


def find_sets(
    dataset: Dataset, sources: Sequence[str] = (), kinds: Sequence[str] = ()
) -> list[CaptionSet]:
    """The sets of a dataset: alt texts first, then short, descriptive and others by name.

    Args:
        sources, kinds: only these; all where none is named.

    Raises:
        ConfigError: a source or kind that is not there.
        DatasetError: there are no captions at all.
    """
    every = []
    for source in dataset.caption_sources():
        rows = dataset_view(dataset, source).execute("SELECT DISTINCT kind FROM rows").fetchall()
        every += [CaptionSet(source, str(kind)) for (kind,) in rows]
    if not every:
        raise DatasetError(f"{dataset.directory} holds no captions yet.")
    for given, known, what in (
        (sources, sorted({one.source for one in every}), "Nobody called"),
        (kinds, sorted({one.kind for one in every}), "Nobody wrote captions of kind"),
    ):
        for name in given:
            if name not in known:
                verb = "wrote captions here" if what == "Nobody called" else "here"
                raise ConfigError(f"{what} {name!r} {verb}; {nearest(name, known)}")
    chosen = [
        one
        for one in every
        if (not sources or one.source in sources) and (not kinds or one.kind in kinds)
    ]
    if not chosen:
        raise ConfigError(
            f"No captions are both by {', '.join(sources)} and of kind {', '.join(kinds)} "
            f"(there are {', '.join(one.name for one in sorted(every))})."
        )
    return sorted(chosen, key=_order)


def find_set(sets: Sequence[CaptionSet], name: str) -> CaptionSet:
    """The set that `name` means: SOURCE/KIND, or a source or kind that only one set has.

    Raises:
        ConfigError: none or several.
    """
    meant = [one for one in sets if one.name == name]
    meant = meant or [one for one in sets if name in (one.source, one.kind)]
    if len(meant) == 1:
        return meant[0]
    names = [one.name for one in sets]
    if meant:
        raise ConfigError(
            f"{name!r} means several caption sets; say which of "
            f"{', '.join(one.name for one in meant)}."
        )
    raise ConfigError(f"There is no caption set {name!r}; {nearest(name, names)}")


def dataset_view(dataset: Dataset, source: str) -> duckdb.DuckDBPyConnection:
    """A connection with the view `rows`: the captions of one source, all declared columns."""
    connection = duckdb.connect()
    add_view(connection, dataset, source, "rows")
    return connection


def add_view(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    source: str,
    name: str,
    scored: bool = False,
) -> None:
    """Create the view `name` over the captions of one source.

    Files of an earlier contract lack columns that were added since; they read as null.

    Args:
        scored: fill similarities that the captions do not tell from the table caption_scores,
            where it scored this very text, and those of alt texts from the table scores.
    """
    connection.register("_declared", CAPTIONS.empty_table())
    sql = (
        f"SELECT * FROM {dataset.scan('captions', source, union_by_name=True)} "
        "UNION ALL BY NAME SELECT * FROM _declared"
    )
    if scored and (files := dataset.table_files("caption_scores", source)):
        filled = ", ".join(f"coalesce(c.{one}, s.{one}) AS {one}" for one in SIMILARITIES)
        sql = (
            f"SELECT c.* REPLACE ({filled}) FROM ({sql}) c "
            f"LEFT JOIN {parquet_scan(files, union_by_name=True)} s "
            "ON s.key = c.key AND s.kind = c.kind AND s.sample_index = c.sample_index "
            "AND s.text_sha256 = left(sha256(c.text), 16)"
        )
    if scored and source == ALT and "clip_similarity" in _score_columns(dataset):
        # A sample's own score is of its alt text, which is the first of its texts.
        sql = (
            "SELECT c.* REPLACE (coalesce(c.clip_similarity, s.clip_similarity) AS "
            f"clip_similarity) FROM ({sql}) c LEFT JOIN {dataset.scan('scores')} s "
            "ON s.key = c.key AND c.sample_index = 0"
        )
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")


def _score_columns(dataset: Dataset) -> list[str]:
    shards = [shard for shard in dataset.shards() if dataset.has_shard("scores", shard)]
    # One run scores them all, so the first shard's columns are those of every shard.
    return pq.read_schema(dataset.table_path("scores", shards[0])).names if shards else []


def sample_captions(
    dataset: Dataset,
    sets: Sequence[CaptionSet],
    count: int,
    seed: int = 0,
    among: pa.Array | None = None,
) -> CaptionSample:
    """At most `count` pictures, with one accepted caption of each set (the lowest sample index).

    Args:
        among: keys to choose from; all by default.

    Memory and time: DuckDB intersects the sets' keys and may spill; only the chosen captions come
    back.
    """
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    for number, one in enumerate(sets):
        add_view(connection, dataset, one.source, f"source_{number}")
        add_view(connection, dataset, one.source, f"scored_{number}", scored=True)
    if among is not None:
        connection.register("among", pa.table({"key": among}))
    parameters = {f"kind_{number}": one.kind for number, one in enumerate(sets)}

    def keys_of(number: int) -> str:
        limit = "" if among is None else " AND key IN (SELECT key FROM among)"
        return (
            f"SELECT DISTINCT key FROM source_{number} "
            f"WHERE kind = $kind_{number} AND status = '{OK}'{limit}"
        )

    def choose(sql: str, number: int | None, limit: int) -> int:
        used = {
            name: kind
            for name, kind in parameters.items()
            if number is None or name == f"kind_{number}"
        }
        connection.execute(f"CREATE OR REPLACE TEMP TABLE able AS {sql}", used)
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE chosen AS "
            "SELECT key, row_number() OVER (ORDER BY mark, key) AS place FROM "
            "(SELECT key, md5(key || $seed) AS mark FROM able ORDER BY mark, key LIMIT $count)",
            {"seed": str(seed), "count": limit},
        )
        ((found,),) = connection.execute("SELECT count(*) FROM able").fetchall()
        return int(found)

    def read(number: int) -> pa.Table:
        columns = ", ".join(COLUMNS)
        return connection.sql(
            f"SELECT key, {columns} FROM (SELECT key, {columns}, sample_index, place "
            f"FROM scored_{number} JOIN chosen USING (key) "
            f"WHERE kind = $kind AND status = '{OK}') "
            "QUALIFY row_number() OVER (PARTITION BY key ORDER BY sample_index) = 1 ORDER BY place",
            params={"kind": sets[number].kind},
        ).to_arrow_table()

    both = " INTERSECT ".join(f"({keys_of(number)})" for number in range(len(sets)))
    candidates = choose(both, None, count)
    if candidates:
        tables = {one: read(number) for number, one in enumerate(sets)}
        keys = tuple(tables[sets[0]].column("key").to_pylist())
        return CaptionSample(keys, tables, True, candidates)
    sizes = {}
    for number, one in enumerate(sets):
        sizes[one] = choose(f"SELECT DISTINCT key FROM ({keys_of(number)})", number, 0)
    size = min([count, *(size for size in sizes.values() if size)])
    tables = {}
    for number, one in enumerate(sets):
        choose(f"SELECT DISTINCT key FROM ({keys_of(number)})", number, size)
        tables[one] = read(number)
    return CaptionSample((), tables, len(sets) == 1, max(sizes.values()))


def _order(one: CaptionSet) -> tuple[int, str, str]:
    place = _KIND_ORDER.index(one.kind) if one.kind in _KIND_ORDER else len(_KIND_ORDER)
    return place, one.kind, one.source
