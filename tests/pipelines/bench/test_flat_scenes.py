from pathlib import Path

from pipelines.bench.duplicates.flat import flat_figures


def test_the_duplicates_of_a_small_flat_web_are_found_and_nothing_else(tmp_path: Path) -> None:
    figures = {figure.name: figure.value for figure in flat_figures(tmp_path, rows=60)}
    assert figures["duplicates/flat/samples"] > 40
    assert figures["duplicates/flat/recall"] == figures["duplicates/flat/precision"] == 1
    assert not list(tmp_path.iterdir())
