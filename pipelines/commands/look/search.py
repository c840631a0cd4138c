"""`caplab search`: pictures by text or picture; curate.search.search is its function."""

from __future__ import annotations

from pathlib import Path

import click

from curate.search.settings import SearchSettings
from pipelines.terminal.options import dataset_argument, settings_options
from pipelines.terminal.quiet import say, show


@click.command("search")
@dataset_argument
@settings_options(SearchSettings, {"text": click.argument("text", required=False)})
def command(directory: Path, settings: SearchSettings) -> None:
    """Find pictures by a text, or like a picture, over the stored CLIP embeddings.

    Prints cosine similarity, key, alt text and URL, the nearest first. The first search builds an
    index in DIR/search; later ones use it until the embeddings change.

    \b
    Examples:
      caplab search data/mine "a red bicycle"
      caplab search data/mine "a red bicycle" --where "aesthetic >= 5" --count 50
      caplab search data/mine --like photograph.jpg --format jsonl
      caplab search data/mine --like 2f1c0a4be6d1c8f0a3b94d5e6f708192   # no model
    """
    from curate.search.index import is_built
    from curate.search.place import search_folder
    from curate.search.search import search, words_unread
    from curate.store.dataset import Dataset

    if not is_built(Dataset.open(directory), settings.clip):
        place = search_folder(directory)
        there = "" if place.parent == directory else f" in {place}, since it cannot be written"
        say(f"building the search index of {directory}{there}, once")
    found = search(directory, settings)
    if found.unread:
        say(words_unread(found.unread))
    show(found.text() if settings.format == "table" else found.jsonl())
