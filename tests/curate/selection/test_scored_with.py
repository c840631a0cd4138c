"""A similarity's CLIP model is on record where the column is."""

from pathlib import Path

from curate.scoring.scored_with import clip_models
from curate.scoring.stage import ScoreSettings, ScoreStage
from tests.curate.tiny import drawn, encoded, make_dataset, tiny_clip


def test_scoring_notes_the_model_of_every_similarity(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [[(encoded(drawn(0)), "a caption")]])
    config, weights = tiny_clip(tmp_path / "clip")
    plain = ScoreSettings(clip_model=str(config), clip_pretrained=str(weights))
    more = plain.model_copy(update={"more_clips": {"b32": f"{config}@{weights}"}})
    columns = ["clip_similarity", "clip_similarity_b32", "aesthetic"]
    for settings in (plain, more, plain):  # a column that is scored no more keeps its note
        ScoreStage(settings).run(dataset, "00000")
        models = clip_models(dataset, columns)
        assert models["clip_similarity"] == f"{config}/{weights}"
    assert models == dict.fromkeys(columns[:2], f"{config}/{weights}")


def test_an_imported_columns_name_tells_its_model_or_nothing_does(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "d", [[]])
    columns = [
        *("imported_similarity", "imported_clip_similarity_vitl14", "imported_clip_similarity"),
        *("clip_b32_similarity_score", "watermark"),
    ]
    assert clip_models(dataset, columns) == {
        "imported_similarity": "ViT-B-32/openai",
        "imported_clip_similarity_vitl14": "ViT-L-14/openai",
        "imported_clip_similarity": None,
        "clip_b32_similarity_score": "ViT-B-32/openai",
    }
