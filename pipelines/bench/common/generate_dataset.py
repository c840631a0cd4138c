"""A generated dataset of any size: plausible tables, a few thousand real little pictures.

    python -m pipelines.bench.common.generate_dataset DIR --rows 1000000

Nothing is downloaded, decoded or scored: scores, hosts, failures, languages and duplicates are
drawn at random with the shapes and correlations that web data has, so that selecting, reporting and
searching can be tried at a size that the pictures of no test machine allow. A million rows take
about half a minute. Only the first shards, small ones, have tars: what shows pictures shows theirs.

Every value is SQL over the row's number: `u(row, 'what')` is the hash of both and the seed as a
number between 0 and 1. So the same settings give the same tables, and a copy can repeat what its
original drew.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from curate.base.arrow_columns import to_arrow
from curate.base.files import atomic_path
from curate.base.provenance import package_versions
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from curate.store.shards import write_shard

PICTURE_ROWS, ROWS_PER_SHARD = 500, 10_000
"""Rows of a shard with pictures, and of any other."""
SIDE = 64

# Reasons with their share of a living host's failures; a dead host fails with the first.
_FAILURES = (
    ("dns", 0.06, "Name or service not known"),
    ("http_404", 0.42, "HTTP 404 Not Found"),
    ("http_403", 0.11, "HTTP 403 Forbidden"),
    ("timeout", 0.09, "no byte for 10 s"),
    ("connection_refused", 0.03, "[Errno 111] Connection refused"),
    ("http_429", 0.02, "HTTP 429 Too Many Requests"),
    ("http_5xx", 0.04, "HTTP 503 Service Unavailable"),
    ("not_an_image", 0.06, "the bytes begin with '<!doctype html>'"),
    ("broken_image", 0.02, "image file is truncated (1031 bytes not processed)"),
    ("disallowed_by_header", 0.03, "X-Robots-Tag: noai, noimageai"),
    ("too_small", 0.09, "120 x 90"),
    ("aspect", 0.03, "970 x 90"),
)
# Share and a few words of each language: enough to look like a text, not meant to say much.
_LANGUAGES = (
    ("en", 0.65, "a photo of the old red house with garden blue dress vintage table dog beach new"),
    ("de", 0.1, "ein Foto von dem alten roten Haus mit Garten blaues Kleid Damen Holztisch Hund"),
    ("fr", 0.08, "une photo de la vieille maison rouge avec jardin robe bleue femme table en bois"),
    ("es", 0.07, "una foto de la casa roja con jardín vestido azul mujer mesa de madera perro en"),
    ("ru", 0.06, "фото старый красный дом сад синее платье женское деревянный стол собака пляж"),
    ("ja", 0.04, "赤い 古い 家 の 写真 庭 青い ドレス 木製 テーブル 犬 海岸 黒い 靴 山 湖 夜 街"),
)

_FRONTS = ("www", "cdn", "img1", "img2", "static", "media", "i", "assets")
_STEMS = ("garden", "photo", "shop", "travel", "recipe", "museum", "auto", "news", "wild", "pet")
_SUFFIXES = ("com", "org", "net", "de", "fr", "co.uk", "com.au", "ru", "co.jp", "com.br", "io")

_MACROS = """
CREATE MACRO draw(x, what) AS hash(x, what, getvariable('seed'));
CREATE MACRO u(x, what) AS ((draw(x, what) >> 11) + 0.5) / 9007199254740992;
CREATE MACRO pick(x, what, words) AS words[1 + (draw(x, what) % len(words))::INT];
-- The number of the first of the rising `ends` that a draw does not pass.
CREATE MACRO weighted(x, what, ends) AS
  1 + len(list_filter(ends, lambda ending: ending < u(x, what) * ends[-1]));
-- A normal of mean 0 and deviation 1 (Box and Muller).
CREATE MACRO normal(x, what) AS
  sqrt(-2 * ln(u(x, what))) * cos(2 * pi() * u(x, what || ' angle'));
-- Kumaraswamy's distribution: a beta's shapes with an inverse that can be written down.
CREATE MACRO skew(x, what, a, b) AS pow(1 - pow(1 - u(x, what), 1.0 / b), 1.0 / a);
CREATE MACRO clip(x, low, high) AS greatest(low, least(high, x));
-- CLIP's cosine: texts fit their picture or do not; models agree in part.
CREATE MACRO similarity(row, what, fitting, other, spread) AS
  if(u(row, 'fits') < 0.68, fitting, other)
  + spread * normal(row, 'common') + 0.017 * normal(row, what);
