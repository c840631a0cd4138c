"""`caplab check`: what is lost or cut is named, refused by who would read it, and made again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import write_json
from curate.base.provenance import provenance
from curate.download.mend import clear_damaged
from curate.download.settings import DownloadSettings
from curate.duplicates.search import find_duplicates
from curate.duplicates.settings import DuplicateSettings
from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.intake.local_pictures import LocalPicturesStage
from curate.intake.read import plan_shards
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from curate.store.holes import ALT, SCORE_TABLES, TARS, find_holes, note_finished, refuse_holes
from curate.store.shards import iter_members, write_shard
from pipelines.commands.check import check_dataset
from pipelines.commands.curate import CurateSettings, look_at
from pipelines.report.data import find_inputs
from pipelines.runners.local import Local
from pipelines.runners.shards import run_stage
from recaption.captioning.alt_texts import AltCaptionStage
from tests.curate.tiny import drawn, tiny_clip
from train.run import train
from train.settings import TrainSettings

SHARD = "00001"
HERE = Local(processes=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Dataset:
    """Nine pictures in three shards, through all stages of `caplab curate`."""
    folder = tmp_path_factory.mktemp("check")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(9):
        # The last two are one picture.
        Image.fromarray(drawn(min(number, 7), 48, 48)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text(f"picture {number}")
    config, weights = tiny_clip(folder / "clip")
    settings = CurateSettings(
        rows_per_shard=3,
        image_size=32,
        min_side=32,
        clip_model=str(config),
        clip_pretrained=str(weights),
        name="first",
        embedding_similarity=None,
    )
    inputs = look_at(pictures, settings)
    identity = {"input": inputs.address, "rows_per_shard": 3}
    dataset = Dataset.create(folder / "data", identity, provenance(settings))
    plan_shards(inputs, dataset, rows_per_shard=3)
    for stage in (
        LocalPicturesStage(settings.part(DownloadSettings)),
        AltCaptionStage(),
        ScoreStage(settings.part(ScoreSettings)),
    ):
        run_stage(HERE, stage, dataset)
    note_finished(dataset, "samples", TARS, ALT, *SCORE_TABLES)
    write_json(dataset.directory / "scores.json", provenance(settings))
    find_duplicates(dataset, settings.part(DuplicateSettings))
    select(dataset, settings.selection())
    select(dataset, SelectSettings(name="again", where="in_selection('first') and width >= 32"))
    return dataset


@pytest.fixture
def dataset(made, tmp_path) -> Dataset:
    shutil.copytree(made.directory, tmp_path / "data")
    return Dataset(tmp_path / "data")


def tables(dataset: Dataset) -> dict[str, object]:
    """Every table, tar and selection, by path."""
    found = sorted(dataset.directory.rglob("*.parquet")) + sorted(dataset.directory.rglob("*.tar"))
    return {
        str(path.relative_to(dataset.directory)): (
            pq.read_table(path) if path.suffix == ".parquet" else path.read_bytes()
        )
        for path in found
    }


def lose(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def garble_inside(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(range(256)) * 8 + whole[-4:])


def nothing(path: Path) -> None:
    path.write_text("{}")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lose_a_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


def repeat_a_row(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)


def version(path: Path) -> None:
    table = pq.read_table(path)
    notes = {**table.schema.metadata, b"caplab_schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(notes), path)


def lose_a_member(path: Path) -> None:
    write_shard(path, list(iter_members(path))[1:])


Fault = tuple[str, Callable[[Path], None]]
SEEN_FROM_OUTSIDE: list[Fault] = [
    (f"shards/{SHARD}.tar", lose),
    (f"shards/{SHARD}.tar", cut),
    (f"shards/{SHARD}.tar", empty),
    (f"shards/{SHARD}.tar", replace_by_folder),
    (f"tables/samples/{SHARD}.parquet", lose),
    (f"tables/samples/{SHARD}.parquet", cut),
    (f"tables/scores/{SHARD}.parquet", lose),
    (f"tables/scores/{SHARD}.parquet", cut),
    (f"tables/scores/{SHARD}.parquet", garble),
    (f"tables/scores/{SHARD}.parquet", replace_by_folder),
    (f"tables/embeddings/{SHARD}.parquet", lose),
    (f"tables/fingerprints/{SHARD}.parquet", empty),
    (f"tables/captions/alt/{SHARD}.parquet", lose),
    ("tables/duplicates/all.parquet", lose),
    ("tables/duplicate_pairs/all.parquet", cut),
    ("tables/duplicate_searched/all.parquet", lose),
    (f"input/{SHARD}.parquet", lose),
    (f"input/{SHARD}.parquet", cut),
    ("input/input.json", cut),
    ("input/input.json", lose),
]
SEEN_INSIDE: list[Fault] = [
    (f"shards/{SHARD}.tar", lose_a_member),
    (f"tables/samples/{SHARD}.parquet", lose_a_row),
    (f"input/{SHARD}.parquet", lose_a_row),
    (f"input/{SHARD}.parquet", repeat_a_row),
    (f"input/{SHARD}.parquet", garble_inside),
    (f"tables/scores/{SHARD}.parquet", lose_a_row),
    (f"tables/fingerprints/{SHARD}.parquet", version),
    (f"tables/captions/alt/{SHARD}.parquet", repeat_a_row),
    ("tables/duplicate_searched/all.parquet", lose_a_row),
    ("selections/first.parquet", lose_a_row),
    ("selections/first.parquet", cut),
    ("selections/first.json", cut),
    ("selections/again.parquet", lose),
    ("scores.json", garble),
    ("dataset.json", cut),
    ("dataset.json", nothing),
    ("finished/scores.json", cut),
]


def ids(fault: Fault) -> str:
    return f"{fault[1].__name__}-{fault[0]}"


def test_a_whole_dataset_is_whole_also_byte_for_byte(made):
    found = check_dataset(made.directory, read_all=True)
    assert found.whole, found.text()
    assert find_holes(made) == []
    assert "samples: 3 files, 9 rows" in found.lines
    assert "shards: 3 files, 9 pictures" in found.lines


def rounds() -> list[list[Fault]]:
    """All faults in as few datasets as can hold them, each file damaged once."""
    found: list[list[Fault]] = []
    for fault in SEEN_FROM_OUTSIDE + SEEN_INSIDE:
        free = (some for some in found if all(fault[0] != path for path, _ in some))
        some = next(free, None)
        if some is None:
            found.append([fault])
        else:
            some.append(fault)
    return found


@pytest.mark.parametrize("fault", SEEN_FROM_OUTSIDE + SEEN_INSIDE, ids=ids)
def test_what_is_lost_or_cut_is_named_with_the_command_that_repairs_it(fault, dataset):
    path, damage = fault
    damage(dataset.directory / path)
    found = check_dataset(dataset.directory)
    assert path in {str(hole.path.relative_to(dataset.directory)) for hole in found.holes}
    assert "caplab check" in found.text()


@pytest.mark.parametrize("faults", rounds(), ids=lambda some: f"{len(some)}-faults")
def test_what_is_lost_or_cut_is_repaired_to_the_tables_of_an_unbroken_run(faults, dataset, made):
    for path, damage in faults:
        damage(dataset.directory / path)
    mended = check_dataset(dataset.directory, repair=True, runner=HERE)
    assert mended.whole, mended.text()
    whole = tables(made)
    now = tables(dataset)
    assert now.keys() == whole.keys()
    for name, table in whole.items():
        same = table.equals(now[name]) if isinstance(table, pa.Table) else table == now[name]
        assert same, name


@pytest.mark.parametrize("fault", SEEN_FROM_OUTSIDE, ids=ids)
def test_nobody_reads_a_dataset_with_a_hole(fault, dataset, tmp_path):
    path, damage = fault
    damage(dataset.directory / path)
    with pytest.raises(DatasetError, match=r"check .*--repair") as refused:
        select(dataset, SelectSettings(name="new"))
    assert f"{path} is" in str(refused.value) or f"{path} cannot" in str(refused.value)
    with pytest.raises(DatasetError, match=r"has a hole|holes, first"):
        refuse_holes(dataset, ["first"])


def test_export_train_and_report_ask_before_they_read(dataset, tmp_path):
    lose(dataset.directory / f"tables/scores/{SHARD}.parquet")
    for read in (
        lambda: export(dataset, tmp_path / "out", ExportSettings(selection="first")),
        lambda: train(dataset, TrainSettings(), tmp_path / "run", selection="first"),
        lambda: find_inputs(dataset.directory),
    ):
        with pytest.raises(DatasetError, match=f"scores/{SHARD}.parquet is lost"):
            read()
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


def test_a_selection_of_an_unfinished_run_is_refused_and_its_report_is_not(dataset):
    shutil.rmtree(dataset.directory / "finished")  # as if the scoring had been killed
    lose(dataset.directory / f"tables/scores/{SHARD}.parquet")
    with pytest.raises(DatasetError, match=f"not finished: 1 file was .*scores/{SHARD}"):
        select(dataset, SelectSettings(name="new"))
    find_inputs(dataset.directory)


def test_a_lost_tar_is_seen_without_the_record_and_a_dataset_of_tables_alone_is_read(dataset):
    shutil.rmtree(dataset.directory / "finished")
    lose(dataset.shard_path(SHARD))
    with pytest.raises(DatasetError, match=rf"a hole: shards/{SHARD}.tar is lost"):
        select(dataset, SelectSettings(name="new"))
    shutil.rmtree(dataset.directory / "shards")
    assert select(dataset, SelectSettings(name="new")).selected == 8


def test_a_byte_that_changed_inside_a_tar_shows_when_asked_for(dataset):
    tar = dataset.shard_path(SHARD)
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    assert check_dataset(dataset.directory).whole
    found = check_dataset(dataset.directory, read_all=True)
    assert [hole.path for hole in found.holes] == [tar]
    assert "sha256" in found.holes[0].problem


def test_much_that_is_gone_at_once_is_mended_in_the_right_order(dataset, made):
    for path in ("input/input.json", f"shards/{SHARD}.tar", f"input/{SHARD}.parquet",
                 "tables/scores/00000.parquet", "selections/first.parquet"):  # fmt: skip
        cut(dataset.directory / path)
    retry = dataset.directory / "retry" / SHARD
    retry.mkdir(parents=True)
    (retry / "done.json").write_text("{}")
    shutil.copy(made.shard_path(SHARD), retry / "shard.tar")
    shutil.copy(made.table_path("samples", SHARD), retry / "samples.parquet")
    assert check_dataset(dataset.directory, repair=True, runner=HERE).whole
    assert tables(dataset).keys() == tables(made).keys()


def test_a_repair_that_was_killed_goes_on(dataset, made):
    lose(dataset.shard_path(SHARD))
    cut(dataset.table_path("scores", "00002"))
    clear_damaged(dataset, find_holes(dataset))  # and then the power went
    assert check_dataset(dataset.directory, repair=True, runner=HERE).whole
    assert tables(dataset).keys() == tables(made).keys()


def test_a_list_that_changed_since_is_not_taken_for_the_lost_one(dataset, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for number in range(9):
        Image.fromarray(drawn(number, 48, 48)).save(other / f"x{number}.png")
        (other / f"x{number}.txt").write_text("other")
    lose(dataset.input_path(SHARD))
    with pytest.raises(DatasetError, match="not the list any more"):
        check_dataset(dataset.directory, repair=True, source=str(other), runner=HERE)
    assert not dataset.input_path(SHARD).exists()


def test_a_lost_folder_of_the_input_is_read_again(dataset, made):
    record = dataset.record()
    shutil.rmtree(dataset.directory / "input")
    assert check_dataset(dataset.directory, repair=True, runner=HERE).whole
    assert tables(dataset).keys() == tables(made).keys()
    assert dataset.record() == record


def test_a_record_of_another_contract_is_not_promised_a_repair(dataset):
    for path in (dataset.record_path, dataset.record_copy):
        path.write_text(json.dumps({**json.loads(path.read_text()), "contract_version": 99}))
    found = check_dataset(dataset.directory)
    assert "contract version 99, not 1: put it back from a backup" in found.text()


def test_what_only_a_person_can_bring_back_is_named_with_the_command(dataset):
    captions = dataset.table_path("captions", SHARD, "alt")
    mine = dataset.table_path("captions", SHARD, "vlm-1")
    mine.parent.mkdir()
    shutil.copy(captions, mine)
    note_finished(dataset, "captions/vlm-1")
    cut(mine)
    cut(dataset.selection_path("again").with_suffix(".json"))
    found = check_dataset(dataset.directory, repair=True, runner=HERE)
    assert len(found.holes) == 2
    assert "caplab recaption" in found.text()
    assert "captioners/vlm-1.json" in found.text()
    assert "caplab select" in found.text()
    shutil.rmtree(mine.parent)  # nobody loses a whole captioner by accident
    assert [hole.table for hole in check_dataset(dataset.directory).holes] == ["selections"]


def test_samples_that_were_never_scored_are_not_passed_over(dataset):
    table = pq.read_table(dataset.table_path("scores", SHARD))
    pq.write_table(table.slice(1), dataset.table_path("scores", SHARD))
    with pytest.raises(DatasetError, match=r"1 of 9 stored samples .* have no scores yet"):
        select(dataset, SelectSettings(name="new"))


def test_a_record_that_is_no_object_is_one_sentence(dataset):
    for path in ("dataset.json", "selections/first.json"):
        (dataset.directory / path).write_text("[1]")
    with pytest.raises(DatasetError, match="no JSON object"):
        Dataset.open(dataset.directory)
    with pytest.raises(DatasetError, match="no JSON object"):
        dataset.selection_record("first")


def test_a_file_that_no_shard_owns_is_named(dataset):
    shutil.copy(dataset.table_path("scores", SHARD), dataset.table_path("scores", "00009"))
    shutil.copy(dataset.shard_path(SHARD), dataset.shard_path("00009"))
    text = check_dataset(dataset.directory).text()
    assert "scores/00009.parquet belongs to no shard" in text
    assert "shards/00009.tar belongs to no shard" in text


def test_scores_that_only_some_shards_have_are_told(dataset):
    table = dataset.read_table("scores", SHARD)
    dataset.write_table("scores", table.append_column("new", table.column("blur")), SHARD)
    found = check_dataset(dataset.directory)
    assert found.whole
    assert "scored in some shards only: new; the `caplab score` that was stopped" in found.text()


def test_a_folder_that_is_no_dataset_is_a_wrong_argument(tmp_path):
    with pytest.raises(ConfigError, match="is not a dataset"):
        check_dataset(tmp_path)


def test_a_selection_is_named_by_its_name_alone(dataset, made):
    outside = dataset.directory / "secret.parquet"
    pq.write_table(pa.table({"key": ["x"]}), outside)
    shutil.copy(dataset.selection_path("first"), dataset.directory / "tables" / "x.parquet")
    for name in ("../secret", "../tables/x", str(outside.with_suffix("")), "*", "firs?", "", "."):
        with pytest.raises(ConfigError, match="selections: again, first") as refused:
            select(dataset, SelectSettings(name="new", where=f"in_selection('{name}')"))
        assert "\n" not in str(refused.value)
        with pytest.raises(DatasetError, match="selections: again, first"):
            dataset.selection_keys(name)
    assert json.loads((dataset.directory / "selections/first.json").read_text())["selected"] == 8
