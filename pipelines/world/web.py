"""A synthetic web: picture files of many kinds, a list of URLs, and the truth about every row.

`build_web` writes, in one directory,

- `pictures/...`       JPEG, PNG and WebP files of 96 to 160 px (served by `serve`),
- `urls.parquet`       url, alt_text: all that a curator sees,
- `truth.parquet`      one row a URL, in the same order: see `TRUTH_SCHEMA`.

Rows are drawn without repeating a scene (offsets and mirroring apart), so whatever shows the same
thing twice is a declared duplicate. No picture shows a pair that the world holds out. Paths do not
tell what a row is.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from curate.base.progress import progress
from pipelines.world.defects import NEAR, UGLY, Picture, sticker
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.writers import AltKind, AltText, write_alt

SHARES: dict[str, float] = {
    "none": 0.60,
    "mismatched_text": 0.10,
    "weak_text": 0.08,
    "near_duplicate": 0.05,
    "exact_duplicate": 0.03,
    "ugly": 0.05,
    "unsafe": 0.03,
    "too_small": 0.02,
    "broken": 0.02,
    "dead_link": 0.02,
}
"""Share of the rows with each defect; a row has one. "none" is clean."""

BROKEN = ("truncated", "html", "empty")
DEAD = ("not_found", "refused")
SIDES = (96, 112, 128, 144, 160)
SMALL_SIDES = (16, 20, 24, 28)
FORMATS = {"jpg": 0.6, "png": 0.2, "webp": 0.2}
# Nothing listens on the discard port of a machine's own address, whichever port serves the rest.
REFUSED = "http://127.0.0.1:9"

TRUTH_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # of the URL, without scheme, host and port
        ("alt_text", pa.string()),
        ("defect", pa.string()),  # a key of SHARES
        ("detail", pa.string()),  # which kind of it: "blur", "mirror", "html", ...; "" if only one
        ("clean", pa.bool_()),  # defect is "none"
        ("readable", pa.bool_()),  # the link gives a picture that decodes
        ("scene", pa.string()),  # what the picture shows, `Scene.to_json`
        ("text_kind", pa.string()),  # see `writers.AltKind`
        ("text_matches", pa.bool_()),  # the text says something true and nothing false
        ("good_looking", pa.bool_()),
        ("unsafe", pa.bool_()),
        ("duplicate_group", pa.int32()),  # row of the group's original; -1 for rows in no group
        ("edit", pa.string()),  # "" outside groups, "original", "exact" or a key of `NEAR`
        ("side", pa.int32()),  # pixels before a near duplicate's edit, 0 without picture
        ("format", pa.string()),  # jpg, png or webp
    ]
)

_WEAK: tuple[AltKind, ...] = ("boilerplate", "filename", "empty")


@dataclass(frozen=True)
class Web:
    """Where a built web lies, and its host as written in `urls.parquet`."""

    directory: Path
    base_url: str
    n_rows: int

    @property
    def urls(self) -> Path:
        return self.directory / "urls.parquet"

    @property
    def truth(self) -> Path:
        return self.directory / "truth.parquet"


@dataclass(frozen=True)
class _Rows:
    """The plan, one entry a row: defect, detail, row of the original, scene, text, side, format."""

    defect: NDArray[np.str_]
    detail: NDArray[np.str_]
    source: NDArray[np.int64]
    scenes: list[Scene]
    texts: list[AltText]
    side: NDArray[np.int64]
    format: NDArray[np.str_]
    path: list[str]


def build_web(
    directory: Path | str,
    config: WorldConfig,
    n_rows: int,
    seed: int,
    base_url: str = "http://127.0.0.1:8765",
) -> Web:
    """Write a web of `n_rows` URLs; the same arguments give the same bytes.

    `base_url` (scheme, host, port) goes into `urls.parquet` alone, see `write_urls`. Cost: about
    2 ms of CPU a row. Raises ValueError for under 50 rows or a world with too few scenes.
    """
    if n_rows < 50:
        raise ValueError(f"a web of {n_rows} rows cannot hold every defect; take 50 or more.")
    root = Path(directory)
    rows = _plan(config, n_rows, seed)
    for folder in sorted({Path(path).parent for path in rows.path}):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with progress(n_rows, "world", "row") as bar:
        for row, content in _files(rows, config, seed):
            (root / rows.path[row]).write_bytes(content)
            bar.update()
    pq.write_table(_truth(rows), root / "truth.parquet")
    return write_urls(root, base_url)


def write_urls(directory: Path | str, base_url: str) -> Web:
    """(Re)write `urls.parquet` of a built web for another host or port; paths stay the same."""
    root = Path(directory)
    truth = pq.read_table(root / "truth.parquet", columns=["path", "alt_text", "detail"])
    base = base_url.rstrip("/")
    urls = [
        f"{REFUSED if detail == 'refused' else base}/{path}"
        for path, detail in zip(truth["path"].to_pylist(), truth["detail"].to_pylist(), strict=True)
    ]
    pq.write_table(pa.table({"url": urls, "alt_text": truth["alt_text"]}), root / "urls.parquet")
    return Web(root, base, len(urls))


def _plan(config: WorldConfig, n_rows: int, seed: int) -> _Rows:
    rng = np.random.default_rng([seed, 10])
    edges = np.rint(np.cumsum(list(SHARES.values())) * n_rows).astype(int)
    defect = np.repeat(list(SHARES), np.diff(edges, prepend=0))
    rng.shuffle(defect)
    detail = np.full(n_rows, "", dtype="U16")
    kinds = {
        "ugly": tuple(UGLY),
        "near_duplicate": tuple(NEAR),
        "exact_duplicate": ("exact",),
        "broken": BROKEN,
        "dead_link": DEAD,
    }
    for name, names in kinds.items():
        where = np.flatnonzero(defect == name)
        detail[where] = np.resize(names, len(where))  # in turn, so that none is missing
    copies = np.flatnonzero(np.isin(defect, ("near_duplicate", "exact_duplicate")))
    source = np.arange(n_rows)
    source[copies] = rng.choice(np.flatnonzero(defect == "none"), len(copies), replace=False)

    unique = distinct_scenes(config, n_rows, seed)
    scenes = [unique[i] for i in source]
    for row in np.flatnonzero(detail == "mirror"):
        scenes[row] = mirrored(scenes[row])
    good = write_alt(scenes, seed + 1, {"good": 0.75, "partial": 0.25})
    wrong = write_alt(scenes, seed + 2, {"wrong": 1.0})
    weak = write_alt(scenes, seed + 3, dict.fromkeys(_WEAK, 1 / 3))
    by_defect = {"mismatched_text": wrong, "weak_text": weak}
    texts = [by_defect.get(name, good)[row] for row, name in enumerate(defect)]

    side = rng.choice(SIDES, n_rows)
    tiny = defect == "too_small"
    side[tiny] = rng.choice(SMALL_SIDES, int(tiny.sum()))
    suffix = rng.choice(list(FORMATS), n_rows, p=list(FORMATS.values()))
    same = defect == "exact_duplicate"
    side[copies], suffix[same] = side[source[copies]], suffix[source[same]]
    suffix[detail == "reencode"] = "jpg"
    site = rng.integers(0, 8, n_rows)
    path = [f"pictures/site{site[i]}/{i:06d}.{suffix[i]}" for i in range(n_rows)]
    return _Rows(defect, detail, source, scenes, texts, side, suffix, path)


def distinct_scenes(config: WorldConfig, n: int, seed: int) -> list[Scene]:
    """`n` scenes of seen pairs, no two of which differ by offsets or by mirroring alone.

    A mirrored copy is a near duplicate (`NEAR`), so mirror twins would be duplicates that the
    truth does not know of.
    """
    drawn = sample_scenes(config, 3 * n + 100, seed, "seen")
    distinct: dict[Scene, Scene] = {}
    for scene in drawn:
        still = replace(scene, objects=tuple(replace(o, dx=0, dy=0) for o in scene.objects))
        if mirrored(still) not in distinct:
            distinct.setdefault(still, scene)
        if len(distinct) == n:
            return list(distinct.values())
    raise ValueError(f"this world is too small for {n} different scenes; make it richer.")


def mirrored(scene: Scene) -> Scene:
    """The scene with left and right exchanged."""
    moved = []
    for thing in scene.objects:
        row, column = divmod(thing.cell, scene.grid)
        moved.append(replace(thing, cell=row * scene.grid + scene.grid - 1 - column, dx=-thing.dx))
    return replace(scene, objects=tuple(sorted(moved, key=lambda o: o.cell)))


def _files(rows: _Rows, config: WorldConfig, seed: int) -> Iterator[tuple[int, bytes]]:
    """Every row's file content, rendered side by side with the pictures of its size."""
    sources: dict[int, bytes] = {}
    originals = set(rows.source[rows.defect == "exact_duplicate"].tolist())
    shown = np.flatnonzero((rows.defect != "dead_link") & (rows.defect != "exact_duplicate"))
    for side in np.unique(rows.side[shown]):
        batch = shown[rows.side[shown] == side]
        # A mirrored copy is drawn as its original first, so that the edit does the mirroring.
        plain = [
            mirrored(rows.scenes[i]) if rows.detail[i] == "mirror" else rows.scenes[i]
            for i in batch
        ]
        for row, picture in zip(batch.tolist(), render(plain, config, int(side)), strict=True):
            content = _content(rows, row, picture, np.random.default_rng([seed, 11, row]))
            if row in originals:
                sources[row] = content
            yield row, content
    for row in np.flatnonzero(rows.defect == "exact_duplicate").tolist():
        yield row, sources[int(rows.source[row])]


