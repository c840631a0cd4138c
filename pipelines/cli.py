"""The command `caplab`: a name, a line of help and the module that is imported when it is asked.

Exit codes: 0 done, 1 or 3 the data or the machine is not what the command needs (1 of `check`: it
has faults), 2 a setting is wrong, 4 some shards failed or no caption was accepted (what was
finished is kept), 70 unexpected, 129, 130, 141 and 143 ended by SIGHUP, Ctrl-C, a closed pipe and
SIGTERM. Every error is one sentence on stderr; see pipelines.terminal.failures.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from curate import __version__
from pipelines.terminal.failures import end_on_signals, leave, one_sentence
from pipelines.terminal.lazy_group import LazyGroup
from pipelines.terminal.quiet import quiet_libraries

HELP = {
    "curate": "Take in URLs or pictures, score every pair, find duplicates, make a selection.",
    "check": "Say whether a dataset is whole, and name what is not with what repairs it.",
    "score": "Score an existing dataset: add scorers, score captions or what came later.",
    "duplicates": "Find duplicates: exact, near and embedding, and SemDeDup's rule.",
    "decontaminate": "Find the samples that show a picture of an evaluation set.",
    "select": "Select samples by SQL over stored scores; pictures are never touched.",
    "search": "Find pictures by a text, or like one, over the stored CLIP embeddings.",
    "recaption": "Write captions with a vision-language model into the captions table.",
    "import-captions": "Take in captions that people wrote, from .txt files or a list.",
    "derive": "Make a caption set from stored captions by rule, with no model.",
    "captions": "What captions are like and how right they are, without a judge model.",
    "export": "Write a selection with one caption a picture, in a trainer's layout.",
    "train": "Train a text-to-image diffusion model on a selection with a blend of captions.",
    "compare": "Print how two finished training runs, studies or arms differ.",
    "ablate": "Train arms that differ in their captions or data, and measure the difference.",
    "judge": "Score the kept pictures of a study or a run with one more judge.",
    "evaluate": "Draw prompts with one trained model and judge the pictures.",
    "export-images": "Write pictures in the folders that benchmarks' own scorers read.",
    "view": "Look at a dataset, a run or a study in the browser.",
    "report": "Write report.html, one self-contained file, for a dataset or a run.",
    "demo": "Walk the whole road offline on the synthetic world.",
    "captioner": "Make captioners of your own.",
    "upsample": "Rewrite short prompts as descriptive ones.",
    "weights": "Fetch a published head, check it, convert it once, print where it lies.",
    "config": "Print all settings of a command as commented YAML, for --config.",
    "bench": "Measure Caption Lab against its peers, in one run on this machine.",
}
"""Name -> a line of help, in the order of the road; the module is of the same name."""


@click.group(
    cls=LazyGroup,
    folder="pipelines.commands",
    helps=HELP,
    elsewhere={
        "demo": "pipelines.demo.command",
        "bench": "pipelines.bench.commands",
        "config": "pipelines.terminal.config_command",
        "view": "pipelines.view.command",
        "derive": "pipelines.commands.experiment.derive",
        "import-captions": "pipelines.commands.texts.import_captions",
        "judge": "pipelines.commands.experiment.judge",
        "evaluate": "pipelines.commands.experiment.evaluate",
        "export-images": "pipelines.commands.experiment.export_images",
        "search": "pipelines.commands.look.search",
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="caplab")
def cli() -> None:
    """From a list of image URLs to a measured answer.

    \b
    The road, each step rerunnable and resumable:
      caplab curate urls.parquet --out data/mine   # or a folder
      caplab check data/mine --repair              # is all of it there? mend it
      caplab view data/mine --open                 # look at it
      caplab select data/mine --name good --where "clip_similarity >= 0.28"
      caplab recaption data/mine --selection good --captioner MODEL
      caplab captions data/mine                    # what they are like, how right
      caplab train data/mine --selection good --out runs/a
      caplab export data/mine --selection good --format parquet --out hf
      caplab ablate data/mine --arms arms.yaml --out runs/captions
      caplab report runs/captions

    `caplab demo` walks it offline on a synthetic world in under ten minutes. Every setting can
    stand in a YAML file (--config; `caplab config COMMAND` prints one) and be overridden by its
    option. -v, -q and --log-file say more, less, or keep it as JSON lines.

    \b
    Completion (bash; zsh_source and fish_source likewise):
      eval "$(_CAPLAB_COMPLETE=bash_source caplab)"
    """


def run() -> None:
    """Run a command, and turn every error into one sentence and an exit status."""
    end_on_signals()
    quiet_libraries()
    with one_sentence():
        cli(standalone_mode=False)
        sys.stdout.flush()  # what cannot be written is an error as any other


def main() -> NoReturn:
    """Entry point: `run`, and the end of the process."""
    status: object = 0
    try:
        run()
    except SystemExit as end:
        status = end.code
    leave(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
