import hashlib
import io
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.world.defects import NEAR, UGLY
from pipelines.world.facts import contradicts, facts
from pipelines.world.parse import parse
from pipelines.world.render import render
from pipelines.world.scene import Scene, WorldConfig, sample_scenes
from pipelines.world.web import (
    SHARES,
    TRUTH_SCHEMA,
    Web,
    build_web,
    distinct_scenes,
    mirrored,
    write_urls,
)

CONFIG = WorldConfig.small()
ROWS = 500


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Web:
    return build_web(tmp_path_factory.mktemp("web"), CONFIG, ROWS, seed=3)


@pytest.fixture(scope="module")
def truth(web: Web) -> list[dict]:
    table = pq.read_table(web.truth)
    assert table.schema.equals(TRUTH_SCHEMA)
    return table.to_pylist()


def picture(web: Web, row: dict) -> Image.Image:
    return Image.open(web.directory / row["path"])


def test_every_defect_has_its_declared_share(truth: list[dict]) -> None:
    counts = Counter(row["defect"] for row in truth)
    assert {name: counts[name] / ROWS for name in SHARES} == pytest.approx(SHARES)
    details = {row["detail"] for row in truth}
    assert {*UGLY, *NEAR, "truncated", "html", "empty", "not_found", "refused"} <= details


def test_the_list_shows_a_curator_urls_and_texts_only(web: Web, truth: list[dict]) -> None:
    urls = pq.read_table(web.urls)
    assert urls.column_names == ["url", "alt_text"]
    assert urls["alt_text"].to_pylist() == [row["alt_text"] for row in truth]
    assert len(set(urls["url"].to_pylist())) == ROWS


def test_another_port_changes_the_hosts_and_no_path(web: Web) -> None:
    before = pq.read_table(web.urls)["url"].to_pylist()
    moved = write_urls(web.directory, "http://127.0.0.1:4000/")
    after = pq.read_table(moved.urls)["url"].to_pylist()
    write_urls(web.directory, web.base_url)
    assert [u.split("/", 3)[3] for u in before] == [u.split("/", 3)[3] for u in after]
    assert sum(u.startswith("http://127.0.0.1:4000/pictures/") for u in after) == ROWS - 5
    assert sum(u.startswith("http://127.0.0.1:9/") for u in after) == 5


def test_readable_pictures_decode_and_broken_ones_do_not(web: Web, truth: list[dict]) -> None:
    for row in truth:
        path = web.directory / row["path"]
        if row["defect"] == "dead_link":
            assert not path.exists()
        elif row["readable"]:
            with picture(web, row) as image:
                image.load()
                assert image.width == image.height
                assert (image.width < 32) == (row["defect"] == "too_small")
        else:
            with pytest.raises(OSError):
                Image.open(io.BytesIO(path.read_bytes())).load()


def test_no_picture_shows_a_held_out_pair(truth: list[dict]) -> None:
    shown = {
        (thing.shape, thing.colour)
        for row in truth
        for thing in Scene.from_json(row["scene"]).objects
    }
    assert len(shown) == 42
    assert not shown & CONFIG.held_out


def test_texts_are_what_the_truth_says_of_them(truth: list[dict]) -> None:
    for row in truth:
        false = contradicts(facts(row["alt_text"]), Scene.from_json(row["scene"]))
        assert false == (row["defect"] == "mismatched_text"), row
        assert row["text_matches"] == (row["text_kind"] in ("good", "partial"))


def test_clean_pictures_show_their_scene(web: Web, truth: list[dict]) -> None:
    clean = [row for row in truth if row["clean"] and row["side"] == 128]
    for row in clean:
        image = picture(web, row).convert("RGB").resize((32, 32), Image.Resampling.BOX)
        (parsed,) = parse(np.asarray(image)[None], CONFIG)
        scene = Scene.from_json(row["scene"])
        seen = {(o.shape, o.colour, o.cell) for o in parsed.scene.objects}
        assert seen == {(o.shape, o.colour, o.cell) for o in scene.objects}


def test_a_mirrored_copy_carries_the_mirrored_scene(truth: list[dict]) -> None:
    for row in truth:
        if row["edit"] == "mirror":
            original = Scene.from_json(truth[row["duplicate_group"]]["scene"])
            assert Scene.from_json(row["scene"]) == mirrored(original)
            assert mirrored(mirrored(original)) == original


def test_only_declared_duplicates_repeat_bytes_or_scenes(web: Web, truth: list[dict]) -> None:
    groups = defaultdict(list)
    for row in truth:
        if row["readable"]:
            digest = hashlib.sha256((web.directory / row["path"]).read_bytes()).hexdigest()
            groups[digest].append(row)
    pairs = [group for group in groups.values() if len(group) > 1]
    assert sum(len(group) - 1 for group in pairs) == SHARES["exact_duplicate"] * ROWS
    assert all(len({row["duplicate_group"] for row in group}) == 1 for group in pairs)
    alone = [row["scene"] for row in truth if row["edit"] in ("", "original")]
    assert len(set(alone)) == len(alone)


def test_no_two_scenes_are_mirror_images_of_each_other() -> None:
    def still(scene: Scene) -> Scene:
        return replace(scene, objects=tuple(replace(o, dx=0, dy=0) for o in scene.objects))

    drawn = {still(scene) for scene in sample_scenes(CONFIG, 4000, seed=3)}
    twins = [scene for scene in drawn if mirrored(scene) in drawn and mirrored(scene) != scene]
    assert twins  # so many draws do hold some, and the web leaves one of each two out
    scenes = {still(scene) for scene in distinct_scenes(CONFIG, 1300, seed=3)}
    assert len(scenes) == 1300
    assert all(mirrored(scene) == scene or mirrored(scene) not in scenes for scene in scenes)


def test_the_same_seed_gives_the_same_bytes(web: Web, tmp_path: Path) -> None:
    again = build_web(tmp_path, CONFIG, ROWS, seed=3)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(web.directory) for path in web.directory.rglob("*") if path.is_file()
    )
    for name in files:
        assert (tmp_path / name).read_bytes() == (web.directory / name).read_bytes(), name
    assert again.n_rows == ROWS


def test_too_few_rows_or_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="50"):
        build_web(tmp_path, CONFIG, 10, seed=0)
    poor = WorldConfig(shapes=("ring",), colours=("red",), count_weights=(1.0,))
    with pytest.raises(ValueError, match="too small"):
        build_web(tmp_path, poor, 500, seed=0)


def test_edits_change_the_picture_and_spoilers_spoil_it() -> None:
    original = render(sample_scenes(CONFIG, 1, seed=0), CONFIG, 96)[0]
    for edit in (*NEAR.values(), *UGLY.values()):
        edited = edit(original, np.random.default_rng(0))
        assert edited.dtype == np.uint8
        assert edited.shape != original.shape or (edited != original).any()
