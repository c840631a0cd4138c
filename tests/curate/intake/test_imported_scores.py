"""Scores of the input list stand beside the computed ones, under names of their own."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import ConfigError
from curate.intake.columns import score_columns
from curate.intake.imported_scores import ImportScoresStage
from curate.intake.inspection import inspect_input
from curate.intake.read import plan_shards
from curate.scoring.stage import ScoreSettings, ScoreStage
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from tests.curate.intake.test_local_pictures import SETTINGS, LocalPicturesStage, jpeg, write_tar
from tests.curate.tiny import tiny_clip

LAION = ["URL", "TEXT", "WIDTH", "HEIGHT", "similarity", "punsafe", "pwatermark", "hash"]
COYO = ["id", "url", "text", "image_phash", "num_faces", "clip_similarity_vitb32", "width"]
DATACOMP = ["uid", "url", "text", "original_width", "clip_l14_similarity_score", "sha256"]


@pytest.mark.parametrize(
    ("names", "url", "imported"),
    [
        (LAION, "URL", ["similarity", "punsafe", "pwatermark"]),
        (COYO, "url", ["num_faces", "clip_similarity_vitb32"]),
        (DATACOMP, "url", ["clip_l14_similarity_score"]),
    ],
)
def test_public_lists_are_recognised_without_options(tmp_path, names, url, imported):
    table = pa.table({name: ["1"] for name in names})
    pq.write_table(table, tmp_path / "list.parquet")
    source = inspect_input(tmp_path / "list.parquet")
    assert source.url_column == url
    assert source.imported == {name: f"imported_{name.lower()}" for name in imported}
    hashes = {name for name in source.columns if name == "sha256"}
    assert hashes == set(names) & {"sha256"}


def test_further_columns_are_imported_where_they_are_named():
    assert score_columns(["Mine", "x"], ["Mine"]) == {"Mine": "imported_mine"}
    with pytest.raises(ConfigError, match="no column 'yours' to import"):
        score_columns(["Mine"], ["yours"])
    with pytest.raises(ConfigError, match="both be imported as imported_punsafe"):
        score_columns(["punsafe", "PUNSAFE"])


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Pictures with LAION's scores in their sidecars; the second lacks one."""
    members = []
    for n in range(6):
        fields = {"url": f"http://a/{n}", "punsafe": n / 10, "NSFW": "UNLIKELY"}
        if n == 1:
            del fields["punsafe"]
        picture = b"broken" if n == 3 else jpeg(n)
        members += [(f"{n}.jpg", picture), (f"{n}.json", json.dumps(fields).encode())]
        members += [(f"{n}.txt", b" t &amp; u")]
    write_tar(tmp_path / "a.tar", members)
    dataset = Dataset.create(tmp_path / "out", {}, {})
    plan_shards(tmp_path / "a.tar", dataset, rows_per_shard=4)
    for shard in dataset.shards():
        LocalPicturesStage(SETTINGS).run(dataset, shard)
    return dataset


def test_imported_scores_survive_beside_computed_ones_and_can_be_selected_on(dataset, tmp_path):
    config, weights = tiny_clip(tmp_path / "clip")
    score = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))
    score.open()
    stage = ImportScoresStage()
    for shard in dataset.shards():
        score.run(dataset, shard)
        assert not stage.is_done(dataset, shard)
        stage.run(dataset, shard)
        assert stage.is_done(dataset, shard)
        assert score.is_done(dataset, shard)
    rows = dataset.connect().execute(
        "SELECT url, imported_punsafe, imported_nsfw, clip_similarity IS NOT NULL, text_normalised "
        "FROM scores JOIN samples USING (key) ORDER BY row"
    )
    assert rows.fetchall() == [
        (f"http://a/{n}", None if n == 1 else n / 10, "UNLIKELY", True, "t & u")
        for n in (0, 1, 2, 4, 5)
    ]
    summary = select(dataset, SelectSettings(where="imported_punsafe < 0.3", keep_duplicates=True))
    assert summary.selected == 2
    again = ScoreStage(
        ScoreSettings(clip_model=str(config), clip_pretrained=str(weights), jpeg_draft=False)
    )
    again.open()
    for shard in dataset.shards():
        again.run(dataset, shard)  # other settings: computed columns change, imported ones stay
        assert stage.is_done(dataset, shard)
    names = pq.read_schema(dataset.table_path("scores", "00000")).names
    assert {"imported_punsafe", "imported_nsfw", "clip_similarity"} <= set(names)
