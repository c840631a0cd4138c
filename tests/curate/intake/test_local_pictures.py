"""Pictures that are here already: tars, folders and Parquet are stored as downloaded ones are."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError, DatasetError
from curate.download.settings import DownloadSettings
from curate.intake.inspection import inspect_input
from curate.intake.local_pictures import LocalPicturesStage
from curate.intake.read import plan_shards
from curate.pictures.resize import Resizer
from curate.pictures.settings import PictureSettings
from curate.store.accounting import accounting
from curate.store.contract import sample_key
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from tests.curate.tiny import drawn, encoded, hash_of

SETTINGS = DownloadSettings(image_size=64)


def jpeg(seed: int, side: int = 96) -> bytes:
    return encoded(drawn(seed, side, side), "JPEG")


def take_in(source: Path | str, out: Path, rows_per_shard: int = 1000, **options) -> Dataset:
    dataset = Dataset(out)
    plan_shards(inspect_input(source, **options), dataset, rows_per_shard=rows_per_shard)
    stage = LocalPicturesStage(SETTINGS)
    stage.open()
    for shard in dataset.shards():
        stage.run(dataset, shard)
    assert accounting(dataset)["balanced"]
    return dataset


def samples(dataset: Dataset) -> list[dict]:
    return [
        row
        for shard in dataset.shards()
        for row in dataset.read_table("samples", shard).to_pylist()
    ]


def inputs(dataset: Dataset) -> list[dict]:
    return [
        row
        for shard in dataset.shards()
        for row in pq.read_table(dataset.input_path(shard)).to_pylist()
    ]


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def members(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    listed = []
    for n in range(first, first + count):
        listed += [(f"{n:05d}.jpg", jpeg(n)), (f"{n:05d}.txt", f"text {n}".encode())]
    return listed


# ---- tars -------------------------------------------------------------------------------------


def test_a_picture_from_a_tar_is_stored_like_a_downloaded_one(tmp_path):
    write_tar(tmp_path / "in" / "a.tar", members(3))
    dataset = take_in(tmp_path / "in", tmp_path / "out")
    ((_, stored, text), *_) = iter_shard(dataset, "00000")
    expected = Resizer(PictureSettings(image_size=64)).store(jpeg(0))
    assert (stored, text) == (expected.content, "text 0")
    sample = samples(dataset)[0]
    assert sample["sha256"] == hash_of(jpeg(0))
    assert (sample["original_width"], sample["width"], sample["url"]) == (96, 64, None)


def test_keys_are_made_of_the_place_in_the_input_and_the_text_and_old_keys_are_kept(tmp_path):
    write_tar(tmp_path / "in" / "sub" / "a.tar", members(2))
    dataset = take_in(tmp_path / "in", tmp_path / "out")
    first, second = inputs(dataset)
    assert first["key"] == sample_key("file:sub/a.tar#00000", "text 0")
    assert (first["source_file"], second["source_key"]) == ("sub/a.tar", "00001")
    with tarfile.open(dataset.shard_path("00000")) as tar:
        sidecar = json.load(tar.extractfile(f"{second['key']}.json"))
    assert sidecar["source_key"] == "00001"


def test_one_tar_a_glob_braces_and_a_folder_give_the_same_keys(tmp_path):
    for n in range(2):
        write_tar(tmp_path / "in" / f"{n:05d}.tar", members(2, 10 * n))
    found = []
    for number, given in enumerate(("in", "in/*.tar", "in/{00000..00001}.tar", "in/00000.tar")):
        dataset = take_in(str(tmp_path / given), tmp_path / f"out{number}")
        found.append([row["key"] for row in inputs(dataset)])
    assert found[0] == found[1] == found[2]
    assert found[3] == found[0][:2]


def test_a_sample_without_picture_fails_and_one_without_text_is_stored(tmp_path):
    listed = [("a.txt", b"no picture"), ("b.jpg", jpeg(1)), ("c.jpg", b"no jpeg"), ("c.txt", b"x")]
    write_tar(tmp_path / "a.tar", listed)
    dataset = take_in(tmp_path / "a.tar", tmp_path / "out")
    assert [(s["reason"], s["alt_text"]) for s in samples(dataset)] == [
        ("no_picture", "no picture"),
        (None, None),
        ("not_an_image", "x"),
    ]


def test_a_truncated_tar_keeps_what_was_readable_and_counts_the_damage(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(10))
    content = path.read_bytes()
    for number, end in enumerate((len(content) // 2, len(content) // 2 // 512 * 512)):
        path.write_bytes(content[:end])
        dataset = take_in(path, tmp_path / f"out{number}")
        reasons = [sample["reason"] for sample in samples(dataset)]
        assert reasons[:3] == [None, None, None]
        assert reasons[-1] == "damaged_source"


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "a.tar", members(10))
    with tarfile.open(path) as tar:
        at = tar.getmember("00005.jpg").offset
    content = bytearray(path.read_bytes())
    content[at : at + 512] = b"\xff" * 512
    path.write_bytes(content)
    reasons = [s["reason"] for s in samples(take_in(path, tmp_path / "out"))]
    assert reasons == [None] * 5 + ["damaged_source"]


def test_a_packed_tar_and_a_truncated_packed_tar_are_read(tmp_path):
    whole = write_tar(tmp_path / "a.tar", members(6)).read_bytes()
    packed = gzip.compress(whole)
    (tmp_path / "whole.tar.gz").write_bytes(packed)
    (tmp_path / "cut.tgz").write_bytes(packed[: len(packed) // 2])
    dataset = take_in(tmp_path / "whole.tar.gz", tmp_path / "out", rows_per_shard=4)
    assert [s["reason"] for s in samples(dataset)] == [None] * 6
    reasons = [s["reason"] for s in samples(take_in(tmp_path / "cut.tgz", tmp_path / "cut"))]
    assert reasons[:2] == [None, None]
    assert "damaged_source" in reasons
    assert len(reasons) < 6


def img2dataset_output(folder: Path, count: int = 4) -> Path:
    """Tar and Parquet as img2dataset 1.47 writes them; the last row could not be fetched."""
    rows, listed = [], []
    for n in range(count):
        failed = n == count - 1
        row = {
            "url": f"http://a/{n}.jpg",
            "caption": f"caption {n}",
            "punsafe": n / 10,
            "key": f"{n:09d}",
            "status": "failed_to_download" if failed else "success",
            "error_message": "HTTP Error 404: Not Found" if failed else None,
            "width": None if failed else 96,
            "sha256": None if failed else "0" * 64,
        }
        rows.append(row)
        if not failed:
            listed += [
                (f"{n:09d}.jpg", jpeg(n)),
                (f"{n:09d}.json", json.dumps(row).encode()),
                (f"{n:09d}.txt", row["caption"].encode()),
            ]
    write_tar(folder / "00000.tar", listed)
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text('{"count": 4}')
    return folder


def test_the_output_of_img2dataset_keeps_urls_captions_and_its_failures(tmp_path):
    dataset = take_in(img2dataset_output(tmp_path / "in"), tmp_path / "out")
    found = samples(dataset)
    assert [s["url"] for s in found] == [f"http://a/{n}.jpg" for n in range(4)]
    assert [s["alt_text"] for s in found] == [f"caption {n}" for n in range(4)]
    assert [s["reason"] for s in found] == [None, None, None, "not_downloaded"]
    assert found[3]["detail"] == "failed_to_download: HTTP Error 404: Not Found"
    assert found[0]["key"] == sample_key("http://a/0.jpg", "caption 0")
    assert [row["source_key"] for row in inputs(dataset)] == [f"{n:09d}" for n in range(4)]


# ---- folders ----------------------------------------------------------------------------------


def test_a_folder_of_pictures_with_texts_beside_them(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(jpeg(1))
    (folder / "a.txt").write_bytes(b"  two lines\nof text ")
    (folder / "b.png").write_bytes(encoded(drawn(2)))
    (folder / "b.json").write_text(json.dumps({"caption": "from json", "url": "http://b"}))
    (folder / "deep" / "c.jpg").write_bytes(jpeg(3))
    (folder / "lost.txt").write_text("a text whose picture is gone")
    (folder / "d.jpg").write_bytes(jpeg(4))
    (folder / "d.txt").write_bytes(b"caf\xe9")
    dataset = take_in(folder, tmp_path / "out")
    assert [(s["url"], s["alt_text"], s["reason"]) for s in samples(dataset)] == [
        (None, "  two lines\nof text ", None),
        ("http://b", "from json", None),
        (None, None, "unreadable_row"),
        (None, "a text whose picture is gone", "no_picture"),
        (None, None, None),
    ]
    assert inputs(dataset)[4]["key"] == sample_key("file:deep/c.jpg", None)


def test_the_imagefolder_of_hugging_face_takes_texts_from_metadata(tmp_path):
    folder = tmp_path / "in"
    (folder / "train").mkdir(parents=True)
    lines = [
        {"file_name": "train/1.jpg", "text": "one", "aesthetic": 5.5},
        {"file_name": "train/gone.jpg", "text": "gone", "aesthetic": 1.0},
        {"text": "no name"},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "train" / "1.jpg").write_bytes(jpeg(1))
    dataset = take_in(folder, tmp_path / "out")
    assert [(s["alt_text"], s["reason"]) for s in samples(dataset)] == [
        (None, "unreadable_row"),
        ("one", None),
        ("gone", "no_picture"),
    ]
    assert inputs(dataset)[1]["aesthetic"] == 5.5


def test_a_picture_that_vanished_since_is_a_counted_row(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.jpg").write_bytes(jpeg(n))
    dataset = Dataset(tmp_path / "out")
    plan_shards(folder, dataset)
    (folder / "1.jpg").unlink()
    LocalPicturesStage(SETTINGS).run(dataset, "00000")
    assert [s["reason"] for s in samples(dataset)] == [None, "unreadable_file", None]
    with pytest.raises(DatasetError, match="another version of its input"):
        plan_shards(folder, dataset)


# ---- Parquet with pictures --------------------------------------------------------------------


def test_parquet_in_the_layout_of_hugging_face(tmp_path):
    pictures = [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in range(5)]
    pictures[2] = {"bytes": None, "path": "gone.jpg"}
    table = pa.table({"image": pictures, "text": [f"text {n}" for n in range(5)], "n": range(5)})
    pq.write_table(table, tmp_path / "train-00000.parquet", row_group_size=2)
    dataset = take_in(tmp_path / "train-00000.parquet", tmp_path / "out", rows_per_shard=3)
    found = samples(dataset)
    assert [s["reason"] for s in found] == [None, None, "no_picture", None, None]
    assert [s["sha256"] for s in found] == [hash_of(jpeg(n)) if n != 2 else None for n in range(5)]
    assert [(r["source_key"], r["source_offset"], r["n"]) for r in inputs(dataset)][3] == (
        "3.jpg", 3, 3,
    )  # fmt: skip
    assert found[4]["key"] == sample_key("file:train-00000.parquet#4", "text 4")


def test_parquet_with_plain_bytes_and_urls(tmp_path):
    table = pa.table({"jpg": [jpeg(0), jpeg(1)], "url": ["http://a", None], "caption": ["x", "y"]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = take_in(tmp_path / "a.parquet", tmp_path / "out")
    found = samples(dataset)
    assert [(s["url"], s["alt_text"], s["reason"]) for s in found] == [
        ("http://a", "x", None),
        (None, "y", None),
    ]
    assert found[0]["key"] == sample_key("http://a", "x")


# ---- of every kind ----------------------------------------------------------------------------


def test_samples_that_come_twice_have_keys_of_their_own(tmp_path):
    folder = img2dataset_output(tmp_path / "in")
    (folder / "00001.tar").write_bytes((folder / "00000.tar").read_bytes())
    twice = write_tar(tmp_path / "in" / "00002.tar", [*members(1), *members(1)])
    dataset = take_in(folder, tmp_path / "out", rows_per_shard=2)
    keys = [row["key"] for row in inputs(dataset)]
    assert len(keys) == len(set(keys)) == 9
    assert twice.exists()
    assert keys[4] == sample_key("http://a/0.jpg", "caption 0", occurrence=1)


def test_the_same_input_gives_the_same_shards_however_it_was_interrupted(tmp_path):
    write_tar(tmp_path / "in" / "a.tar", members(6))
    whole = take_in(tmp_path / "in", tmp_path / "whole", rows_per_shard=2)
    broken = Dataset(tmp_path / "broken")
    plan_shards(tmp_path / "in", broken, rows_per_shard=2)
    (broken.directory / "input" / "input.json").unlink()  # as if killed before the end
    broken.input_path("00002").unlink()
    broken = take_in(tmp_path / "in", tmp_path / "broken", rows_per_shard=2)
    for shard in whole.shards():
        assert whole.shard_path(shard).read_bytes() == broken.shard_path(shard).read_bytes()
        assert whole.read_table("samples", shard).equals(broken.read_table("samples", shard))


def test_names_that_are_no_utf8_links_in_a_circle_and_pipes_stop_nothing(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(1))
    (folder / "a.json").write_text('{"\\ud800": 1, "caption": "lone \\ud800"}')
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(jpeg(2))
    (folder / "broken.jpg").symlink_to(tmp_path / "nowhere")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    found = samples(take_in(folder, tmp_path / "out"))
    assert [s["reason"] for s in found] == ["unreadable_row", "unreadable_file", "unreadable_file"]
    assert "no UTF-8: caf" in found[2]["detail"]


def test_a_tar_with_names_that_are_no_utf8_is_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    dataset = take_in(write_tar(tmp_path / "a.tar", [(name, jpeg(1))]), tmp_path / "out")
    assert [s["reason"] for s in samples(dataset)] == [None]
    assert inputs(dataset)[0]["source_key"] == "caf\\udce9"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "holds no list, no tar and no picture"),
        (["a.csv", "b.tsv"], "mixes kinds of files"),
        (["a.exe"], "must end in"),
    ],
)
def test_a_folder_of_nothing_usable_is_refused_in_one_sentence(tmp_path, names, says):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("url,text\na,b\n")
    given = folder / "a.exe" if names == ["a.exe"] else folder
    with pytest.raises(ConfigError, match=says) as caught:
        inspect_input(given)
    assert "\n" not in str(caught.value)


def test_a_format_can_be_forced(tmp_path):
    path = tmp_path / "list.data"
    path.write_text("url\ttext\nhttp://a\tb\n")
    assert inspect_input(path, input_format="tsv").url_column == "url"
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        inspect_input(path, input_format="parquet")


def test_the_nasty_files_are_each_accounted_for(real_data, tmp_path):
    dataset = take_in(real_data / "nasty", tmp_path / "out", input_format="folder")
    counts = accounting(dataset)
    assert counts["rows"] > 250
    assert counts["stored"] + counts["failed"] == counts["rows"]
    assert counts["reasons"].get("unexpected", 0) == 0
