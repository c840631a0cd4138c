import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from curate.base.errors import ConfigError, DatasetError
from curate.duplicates.search import find_duplicates
from curate.duplicates.settings import DuplicateSettings
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip


@pytest.fixture(scope="module")
def score(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Dataset], None]:
    config, weights = tiny_clip(tmp_path_factory.mktemp("clip"))
    stage = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))

    def run(dataset: Dataset) -> None:
        for shard in dataset.shards():
            stage.run(dataset, shard)

    return run


def jpeg(image: Image.Image, quality: int = 88) -> bytes:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> bytes:
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return jpeg(image.crop(tuple(round(edge) for edge in box)))


def label(image: Image.Image) -> bytes:
    marked = image.copy()
    width, height = image.size
    pen = ImageDraw.Draw(marked)
    pen.rectangle((0, height * 0.89, width * 0.45, height), fill=(30, 30, 30))
    pen.text((4, height * 0.89), "(c) a photographer", fill="white", font_size=height * 0.08)
    return jpeg(marked)


EDITS: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg 50": lambda image: jpeg(image, 50),
    "half size": lambda image: jpeg(image.resize((image.width // 2, image.height // 2))),
    "other aspect": lambda image: jpeg(image.resize((image.width, int(image.height * 0.88)))),
    "darker": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.8)),
    "more contrast": lambda image: jpeg(ImageEnhance.Contrast(image).enhance(1.2)),
    "mirror": lambda image: jpeg(ImageOps.mirror(image)),
    "label": label,
    "centre crop 6%": lambda image: cut(image, 0.03, 0.03, 0.03, 0.03),
    "uneven crop": lambda image: cut(image, 0.01, 0.03, 0.02, 0.04),
    "12% off one corner": lambda image: cut(image, 0.12, 0.12, 0, 0),
    "turned": lambda image: jpeg(image.rotate(2, Image.Resampling.BICUBIC)),
    "grey": lambda image: jpeg(ImageOps.grayscale(image)),
}


def copies(
    dataset: Dataset, score: Callable[[Dataset], None], originals: int
) -> tuple[float, float]:
    """Precision of the near pairs, and recall of the copies: texts are "N original", "N edit"."""
    score(dataset)
    find_duplicates(dataset, DuplicateSettings(embedding_similarity=None))
    rows = dataset.connect().execute(
        "SELECT a.alt_text, b.alt_text FROM duplicate_pairs p JOIN samples a ON a.key = key_a "
        "JOIN samples b ON b.key = key_b WHERE method = 'near'"
    )
    pairs = [(a.split()[0], b.split()[0], a, b) for a, b in rows.fetchall()]
    right = [pair for pair in pairs if pair[0] == pair[1]]
    found = {text for pair in right for text in pair[2:] if "edit" in text}
    return len(right) / max(len(pairs), 1), len(found) / originals


