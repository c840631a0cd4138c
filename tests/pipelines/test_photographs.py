"""The same commands on a hundred real photographs with human texts."""

import pytest

from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.accounting import accounting, accounting_line
from curate.store.dataset import Dataset
from pipelines.bench.common.serve_pairs import write_url_list
from pipelines.commands.curate import CurateSettings, curate
from pipelines.commands.recaption import RecaptionCommandSettings, recaption
from pipelines.commands.train import TrainCommandSettings, train
from pipelines.world import weights
from pipelines.world.serve import serve

pytestmark = pytest.mark.usefixtures("one_process")

FOLDERS = ("openstax", "18f", "recipes")


@pytest.fixture(scope="module")
def photographs(real_data, tmp_path_factory):
    """A dataset of about a hundred real pairs, served over HTTP."""
    work = tmp_path_factory.mktemp("photographs")
    folders = [real_data / name for name in FOLDERS]
    with serve(real_data) as base_url:
        rows = write_url_list(folders, base_url, real_data, work / "urls.parquet", limit=34)
        settings = CurateSettings(
            image_size=256,
            rows_per_shard=40,
            allow_private_addresses=True,
            clip_model=f"local-dir:{weights.clip_dir()}",
            clip_pretrained=None,
            aesthetic_head=str(weights.aesthetic_head_path()),
            nsfw_head=str(weights.nsfw_head_path()),
        )
        curate(work / "urls.parquet", work / "data", settings)
        yield rows, Dataset.open(work / "data"), work


def test_every_url_is_stored_or_failed_with_its_reason(photographs):
    rows, dataset, _ = photographs
    counts = accounting(dataset)
    assert counts["rows"] == rows >= 100
    assert counts["balanced"]
    assert counts["failed"] == sum(counts["reasons"].values())
    assert counts["stored"] > 90, accounting_line(counts)


def test_texts_are_kept_exactly_as_they_came(photographs):
    _, dataset, work = photographs
    connection = dataset.connect()
    differing = connection.execute(
        "SELECT count(*) FROM samples s JOIN read_parquet($urls) u USING (url) "
        "WHERE s.alt_text IS DISTINCT FROM u.alt_text",
        {"urls": str(work / "urls.parquet")},
    ).fetchone()
    assert differing == (0,)


def test_photographs_go_through_select_recaption_and_train(photographs):
    _, dataset, work = photographs
    where = "text_words >= 3 and width >= 64 and height >= 64"
    chosen = select(dataset, SelectSettings(name="words", where=where))
    assert 20 < chosen.selected < chosen.stored
    captions = recaption(
        dataset.directory,
        RecaptionCommandSettings(
            selection="words", captioner=str(weights.captioner_dir()), kinds=("short",)
        ),
    )
    assert sum(captions.counts.values()) == chosen.selected
    summary = train(
        dataset.directory,
        work / "run",
        TrainCommandSettings(
            selection="words",
            model="photo-64",
            captions={"alt": 1.0},
            steps=2,
            batch_size=8,
            validation_share=0.2,
            validation_samples=8,
            grid_size=4,
            cpus=1,
        ),
    )
    assert (summary.directory / "pipeline" / "model_index.json").exists()
    assert list((summary.directory / "grids").glob("*.png"))