def _content(rows: _Rows, row: int, picture: Picture, rng: np.random.Generator) -> bytes:
    defect, detail = str(rows.defect[row]), str(rows.detail[row])
    if defect == "ugly":
        picture = UGLY[detail](picture, rng)
    elif defect == "near_duplicate":
        picture = NEAR[detail](picture, rng)
    elif defect == "unsafe":
        picture = sticker(picture, rng)
    elif detail == "empty":
        return b""
    elif detail == "html":
        return b"<!doctype html><html><body><h1>This picture has moved</h1></body></html>\n"
    content = _encode(picture, str(rows.format[row]), rng)
    return content[: len(content) // 3] if detail == "truncated" else content


def _encode(picture: Picture, suffix: str, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(picture)
    quality = int(rng.integers(75, 96))
    if suffix == "png":
        image.save(stream, "PNG", compress_level=3)
    elif suffix == "webp":
        image.save(stream, "WEBP", quality=quality, method=1)
    else:
        image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _truth(rows: _Rows) -> pa.Table:
    copied = np.isin(rows.defect, ("near_duplicate", "exact_duplicate"))
    group = np.full(len(rows.defect), -1, np.int32)
    edit = np.full(len(rows.defect), "", dtype="U16")
    group[rows.source[copied]] = rows.source[copied]
    edit[rows.source[copied]] = "original"
    group[copied] = rows.source[copied]
    edit[copied] = rows.detail[copied]
    readable = ~np.isin(rows.defect, ("broken", "dead_link"))
    columns = {
        "path": rows.path,
        "alt_text": [text.text for text in rows.texts],
        "defect": rows.defect.tolist(),
        "detail": rows.detail.tolist(),
        "clean": (rows.defect == "none").tolist(),
        "readable": readable.tolist(),
        "scene": [scene.to_json() for scene in rows.scenes],
        "text_kind": [text.kind for text in rows.texts],
        "text_matches": [text.matches for text in rows.texts],
        "good_looking": (rows.defect != "ugly").tolist(),
        "unsafe": (rows.defect == "unsafe").tolist(),
        "duplicate_group": group,
        "edit": edit.tolist(),
        "side": np.where(readable, rows.side, 0).astype(np.int32),
        "format": rows.format.tolist(),
    }
    return pa.table(columns, schema=TRUTH_SCHEMA)
