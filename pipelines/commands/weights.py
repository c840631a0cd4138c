"""`caplab weights`: fetch a published head and say where it lies."""

from __future__ import annotations

import click

from pipelines.terminal.quiet import show


@click.command("weights")
@click.argument("source", metavar="NAME_OR_SOURCE")
@click.option("--allow-pickle", multiple=True, help="A pickle that you trust: file name or sha256.")
@click.option("--sql", is_flag=True, help="Print the head as SQL over a column `embedding`.")
def command(source: str, allow_pickle: tuple[str, ...], sql: bool) -> None:
    """Fetch a published head, check it, convert it once to safetensors, print where it lies.

    \b
    Examples:
      caplab weights laion-nsfw-l14
      caplab weights laion-aesthetic-v2 --sql \\
          --allow-pickle sac+logos+ava1-l14-linearMSE.pth
    """
    from curate.scoring.scorers.head_source import find_head, head_sql
    from curate.scoring.scorers.heads import Head
    from curate.scoring.scorers.published import PUBLISHED

    path = find_head(source, allow_pickle)
    head = Head.load(path)
    if sql:
        show(head_sql(head))
        return
    show(f"{path} takes embeddings of {head.width} numbers")
    if (entry := PUBLISHED.get(source.partition("#")[0])) is not None:
        show(f"CLIP model: {entry.clip}; what its authors kept: {entry.rule}")
