"""Serve folders of pictures with human texts over loopback HTTP, and write their URL list.

    python -m pipelines.bench.common.serve_pairs FOLDER [FOLDER ...] --out urls.parquet

Each folder holds `captions.jsonl`, one JSON object a picture with `image` (path below the folder)
and `alt` (the text; may be missing or null). Serves until interrupted, so that in another terminal

    caplab curate urls.parquet --out data/photos --allow-private-addresses

walks the road of any web list on real photographs.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from urllib.parse import quote

import click
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.base.files import atomic_path
from pipelines.world.serve import serve

_SCHEMA = pa.schema([(name, pa.string()) for name in ("url", "alt_text", "source")])


def write_url_list(
    folders: list[Path], base_url: str, root: Path, out: Path, limit: int | None = None
) -> int:
    """Write url, alt_text and source of every picture; return the number of rows.

    Args:
        root: the served folder; every folder lies below it.
        limit: rows a folder at most, spread evenly over it.

    Raises:
        ConfigError: a folder has no captions.jsonl.
    """
    rows = []
    for folder in folders:
        path = folder / "captions.jsonl"
        if not path.is_file():
            raise ConfigError(f"{folder} has no captions.jsonl.")
        pairs = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
        step = 1 if limit is None else max(1, len(pairs) // limit)
        for pair in pairs[::step][:limit]:
            place = quote((folder / str(pair["image"])).relative_to(root).as_posix())
            row = {"url": f"{base_url}/{place}", "alt_text": pair.get("alt"), "source": folder.name}
            rows.append(row)
    with atomic_path(out) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), temporary)
    return len(rows)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The URL list.")
@click.option("--port", default=8766, show_default=True, help="Loopback port.")
@click.option("--limit", type=int, help="Rows a folder at most.")
def main(folders: tuple[Path, ...], out: Path, port: int, limit: int | None) -> None:
    """Serve FOLDERS and write their URL list."""
    places = [folder.resolve() for folder in folders]
    root = places[0].parent
    with serve(root, port) as base_url, contextlib.suppress(KeyboardInterrupt):
        count = write_url_list(places, base_url, root, out, limit)
        click.echo(f"{count} URLs in {out}; serving {root} at {base_url}, Ctrl-C ends it")
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
