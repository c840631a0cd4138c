"""One HTML file from whatever a dataset, a run or a demo holds."""

from __future__ import annotations

from pathlib import Path

from curate.base.errors import DatasetError
from curate.base.files import write_text
from curate.base.progress import progress
from pipelines.report.data import Inputs, find_inputs
from pipelines.report.page import Page
from pipelines.report.sections import (
    accounting,
    caption_sets,
    captions,
    checks,
    correlations,
    domains,
    duplicates,
    funnel,
    headline,
    languages,
    limits,
    road,
    scores,
    stages,
    tables,
    training,
)
from pipelines.report.sections.study import ablation, doses, effects, grids

# In the order of the page. A module's `compute` gives None where its inputs are missing.
SECTIONS = (
    headline,
    effects,
    doses,
    grids,
    ablation,
    limits,
    road,
    accounting,
    domains,
    languages,
    funnel,
    scores,
    correlations,
    duplicates,
    checks,
    captions,
    caption_sets,
    training,
    stages,
    tables,
)


def write_report(
    target: Path | str,
    dataset_dir: Path | str | None = None,
    run_dir: Path | str | None = None,
    demo_dir: Path | str | None = None,
    selection: str | None = None,
    compare: tuple[str, str] | None = None,
) -> Path:
    """Write the report as one self-contained HTML file.

    It holds no script and asks for nothing; pictures are a seeded sample, so its size does not
    grow with the dataset, while all counts are exact. The same inputs give the same bytes.

    Args:
        target: the file to write; it appears whole or not at all.
        dataset_dir: a dataset's directory.
        run_dir: the directory of an ablation or of one training run.
        demo_dir: a demo's directory, which also knows the ground truth; its `dataset` and
            `ablation` are used where no other is given.
        selection: the dataset's selection to follow; by default the ablation's own, or the one that
            was made last. Every other selection has its funnel and thresholds as well.
        compare: names of two caption sets to show side by side (SOURCE/KIND, or a source or kind
            that one set alone has); by default two that belong together.

    Raises:
        DatasetError: no directory was given, or one is not what it should be.
        ConfigError: there is no caption set of a name in `compare`.
    """
    inputs = find_inputs(dataset_dir, run_dir, demo_dir)
    inputs.followed, inputs.compared = selection, compare
    if inputs.dataset is None and inputs.ablation is None and not inputs.train_runs:
        raise DatasetError("A report needs a dataset or a run; neither was given.")
    page = Page(inputs.palette)
    sections = []
    with progress(len(SECTIONS), "report", "section") as bar:
        for module in SECTIONS:
            facts = module.compute(inputs)
            if facts is not None:
                sections.append(module.draw(facts, page))
            bar.update()
    title, subtitle = _titles(inputs)
    target = Path(target)
    write_text(target, page.document(title, subtitle, sections, sorted(inputs.unreadable)))
    return target


def _titles(inputs: Inputs) -> tuple[str, str]:
    if inputs.ablation is not None:
        return "What captions teach", "A caption ablation, from URLs to a measured answer"
    if inputs.train_runs:
        return "A training run", inputs.train_runs[0].directory.name
    name = inputs.dataset.directory.name if inputs.dataset is not None else ""
    return "A curated dataset", name
