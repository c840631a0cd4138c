"""The command `caplab`: thin wrappers that turn options into settings and call the library.

Exit codes: 0 done, 1 or 3 the data or the machine is not what the command needs (1 of `check`: it
has faults), 2 a setting is wrong, 4 some shards failed or no caption was accepted (what was
finished is kept), 70 unexpected, 129, 130, 141 and 143 ended by SIGHUP, Ctrl-C, a closed pipe and
SIGTERM. Every error is one sentence on stderr; see pipelines.failures.

Imports of the heavy parts happen inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from curate import __version__
from curate.base.errors import ConfigError
from curate.duplicates.settings import UNUSED, DuplicateSettings, ReferenceSettings
from curate.export.settings import ExportSettings
from curate.selection.settings import SelectSettings
from pipelines.ablation.settings import AblateSettings
from pipelines.bench.commands import bench
from pipelines.captioner import captioner
from pipelines.captioner_commands import upsample
from pipelines.demo_settings import DemoSettings
from pipelines.failures import end_on_signals, one_sentence
from pipelines.options import resolve, settings_options
from pipelines.settings import (
    CurateSettings,
    RecaptionCommandSettings,
    ScoreCommandSettings,
    TrainCommandSettings,
    Until,
)
from recaption.judging.settings import JudgeSettings

Given = dict[str, Any]
EXISTING = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="caplab")
def cli() -> None:
    """From a list of image URLs to a measured answer.

    \b
    The road, each step rerunnable and resumable:
      caplab curate urls.parquet --out data/mine      download, score, find duplicates
      caplab check data/mine --repair                 is all of it there? make it so
      caplab select data/mine --name good --where "clip_similarity >= 0.28 and aesthetic >= 5"
      caplab recaption data/mine --selection good --captioner MODEL --kinds short,descriptive
      caplab captions data/mine                       what the captions are like, and how right
      caplab export data/mine --selection good --captions descriptive --format parquet --out hf
      caplab train data/mine --selection good --captions descriptive=0.95,alt=0.05 --out runs/a
      caplab ablate data/mine --arms arms.yaml --out runs/captions
      caplab report runs/captions

    `caplab demo` walks it offline on a synthetic world in some twenty minutes. Every setting can
    stand in a YAML file (--config) and be overridden by its option.
    """


@cli.command()
@click.argument("source", metavar="INPUT")
@click.option("--out", required=True, type=EXISTING, help="Dataset directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Read the list, print the plan, fetch nothing.")
@click.option(
    "--until",
    type=click.Choice(["download", "score", "duplicates", "selection"]),
    default="selection",
    show_default=True,
    help="The last stage to run; the same command without it goes on from there.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Fetch again what failed for reasons that can pass (timeouts, DNS, 429, 5xx, ...).",
)
@settings_options(CurateSettings)
def curate(
    source: str,
    out: Path,
    dry_run: bool,
    until: Until,
    retry_failed: bool,
    config: Path | None,
    given: Given,
) -> None:
    """Take in URLs or pictures, score every pair, find duplicates, make a first selection.

    INPUT is a list of URLs and texts (Parquet, CSV, TSV, JSONL, JSON, or a URL a line; also .gz),
    WebDataset tars (img2dataset's output too), a folder of pictures with .txt or .json beside them,
    or Parquet with pictures inside; a file, a folder or a glob, local or s3://, gs://, https://.
    --dry-run prints what was recognised. Every row of it ends as one row of the samples table:
    stored, or failed with its reason. Scores are columns and never deletions: select as often as
    you like with `caplab select`.

    \b
    Examples:
      caplab curate urls.parquet --out data/mine --image-size 512
      caplab curate urls.csv --out data/mine --clip-model ViT-L-14-quickgelu \\
          --clip-pretrained openai --where "clip_similarity >= 0.25 and not duplicate"
    """
    from pipelines.curate import curate as run
    from pipelines.curate import plan

    settings = resolve(CurateSettings, config, given)
    if dry_run:
        click.echo(plan(source, settings))
        return
    click.echo(run(source, out, settings, until, retry_failed).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option("--repair", is_flag=True, help="Fetch and compute again what is gone.")
@click.option("--sha256", is_flag=True, help="Also read every byte of tars and tables.")
@click.option("--input", "source", metavar="INPUT", help="The list, if it lies elsewhere now.")
def check(directory: Path, repair: bool, sha256: bool, source: str | None) -> None:
    """Say whether a dataset is whole, and name what is not with the command that repairs it.

    Looks at contract, schemas and counts, at every key, and at each tar beside its table;
    docs/check.md lists it all. Exit status: 0 whole, 1 has faults, 2 no dataset, a wrong option.

    \b
    Examples:
      caplab check data/mine
      caplab check data/mine --sha256
      caplab check data/mine --repair
    """
    from pipelines.check import check_dataset

    found = check_dataset(directory, sha256, repair, source)
    click.echo(found.text())
    if not found.whole:
        sys.exit(1)


def _list_presets(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    from curate.selection.presets import describe_presets

    if wanted and not context.resilient_parsing:
        click.echo(describe_presets())
        context.exit()


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@settings_options(ScoreCommandSettings)
def score(directory: Path, config: Path | None, given: Given) -> None:
    """Score an existing dataset: add scorers, score captions, score what came later.

    Settings that are not given stay as they were when DIR was scored last, and only columns and
    samples that lack a score are computed.

    \b
    Examples:
      caplab score data/mine                                  what a retry stored since
      caplab score data/mine --nsfw-head laion-nsfw-l14       one more column, no picture opened
      caplab score data/mine --captions descriptive           how each caption fits, by sentence
      caplab score data/mine --more-clips b32=ViT-B-32-quickgelu@openai
    """
    from pipelines.score import on_top_of_stored
    from pipelines.score import score as run

    click.echo(run(directory, on_top_of_stored(directory, config, given)).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@settings_options(SelectSettings)
@click.option(
    "--list-presets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_presets,
    help="Print every preset with its rule, numbers, needs and source.",
)
def select(directory: Path, config: Path | None, given: Given) -> None:
    """Select samples by SQL over stored scores; pictures are never touched.

    \b
    Examples:
      caplab select data/mine --name good \\
          --where "clip_similarity >= 0.28 and aesthetic >= 5 and nsfw < 0.5"
      caplab select data/mine --preset datacomp-clip --preset-values fraction=0.2
      caplab select data/mine --name both --where "in_selection('a') and in_selection('b')"

    Prints the funnel: what each rule removes alone, and what it removes in order. Copies are
    dropped last, among the samples that pass everything else.
    """
    from curate.selection.select import select as run
    from curate.store.dataset import Dataset

    settings = resolve(SelectSettings, config, given)
    click.echo(run(Dataset.open(directory), settings).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option(
    "--against",
    multiple=True,
    metavar="DATASET",
    help="Search against an earlier dataset too: its pictures make the column `known`; repeatable.",
)
@settings_options(DuplicateSettings)
def duplicates(
    directory: Path, against: tuple[str, ...], config: Path | None, given: Given
) -> None:
    """Find duplicates: exact, near and embedding, and SemDeDup's rule where it is asked for.

    `caplab curate` runs this stage too; here it runs alone, with other settings or against other
    datasets. What was compared before is not compared again.

    \b
    Examples:
      caplab duplicates data/mine --quality "aesthetic,width * height"
      caplab duplicates data/mine --semdedup-epsilon 0.03
      caplab duplicates data/new --against data/old
      caplab select data/new --name fresh --where "not known"
    """
    from curate.duplicates.references import find_references
    from curate.duplicates.search import describe, find_duplicates
    from curate.store.dataset import Dataset
    from curate.store.holes import DUPLICATE_TABLES, refuse_holes
    from curate.store.lock import writing

    settings = resolve(DuplicateSettings, config, given)
    dataset = Dataset.open(directory)
    places = [Dataset.open(place) for place in against]
    refuse_holes(dataset, but=DUPLICATE_TABLES)
    with writing(dataset.directory, "duplicates"):
        click.echo(describe(find_duplicates(dataset, settings)))
    for place in places:
        rule = ReferenceSettings(**settings.resolved())
        click.echo(find_references(dataset, place.directory, rule, "known").text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option(
    "--references",
    required=True,
    metavar="PLACE",
    help="Evaluation pictures: a folder or glob, local or remote, or a dataset directory.",
)
@settings_options(ReferenceSettings, hidden=UNUSED)
def decontaminate(directory: Path, references: str, config: Path | None, given: Given) -> None:
    """Find the samples that show a picture of an evaluation set.

    They are reported apart from the duplicates, in the table reference_matches, and are the column
    `contaminated` of a selection. Fingerprints of a folder are computed once.

    \b
    Example:
      caplab decontaminate data/mine --references data/coco/val2017
      caplab select data/mine --name clean --where "not contaminated"
    """
    from curate.duplicates.references import find_references
    from curate.store.dataset import Dataset
    from curate.store.holes import refuse_holes

    settings = resolve(ReferenceSettings, config, given)
    dataset = Dataset.open(directory)
    refuse_holes(dataset, but=("reference_matches", "duplicates"))
    click.echo(find_references(dataset, references, settings).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@settings_options(RecaptionCommandSettings)
@click.option(
    "--dry-run",
    type=int,
    metavar="N",
    help="Caption N pictures, print rate and cost, store nothing.",
)
def recaption(directory: Path, dry_run: int | None, config: Path | None, given: Given) -> None:
    """Write captions with a vision-language model into the captions table.

    Every selected picture gets one row a kind: accepted, rejected by a gate, or failed with its
    reason. A killed run goes on with the same command, and asks for what is missing alone; other
    prompts or sampling stand beside, never over, what is there. --dry-run first tells the rate, and
    hours and money for the rest. docs/recaption.md says more.

    \b
    Examples:
      caplab recaption data/mine --selection good --captioner Qwen/Qwen2.5-VL-3B-Instruct \\
          --dry-run 20 --price-per-hour 2.5
      caplab recaption data/mine --selection good --captioner Qwen/Qwen2.5-VL-3B-Instruct
      caplab recaption data/mine --selection good --captioner http://localhost:8000/v1 \\
          --served-model my-vlm --kinds descriptive
    """
    from pipelines.recaption import dry_run as rehearse
    from pipelines.recaption import recaption as run

    settings = resolve(RecaptionCommandSettings, config, given)
    if dry_run is not None:
        if dry_run < 1:
            raise ConfigError("--dry-run needs a number of pictures of 1 or more.")
        click.echo(rehearse(directory, settings, dry_run))
        return
    click.echo(run(directory, settings).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option("--out", required=True, type=EXISTING, help="Run directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Check data and settings, print the plan, stop.")
@settings_options(TrainCommandSettings)
def train(directory: Path, out: Path, dry_run: bool, config: Path | None, given: Given) -> None:
    """Train a text-to-image diffusion model on a selection with a blend of captions.

    \b
    Example:
      caplab train data/mine --selection good --captions descriptive=0.95,alt=0.05 \\
          --model photo-64 --steps 2000 --out runs/first

    OUT/pipeline is a folder that diffusers' `DiffusionPipeline.from_pretrained` loads.

    Words outside the model's vocabulary are counted first, also by --dry-run: over 5% of a caption
    kind are refused unless --allow-unknown-words is given.
    """
    from pipelines.train import plan
    from pipelines.train import train as run

    settings = resolve(TrainCommandSettings, config, given)
    if dry_run:
        click.echo(plan(directory, settings))
        return
    click.echo(run(directory, out, settings).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option("--out", required=True, type=EXISTING, help="Run directory to make or continue.")
@click.option("--dry-run", is_flag=True, help="Check every part, print the plan, train none.")
@settings_options(AblateSettings, hidden=("arms",))
@click.option("--arms-file", "--arms", "arms_file", type=EXISTING, help="YAML of the experiment.")
def ablate(
    directory: Path,
    out: Path,
    dry_run: bool,
    arms_file: Path | None,
    config: Path | None,
    given: Given,
) -> None:
    """Train arms that differ only in their captions, and measure the difference.

    Images, order, initial weights, noise and compute are the same for every arm of a seed.
    Differences are paired by seed, with intervals over seeds and prompts. One is claimed where
    both intervals exclude zero and its p, adjusted by Holm, is below .05 (docs/ablation.md).

    Judge, prompts, metric and form are checked before a step is trained, also by --dry-run, and
    words outside the models' vocabulary are counted: over 5% of a caption kind or a form of the
    prompts are refused unless --allow-unknown-words is given.
    """
    from pipelines.ablation.run import ablate as run
    from pipelines.ablation.run import plan

    if arms_file is not None and config is not None:
        raise ConfigError("Give the experiment by --arms or by --config, not by both.")
    settings = resolve(AblateSettings, arms_file or config, given)
    if dry_run:
        click.echo(plan(directory, settings, out))
        return
    click.echo(run(directory, out, settings).text())


@cli.command()
@click.option("--out", default=Path("runs/demo"), type=EXISTING, show_default=True)
@settings_options(DemoSettings)
def demo(out: Path, config: Path | None, given: Given) -> None:
    """Walk the whole road offline on the synthetic world, some twenty minutes on two cores."""
    from pipelines.demo import demo as run

    click.echo(run(out, resolve(DemoSettings, config, given)).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option("--out", required=True, type=EXISTING, help="Directory to make or continue.")
@click.option(
    "--captions",
    "caption_shares",
    metavar="KIND|KIND=SHARE,...",
    help="One caption kind, or the share of each.",
)
@settings_options(ExportSettings, hidden=("captions",))
def export(
    directory: Path, out: Path, caption_shares: str | None, config: Path | None, given: Given
) -> None:
    """Write a selection with one caption a picture, in the layout that a trainer reads.

    Pictures are copied unchanged into shards that are equally full. Samples that lack the asked
    caption are left out and counted, with their reasons in OUT/export/left_out.parquet. A killed
    export continues; OUT/export/summary.json says that it is finished. OUT/README.md is a dataset
    card with funnel, scores and provenance; fill in the licence.

    \b
    Examples:
      caplab export data/mine --selection good --captions descriptive=0.95,alt=0.05 \\
          --format webdataset --out exports/good
      caplab export data/mine --selection good --captions descriptive --format parquet \\
          --out exports/good-hf          # load_dataset("exports/good-hf")
      caplab export data/mine --captions short --format folder --layout kohya --out exports/lora
      caplab export data/mine --captions short --format folder --layout simpletuner \\
          --resolution 1024 --out exports/tuner
    """
    from curate.export.run import export as run
    from curate.store.dataset import Dataset

    fixed = {"captions": caption_shares}
    settings = resolve(ExportSettings, config, given, **fixed)
    click.echo(run(Dataset.open(directory), out, settings).text())


@cli.command()
@click.argument("directory", metavar="DIR", type=EXISTING)
@click.option("--source", "given_sources", multiple=True, help="Who wrote them; repeat for more.")
@click.option("--compare", nargs=2, metavar="A B", help="Two sets: paired differences.")
@click.option("--json", "out", type=EXISTING, help="Write everything that was measured to a file.")
@settings_options(JudgeSettings, hidden=("sources",))
def captions(
    directory: Path,
    given_sources: tuple[str, ...],
    compare: tuple[str, str] | None,
    out: Path | None,
    config: Path | None,
    given: Given,
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
    from pipelines.captions import captions as run

    settings = resolve(JudgeSettings, config, given, sources=given_sources or None)
    click.echo(run(directory, settings, compare, out).text())


@cli.command()
@click.argument("target", metavar="DIR_OR_RUN", type=EXISTING)
@click.option("--selection", help="Selection to follow; all others have their funnel as well.")
@click.option("--compare", nargs=2, metavar="A B", help="Two caption sets to show side by side.")
def report(target: Path, selection: str | None, compare: tuple[str, str] | None) -> None:
    """Write report.html, one self-contained file, for a dataset or a run."""
    from pipelines.reporting import report as run

    click.echo(run(target, selection, compare))


@cli.command()
@click.argument("source", metavar="NAME_OR_SOURCE")
@click.option("--allow-pickle", multiple=True, help="A pickle that you trust: file name or sha256.")
@click.option("--sql", is_flag=True, help="Print the head as SQL over a column `embedding`.")
def weights(source: str, allow_pickle: tuple[str, ...], sql: bool) -> None:
    """Fetch a published head, check it, convert it once to safetensors, print where it lies.

    \b
    Examples:
      caplab weights laion-nsfw-l14
      caplab weights laion-aesthetic-v2 --allow-pickle sac+logos+ava1-l14-linearMSE.pth --sql
    """
    from curate.scoring.scorers.head_source import find_head
    from curate.scoring.scorers.head_sql import head_sql
    from curate.scoring.scorers.heads import Head
    from curate.scoring.scorers.published import PUBLISHED

    path = find_head(source, allow_pickle)
    head = Head.load(path)
    if sql:
        click.echo(head_sql(head))
        return
    click.echo(f"{path} takes embeddings of {head.width} numbers")
    if (entry := PUBLISHED.get(source.partition("#")[0])) is not None:
        click.echo(f"CLIP model: {entry.clip}; what its authors kept: {entry.rule}")


cli.add_command(bench)
cli.add_command(captioner)
cli.add_command(upsample)


def main() -> None:
    """Entry point: run a command, and turn every error into one sentence."""
    end_on_signals()
    with one_sentence():
        cli(standalone_mode=False)


if __name__ == "__main__":
    main()
