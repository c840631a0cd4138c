from pathlib import Path

from pipelines.commands.recaption import RecaptionCommandSettings, recaption
from tests.curate.tiny import drawn, encoded, make_dataset
from tests.recaption.moody_server import moody_server


def test_the_command_marks_captions_that_repeat_another_pictures_and_says_how_many(
    tmp_path: Path,
) -> None:
    samples = [(encoded(drawn(number)), f"alt {number}") for number in range(6)]
    dataset = make_dataset(tmp_path / "set", [samples[:3], samples[3:]])
    with moody_server() as server:
        # Its captions differ in one word of twelve, a number: half of their three-word runs agree.
        settings = RecaptionCommandSettings(
            captioner=server.url,
            kinds=("descriptive",),
            t5_tokenizer="",
            near_duplicate_threshold=0.5,
        )
        first = recaption(dataset.directory, settings)
        again = recaption(dataset.directory, settings)
    rows = [
        row
        for shard in dataset.shards()
        for row in dataset.read_table("captions", shard, first.source).to_pylist()
    ]
    marked = sum("near_duplicate" in row["flags"] for row in rows)
    assert marked >= 4
    assert all(row["status"] == "ok" for row in rows)
    assert first.text().endswith(f"{marked} nearly repeat the caption of another picture")
    assert again == first
