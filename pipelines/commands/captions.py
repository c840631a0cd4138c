"""`caplab captions`: judge a dataset's captions, and compare two sets of them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.base.errors import CaplabError, ConfigError
from curate.base.files import write_json
from curate.base.telling.summaries import Summary
from curate.scoring.settings import ScoreSettings
from pipelines.commands.score import on_top_of_stored
from pipelines.terminal.options import PLACE, dataset_argument, settings_options
from pipelines.terminal.quiet import say, show
from recaption.judging.settings import JudgeSettings

if TYPE_CHECKING:
    from curate.scoring.scorers.clip import Clip
    from curate.store.dataset import Dataset
    from recaption.judging.compare import Comparison
    from recaption.judging.measure import MeasuredSets
    from recaption.judging.truth import Truth

WORLD = "world"


@click.command("captions")
@dataset_argument
@click.option("--compare", nargs=2, metavar="A B", help="Two sets: paired differences.")
@click.option("--json", "out", type=PLACE, help="Write everything that was measured to a file.")
@settings_options(
    JudgeSettings,
    instead={
        "sources": click.option(
            "--source", "sources", multiple=True, help="Who wrote them; repeat for more."
        )
    },
)
def command(
    directory: Path, compare: tuple[str, str] | None, out: Path | None, settings: JudgeSettings
) -> None:
    """What captions are like and how right they are, without a judge model.

    Every set (source and kind) is counted whole and compared with the others on the same pictures:
    lengths, variety, habits, similarity, retrieval, how easily a classifier tells who wrote it; and
    against the truth, where it is known, precision beside recall. docs/captions.md explains each
    number.

    \b
    Examples:
      caplab captions data/mine
      caplab captions data/mine --kinds descriptive --truth instances_val2017.json
      caplab captions data/mine --compare descriptive alt --json out.json
      caplab captions runs/demo/dataset --truth world
    """
    say(f"reading the captions of {directory}")
    show(captions(directory, settings, compare, out))


@dataclass(frozen=True)
class CaptionsSummary(Summary):
    """What the command found; `measures` or `comparison`, whichever was asked for."""

    measures: MeasuredSets | None
    comparison: Comparison | None
    settings: JudgeSettings

    def _repr_html_(self) -> str:
        """The same as `text`, whose tables are made for it: measures are nested deeply."""
        return f"<pre>{escape(self.text())}</pre>"

    def text(self) -> str:
        """What the command prints."""
        from recaption.judging.tables import comparison_text, measures_text

        if self.comparison is not None:
            return comparison_text(self.comparison)
        assert self.measures is not None
        return measures_text(self.measures)

    def record(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        from recaption.judging.plain import plain

        return {
            "settings": self.settings.resolved(),
            "measures": plain(self.measures),
            "comparison": plain(self.comparison),
        }


def captions(
    directory: Path | str,
    settings: JudgeSettings,
    compare: tuple[str, str] | None = None,
    out: Path | None = None,
) -> CaptionsSummary:
    """Judge all sets that the settings name, or compare two.

    Args:
        compare: names of two sets: SOURCE/KIND, or a source or kind that one set alone has.
        out: JSON file to write as well.

    Raises:
        ConfigError: a source, kind, set or truth that is not there; before any work.
        DatasetError: there are no captions.
    """
    from curate.base.progress import counted, progress
    from curate.store.dataset import Dataset
    from curate.store.holes import refuse_holes
    from pipelines.world.weights import family
    from recaption.judging.caption_sets import find_set, find_sets
    from recaption.judging.compare import compare_captions
    from recaption.judging.measure import measure_captions
    from recaption.measure.token_counts import TokenCounter

    dataset = Dataset.open(directory)
    refuse_holes(dataset, unfinished=True)
    sets = find_sets(dataset, settings.sources, settings.kinds)
    pair = None if compare is None else tuple(find_set(sets, name) for name in compare)
    TokenCounter(settings.t5_tokenizer)
    truth = open_truth(dataset, settings.truth)
    clip, reason = (None, "it was not asked for")
    if settings.retrieval_groups:
        clip, reason = stored_clip(directory)
    if pair is not None:
        comparison = compare_captions(dataset, pair[0], pair[1], settings, clip, truth, [family()])
        summary = CaptionsSummary(None, comparison, settings)
    else:
        with progress(3, "measuring", "part") as bar, counted(bar.update):
            measures = measure_captions(dataset, settings, clip, truth, reason, [family()])
        summary = CaptionsSummary(measures, None, settings)
    if out is not None:
        write_json(out, summary.record())
    return summary


def open_truth(dataset: Dataset, truth: str | None) -> Truth | None:
    """The ground truth that `--truth` means; None for none.

    Raises:
        ConfigError: it is not there, or tells of none of the samples.
    """
    from pipelines.world.caption_truth import truth_beside, world_truth
    from recaption.judging.annotations import read_annotations

    if truth is None:
        return None
    if truth == WORLD:
        return world_truth(dataset, truth_beside(dataset))
    path = Path(truth)
    if path.suffix == ".parquet":
        return world_truth(dataset, path)
    if path.suffix not in (".json", ".jsonl"):
        raise ConfigError(
            f"The truth {truth} is of no known kind; give COCO's instances .json, a .jsonl, a "
            f"synthetic web's truth .parquet, or world."
        )
    return read_annotations(path, dataset)


def stored_clip(directory: Path | str) -> tuple[Clip | None, str]:
    """The CLIP model that embedded the dataset's pictures, or None and why it cannot be had."""
    from curate.scoring.scorers.clip import Clip

    try:
        settings = on_top_of_stored(directory, None, {}).part(ScoreSettings)
        clip = Clip.of(settings)[0]
        clip.open()
    except CaplabError as error:  # every other measure stands without it
        return None, str(error).rstrip(".")
    return clip, ""
