"""`caplab bench view`: the search's index and the page, over one generated dataset a size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.bench.common.figures import Figure, work_folder
from pipelines.bench.view.page import page_figures
from pipelines.bench.view.search import generated, search_figures


def view_figures(
    out: Path | None, sizes: Sequence[int], width: int, questions: int, part: str
) -> list[Figure]:
    """Measure at each size.

    Args:
        out: where datasets are generated, or lie already; by default a new folder.
        width: numbers of an embedding.
        questions: of each kind.
        part: page, search or all.
    """
    work, figures = work_folder(out), []
    for size in sizes:
        dataset = generated(work / f"generated-{size}-{width}", size, width)
        if part != "page":
            figures += search_figures(dataset, width, questions, f"search/{size}")
        if part != "search":
            figures += page_figures(dataset, questions, f"view/{size}")
    return figures