@pytest.mark.parametrize("edit", EDITS)
def test_edited_copies_of_drawn_pictures_are_found(
    edit: str, score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    pictures = [Image.fromarray(drawn(seed, 160, 128)) for seed in range(40)]
    samples = [(jpeg(picture, 92), f"{i} original") for i, picture in enumerate(pictures)]
    samples += [(EDITS[edit](picture), f"{i} edit") for i, picture in enumerate(pictures[:20])]
    precision, recall = copies(make_dataset(tmp_path / "d", [samples]), score, 20)
    assert precision == 1
    assert recall >= 0.95


@pytest.mark.parametrize("edit", EDITS)
def test_edited_copies_of_photographs_are_found(
    edit: str, score: Callable[[Dataset], None], tmp_path: Path, real_data: Path
) -> None:
    files = sorted((real_data / "openstax" / "images_512").rglob("*.jpg"))[::38]
    samples = [(file.read_bytes(), f"{i} original") for i, file in enumerate(files)]
    pictures = [Image.open(file).convert("RGB") for file in files[:25]]
    samples += [(EDITS[edit](picture), f"{i} edit") for i, picture in enumerate(pictures)]
    precision, recall = copies(make_dataset(tmp_path / "d", [samples]), score, 25)
    assert precision >= 0.97  # two of these photographs stand in two chapters
    assert recall >= 0.96


def test_published_edits_of_one_photograph_are_found(
    score: Callable[[Dataset], None], tmp_path: Path, real_data: Path
) -> None:
    folder = real_data / "neardup" / "imagededup" / "mixed_images"
    names = ["ukbench00120.jpg", "ukbench00120_hflip.jpg", "ukbench00120_resize.jpg"]
    others = sorted((real_data / "openstax" / "images_512").rglob("*.jpg"))[:30]
    samples = [((folder / name).read_bytes(), f"0 edit {name}") for name in names]
    samples += [(path.read_bytes(), f"{i + 1} original") for i, path in enumerate(others)]
    precision, recall = copies(make_dataset(tmp_path / "d", [samples]), score, 3)
    assert (precision, recall) == (1, 1)


def small_world(directory: Path) -> Dataset:
    """Two exact copies, a re-encoded half-size copy, a mirrored one, and five strangers."""
    image = Image.fromarray(drawn(1, 160, 128))
    same = jpeg(image)
    samples = [
        (same, "copy"),
        (same, "copy again"),
        (EDITS["half size"](image), "small"),
        (EDITS["mirror"](image), "mirrored"),
        *[(encoded(drawn(seed)), f"stranger {seed}") for seed in range(2, 7)],
    ]
    return make_dataset(directory, [samples[:4], samples[4:]])


def test_levels_are_cumulative_and_the_best_is_kept(
    score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    dataset = small_world(tmp_path / "d")
    score(dataset)
    counts = find_duplicates(dataset, DuplicateSettings(embedding_similarity=0.5))
    assert counts["samples"] == 9
    assert (counts["exact_pairs"], counts["exact_dropped"]) == (1, 1)
    assert (counts["near_dropped"], counts["embedding_dropped"]) == (3, 3)
    groups = dataset.read_table("duplicates").to_pylist()
    near = [row for row in groups if row["method"] == "near"]
    assert len(near) == 4
    (kept,) = [row for row in near if row["kept"]]
    assert {row["group"] for row in near} == {kept["key"]}
    sizes = dataset.connect().execute("SELECT key, width FROM samples").fetchall()
    assert dict(sizes)[kept["key"]] == 160


def test_the_quality_decides_what_is_kept(score: Callable[[Dataset], None], tmp_path: Path) -> None:
    dataset = small_world(tmp_path / "d")
    score(dataset)
    find_duplicates(dataset, DuplicateSettings(quality=["-width"]))
    kept = dataset.connect().execute(
        "SELECT DISTINCT alt_text FROM duplicates JOIN samples USING (key) "
        "WHERE kept AND method = 'near'"
    )
    assert kept.fetchall() == [("small",)]


def test_the_tables_are_the_same_bytes_on_every_run_and_with_any_threads(
    score: Callable[[Dataset], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_world(tmp_path / "d")
    score(dataset)
    written = []
    for threads, block in ((1, 1024), (1, 1024), (3, 2)):
        monkeypatch.setattr("curate.duplicates.verify.verifier._BLOCK", block)
        find_duplicates(dataset, DuplicateSettings(duplicate_threads=threads))
        paths = [dataset.table_path(table) for table in ("duplicate_pairs", "duplicates")]
        written.append([path.read_bytes() for path in paths])
        for path in paths:
            path.unlink()
    assert written[0] == written[1] == written[2]


def test_finished_work_is_not_repeated_and_other_settings_are_new_work(
    score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    dataset = small_world(tmp_path / "d")
    score(dataset)
    counts = find_duplicates(dataset, DuplicateSettings())
    path = dataset.table_path("duplicates")
    written = path.stat().st_mtime_ns
    assert find_duplicates(dataset, DuplicateSettings(duplicate_threads=2)) == counts
    assert path.stat().st_mtime_ns == written
    find_duplicates(dataset, DuplicateSettings(near_bits=4))
    assert path.stat().st_mtime_ns > written


def test_a_selection_drops_what_duplicates_say(
    score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    dataset = small_world(tmp_path / "d")
    score(dataset)
    counts = find_duplicates(dataset, DuplicateSettings())
    summary = select(dataset, SelectSettings(name="one", where="true"))
    assert summary.selected == summary.stored - counts["embedding_dropped"] == 6


def test_flat_pictures_are_copies_only_when_equal(
    score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    def flat(level: int) -> bytes:
        return encoded(np.full((64, 64, 3), level, np.uint8))

    samples = [(flat(level), f"grey {level}") for level in (10, 10, 60, 120, 121, 250)]
    dataset = make_dataset(tmp_path / "d", [samples])
    score(dataset)
    counts = find_duplicates(dataset, DuplicateSettings(embedding_similarity=0.0))
    assert counts == {
        "samples": 6, "crowded": 0, "exact_pairs": 1, "exact_dropped": 1, "near_pairs": 0,
        "near_dropped": 1,
        "embedding_pairs": 0, "embedding_dropped": 1,
    }  # fmt: skip


def test_equal_pixels_in_other_files_are_exact_copies(
    score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    samples = [(encoded(drawn(1)), "png"), (encoded(drawn(1), compress_level=1), "other bytes")]
    samples += [(b"broken", "a"), (b"broken", "same broken bytes"), (b"broken too", "c")]
    dataset = make_dataset(tmp_path / "d", [samples])
    score(dataset)
    assert find_duplicates(dataset, DuplicateSettings())["exact_pairs"] == 2


def test_no_duplicates_write_empty_tables(score: Callable[[Dataset], None], tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [[(encoded(drawn(1)), "alone")]])
    score(dataset)
    assert set(find_duplicates(dataset, DuplicateSettings()).values()) == {0, 1}
    assert dataset.read_table("duplicate_pairs").num_rows == 0
    assert dataset.has_shard("duplicates")


def test_wrong_quality_and_missing_fingerprints_are_refused(
    score: Callable[[Dataset], None], tmp_path: Path
) -> None:
    dataset = small_world(tmp_path / "d")
    with pytest.raises(DatasetError, match="no fingerprints"):
        find_duplicates(dataset, DuplicateSettings())
    score(dataset)
    with pytest.raises(ConfigError, match="quality"):
        find_duplicates(dataset, DuplicateSettings(quality=["beauty"]))