"""

# Whom a row copies, how, and how far it is from it; copies of copies there are none. With pictures
# both are in one shard, so that a report can show them side by side; among the others a few
# placeholders are copied very often.
_COPIES = """
CREATE TABLE copies AS
SELECT row, source, level,
  CASE level WHEN 1 THEN 0 WHEN 2 THEN floor(9 * u(row, 'bits'))
    ELSE 0.01 + 0.09 * u(row, 'cosine') END AS distance
FROM (
  SELECT range AS row, weighted(range, 'method', [0.5, 0.85, 1.0]) AS level, CASE
      WHEN range < $local
        THEN range - 1 - floor(u(range, 'back') * least(39, range % $picture_rows))
      WHEN u(range, 'popular') < 0.15 THEN $local + range % 97
      ELSE floor(u(range, 'source') * range) END::BIGINT AS source
  FROM range($rows) WHERE u(range, 'copy') < 0.1)
WHERE source >= 0 AND source < row AND u(source, 'copy') >= 0.1
  AND (row >= $local OR row % $picture_rows > 0)
"""

# An exact copy has the size of its original (`shown`). Few hosts are large and many small, about
# two of a domain; texts recur, with a number of their own behind them or without.
_WEB = """
CREATE TABLE web AS
WITH hosted AS (
  SELECT range AS row, source, level, if(level = 1, source, range) AS shown,
    floor(pow(pow(8, 0.1) + u(range, 'host') * (pow($hosts + 8, 0.1) - pow(8, 0.1)), 10) - 8)
      ::BIGINT AS host,
    draw(host, 'domain') % ($hosts // 2 + 1) AS domain,
    weighted(range, 'language', $shares) AS language, floor(4000 * u(range, 'text')) AS said
  FROM range($rows) LEFT JOIN copies ON row = range),
worded AS (
  SELECT *, host >= 20 AND u(host, 'dead') < 0.03 AS dead, normal(host, 'quality') AS liking,
    exp(6.6 + 0.55 * normal(shown, 'long')) AS long,
    abs(0.2 + 0.28 * normal(shown, 'short')) AS lean,
    list_transform(range(clip(ceil(ln(u(said, 'length')) / ln(0.84)), 1, 30)::INT),
      lambda place: pick(said * 30 + place, 'word', $words[language])) AS beginning
  FROM hosted),
sized AS (
  SELECT *, clip(long, 120, 6000) AS longer, longer / exp(least(lean, ln(3))) AS shorter,
    u(shown, 'tall') < 0.3 AS tall,
    if($languages[language] = 'ja', array_to_string(beginning, ''), array_to_string(beginning, ' '))
      AS words
  FROM worded)
SELECT row, source, level, liking, md5($seed::VARCHAR || ' ' || row) AS key,
  dead OR u(row, 'failed') < skew(host, 'failing', 1.12, 9.6) AS failed,
  if(dead, 1, weighted(row, 'why', $failures)) AS why, $languages[language] AS language,
  'https://' || pick(host, 'front', $fronts) || '.' || $stems[1 + (domain % 10)::INT] || '-'
    || domain || '.' || pick(domain, 'end', $suffixes) || '/pictures/' || row || '.jpg' AS url,
  CASE WHEN u(row, 'no text') < 0.02 THEN NULL WHEN u(row, 'recurs') < 0.4 THEN words
    ELSE words || ' ' || (draw(row, 'number') % 10000) END AS alt_text,
  if(tall, shorter, longer)::INT AS width, if(tall, longer, shorter)::INT AS height
FROM sized
"""

_SAMPLES = """
SELECT key, $shard AS shard, row, url, alt_text, if(failed, 'failed', 'stored') AS status,
  if(failed, $reasons[why], NULL) AS reason, if(failed, $details[why], NULL) AS detail,
  stored.* EXCLUDE (row)
FROM web LEFT JOIN (
  SELECT row, width AS original_width, height AS original_height,
    pick(row, 'format', ['jpeg', 'jpeg', 'jpeg', 'png', 'webp']) AS original_format,
    floor(width * height * (0.08 + 0.27 * u(row, 'bytes'))) AS original_bytes,
    greatest(1, floor(width * scale))::INT AS width,
    greatest(1, floor(height * scale))::INT AS height,
    'jpg' AS format, key || key AS sha256
  FROM (
    SELECT *, least(1, if($pictures, $side / greatest(width, height), 512 / least(width, height)))
      AS scale FROM web WHERE NOT failed)) AS stored USING (row)
WHERE row BETWEEN $first AND $last ORDER BY row
"""

_SCORES = """
SELECT key, if(undecodable, 'cannot identify image file', NULL) AS decode_error,
  if(undecodable, NULL, COLUMNS(* EXCLUDE (key, row, undecodable, language, text))::FLOAT),
  language AS text_language,
  (1 + length(text) - length(replace(text, ' ', '')))::INT AS text_words,
  length(text)::INT AS text_characters, u(row, 'file name') < 0.06 AS text_is_filename
FROM (
  SELECT key, row, language, coalesce(alt_text, '') AS text,
    u(row, 'undecodable') < 0.001 AS undecodable,
    similarity(row, 'L/14', 0.235, 0.13, 0.038) - foreigner AS clip_similarity,
    similarity(row, 'B/32', 0.29, 0.19, 0.035) - foreigner AS clip_similarity_b32,
    0.76 + 0.32 * ln(width * height) + 0.5 * liking + 0.62 * normal(row, 'looks') AS aesthetic,
    if(u(row, 'is nsfw') < 0.03, skew(row, 'nsfw', 5.1, 2.2), skew(row, 'nsfw', 0.53, 6.4)) AS nsfw,
    if(u(row, 'marked') < 0.12, skew(row, 'mark', 4.6, 1.6), skew(row, 'mark', 0.7, 4.5))
      AS watermark,
    greatest(width, height) / least(width, height) AS aspect_ratio,
    exp(5.4 + 1.1 * normal(row, 'blur') + 0.25 * liking) AS blur,
    skew(row, 'brightness', 3.2, 3.5) AS brightness,
    0.5 * skew(row, 'contrast', 3.06, 16) AS contrast,
    8 * skew(row, 'entropy', 7.7, 1.96) AS entropy,
    exp(3.3 + 0.6 * normal(row, 'colours')) AS colourfulness
  FROM (SELECT *, 0.02 * (language <> 'en')::INT AS foreigner FROM web)
  WHERE NOT failed AND row BETWEEN $first AND $last)
ORDER BY row
"""

# One pair a copy, with its original, which is the better one, where both are stored.
_PAIRS = """
CREATE TABLE pairs AS
SELECT copies.level, distance, one.key AS original, other.key AS copy
FROM copies JOIN web one ON one.row = copies.source JOIN web other ON other.row = copies.row
WHERE NOT one.failed AND NOT other.failed
"""
_DUPLICATE_PAIRS = """
SELECT $methods[level] AS method, least(original, copy) AS key_a, greatest(original, copy) AS key_b,
  distance
FROM pairs ORDER BY level, key_a, key_b
"""
_DUPLICATES = """
SELECT $methods[reach] AS method, * EXCLUDE (reach)
FROM (
  SELECT reach, copy AS key, original AS group, false AS kept, distance
  FROM pairs JOIN range(1, 4) AS levels(reach) ON level <= reach
  UNION SELECT reach, original, original, true, 0
  FROM pairs JOIN range(1, 4) AS levels(reach) ON level <= reach)
ORDER BY reach, "group", kept DESC, key
"""
METHODS = ["exact", "near", "embedding"]


@dataclass(frozen=True)
class Shape:
    """What to generate. `picture_shards` shards of 500 rows come first, with tars."""

    rows: int = 1_000_000
    picture_shards: int = 8
    embedding_width: int = 64
    seed: int = 0

    def shards(self) -> Iterator[tuple[str, int, int]]:
        """Name, first and last row of every shard."""
        start, number = 0, 0
        while start < self.rows:
            size = PICTURE_ROWS if number < self.picture_shards else ROWS_PER_SHARD
            stop = min(start + size, self.rows)
            yield f"{number:05d}", start, stop - 1
            start, number = stop, number + 1


def generate(directory: Path | str, shape: Shape | None = None) -> Dataset:
    """Write the dataset, or leave it as it is where the same shape was generated before.

    Raises:
        DatasetError: the directory holds something else.
    """
    shape = shape or Shape()
    record = {
        "settings": {"clip_model": "ViT-L-14-quickgelu", "clip_pretrained": "openai"},
        "versions": package_versions(),
        "weights": {},
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    dataset = Dataset.create(directory, {"generated": 3, **asdict(shape)}, record)
    if dataset.has_shard("duplicates"):
        return dataset
    with duckdb.connect() as connection:
        _draw(connection, shape)
        for name, first, last in shape.shards():
            _write_shard(connection, dataset, shape, name, first, last)
        methods = {"methods": METHODS}
        for table, query in (("duplicate_pairs", _DUPLICATE_PAIRS), ("duplicates", _DUPLICATES)):
            dataset.write_table(table, _table(connection, query, methods))
    return dataset


def _draw(connection: duckdb.DuckDBPyConnection, shape: Shape) -> None:
    """Make the tables `copies`, `web` and `pairs`."""
    connection.execute(f"SET VARIABLE seed = {shape.seed}")
    connection.execute(_MACROS)
    local = {"local": shape.picture_shards * PICTURE_ROWS, "picture_rows": PICTURE_ROWS}
    connection.execute(_COPIES, {"rows": shape.rows, **local})
    connection.execute(
        _WEB,
        {
            "rows": shape.rows,
            "hosts": max(40, shape.rows // 50),
            "seed": shape.seed,
            "shares": np.cumsum([share for _, share, _ in _LANGUAGES]).tolist(),
            "languages": [language for language, _, _ in _LANGUAGES],
            "words": [words.split() for _, _, words in _LANGUAGES],
            "failures": np.cumsum([share for _, share, _ in _FAILURES]).tolist(),
            "fronts": _FRONTS,
            "stems": _STEMS,
            "suffixes": _SUFFIXES,
        },
    )
    connection.execute(_PAIRS)


def _table(
    connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, object]
) -> pa.Table:
    return connection.sql(query, params=values).to_arrow_table()


def _write_shard(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    shape: Shape,
    name: str,
    first: int,
    last: int,
) -> None:
    pictures, span = int(name) < shape.picture_shards, {"first": first, "last": last}
    reasons, _, details = (list(column) for column in zip(*_FAILURES, strict=True))
    told = {"shard": name, "reasons": reasons, "details": details}
    samples = _table(connection, _SAMPLES, {**told, "pictures": pictures, "side": SIDE, **span})
    dataset.write_table("samples", samples, name)
    with atomic_path(dataset.input_path(name)) as temporary:
        pq.write_table(samples.select(["key", "url", "alt_text"]), temporary)
    scores = _table(connection, _SCORES, {**span})
    dataset.write_table("scores", scores, name)
    if width := shape.embedding_width:
        # A few hundred subjects, so that clusters of embeddings mean something.
        random = np.random.default_rng([shape.seed, first])
        vectors = subjects(width)[random.integers(0, 300, scores.num_rows)]
        vectors = vectors + random.normal(0, 0.7, vectors.shape)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        image = to_arrow(vectors.astype(np.float16), None, pa.list_(pa.float16()))
        columns = {"key": scores["key"], "image": image, "text": pa.nulls(len(image), image.type)}
        dataset.write_table("embeddings", pa.table(columns), name)
    if pictures:
        _write_pictures(connection, dataset, name, samples, first)


def _write_pictures(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    name: str,
    samples: pa.Table,
    first: int,
) -> None:
    """The tar of the shard, and what a captioner said of some of its pictures."""
    from pipelines.world.render import render
    from pipelines.world.scene import WorldConfig, sample_scenes
    from pipelines.world.writers import write_descriptive

    world = WorldConfig.small()
    scenes = sample_scenes(world, samples.num_rows, first)
    query = "SELECT row, source, level FROM copies WHERE row BETWEEN $first AND $last"
    span = {"first": first, "last": first + samples.num_rows - 1}
    copies = {row: rest for row, *rest in connection.execute(query, span).fetchall()}
    stored = [row for row in samples.to_pylist() if row["status"] == "stored"]
    # A copy shows the picture of its original; only an exact one is as bright.
    sources = [copies.get(row["row"], (row["row"], 1)) for row in stored]
    pixels = render([scenes[source - first] for source, _ in sources], world, SIDE)
    members, captions = [], []
    for row, (source, level), shown in zip(stored, sources, pixels, strict=True):
        picture = Image.fromarray(shown)
        if level > 1:
            light = 0.8 + (row["row"] - source) % 5 / 10
            picture = picture.point(lambda value, light=light: value * light)
        buffer = io.BytesIO()
        picture.resize((row["width"], row["height"])).save(buffer, "JPEG", quality=88)
        members.append((row["key"], {"jpg": buffer.getvalue()}))
    write_shard(dataset.shard_path(name), members)
    texts = write_descriptive(scenes, first)
    for row in stored[::4]:
        text = texts[row["row"] - first]
        captions.append(
            dict.fromkeys(CAPTIONS.names)
            | {"key": row["key"], "kind": "descriptive", "sample_index": 0, "text": text}
            | {"raw_text": text, "status": "ok", "flags": [], "engine": "generated"}
            | {"model": "generated", "words": len(text.split())}
        )
    table = pa.Table.from_pylist(captions, schema=CAPTIONS)
    dataset.write_table("captions", table, name, "generated")


def subjects(width: int) -> NDArray[np.float64]:
    """(300, width): what the embeddings of all generated datasets lie around."""
    return np.random.default_rng(7).normal(0, 1, (300, width))


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(directory: Path, rows: int, seed: int) -> None:
    """Generate a dataset of ROWS rows in DIRECTORY."""
    generate(directory, Shape(rows=rows, seed=seed))
    click.echo(f"{rows:,} generated rows in {directory}")


if __name__ == "__main__":
    main()
