"""`caplab bench captioner-fit` scores every captioner that a fit leaves."""

from __future__ import annotations

from pathlib import Path

from pipelines.bench.caption.fitted import captioner_fit_figures


def test_each_checkpoint_and_captioner_has_its_figures_and_the_last_one_goals(
    tmp_path: Path,
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "{kinds: [descriptive], width: 16, heads: 2, depth: 1, vision_depth: 1, batch_size: 8, "
        "epochs: 1, pretrain_epochs: 1, validations: 1, checkpoints: [0.5]}"
    )
    figures = captioner_fit_figures(tmp_path / "run", 16, 24, 4, 0, threads=1, config=config)
    named = {figure.name.removeprefix("captioner_fit/"): figure for figure in figures}
    for captioner in ("descriptive-0.5", "descriptive"):
        assert 0 <= named[f"{captioner}/precision"].value <= 1
        assert named[f"{captioner}/held_out_loss"].value > 1
    assert [name for name, figure in named.items() if figure.goal is not None] == [
        "descriptive/precision",
        "descriptive/recall",
        "total/cpu",
    ]
    assert named["descriptive/precision"].met is False, "two steps cannot teach it"
    assert named["fit/cpu"].value > 0
    assert (tmp_path / "run" / "captioner" / "pretrained" / "model.safetensors").exists()
