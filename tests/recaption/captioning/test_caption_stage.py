import json
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from caption_dataset import captions, make_dataset, stored_keys
from moody_server import MoodyServer, moody_server

from curate.base.errors import ConfigError, DatasetError
from curate.base.settings import load_settings
from curate.store.contract import CAPTIONS_VOLATILE
from curate.store.dataset import Dataset
from recaption.captioning.alt_texts import AltCaptionStage
from recaption.captioning.ask import row_seed
from recaption.captioning.parts import ShardCaptions
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage
from recaption.judging.measure import measure_captions
from recaption.judging.settings import JudgeSettings
from recaption.prompts.templates import JSON


@pytest.fixture(scope="module")
def moody() -> Iterator[MoodyServer]:
    with moody_server() as running:
        yield running


def stage_of(captioner: object, **settings: object) -> CaptionStage:
    quick = {
        "captioner": str(getattr(captioner, "url", captioner)),
        "batch_size": 4,
        "max_new_tokens": {"short": 8, "descriptive": 16},
        "request_attempts": 2,
        "patience": 0.5,
    }
    return CaptionStage(load_settings(RecaptionSettings, None, {**quick, **settings}))


def run_all(stage: CaptionStage, dataset: Dataset) -> dict[str, int]:
    total: dict[str, int] = {}
    for shard in dataset.shards():
        if not stage.is_done(dataset, shard):
            for name, count in stage.run(dataset, shard).items():
                total[name] = total.get(name, 0) + count
    return total


def rows_of(dataset: Dataset, source: str) -> list[dict]:
    tables = [dataset.read_table("captions", shard, source) for shard in dataset.shards()]
    return pa.concat_tables(tables).to_pylist()


def ids(rows: list[dict]) -> list[tuple]:
    return sorted((row["key"], row["kind"], row["sample_index"]) for row in rows)


def steady_table(dataset: Dataset, source: str, shard: str = "00000") -> pa.Table:
    """A shard's captions without the columns in which two equal runs differ."""
    table = dataset.read_table("captions", shard, source)
    return table.drop_columns(list(CAPTIONS_VOLATILE))


def test_every_key_kind_and_sample_has_exactly_one_row(tmp_path: Path, llava: Path) -> None:
    dataset = make_dataset(tmp_path / "set", broken=(3,))
    stage = stage_of(llava, samples_per_image=2, temperature=1.0)
    counts = run_all(stage, dataset)
    rows = rows_of(dataset, stage.source)

    wanted = [(k, kind, i) for k in stored_keys(dataset) for kind in stage.plans for i in (0, 1)]
    assert ids(rows) == sorted(wanted)
    assert all(stage.is_done(dataset, shard) for shard in dataset.shards())
    assert counts["failed"] == counts["failed:broken_picture"] == 4
    assert counts["ok"] + counts.get("rejected", 0) + counts["failed"] == len(wanted)
    for row in rows:
        assert (row["text"] is not None) == (row["status"] == "ok")
        assert (row["reason"] is None) == (row["status"] == "ok")


def test_a_row_says_where_it_came_from(tmp_path: Path, moody: MoodyServer) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1)
    stage = stage_of(moody, show_alt_text=True, kinds=("short",))
    run_all(stage, dataset)
    rows = rows_of(dataset, stage.source)
    row = next(row for row in rows if row["alt_text_shown"])

    assert row["engine"] == "http"
    assert row["model"] == "tiny-vlm"
    assert row["prompt_id"] == "short@1"
    assert row["prompt_sha256"] == stage.plans["short"].template.sha256
    assert row["raw_text"].startswith("A picture numbered")
    assert row["seed"] == row_seed(0, row["key"], "short", 0, attempt=0)
    assert '"temperature": 0.0' in row["sampling"]
    assert len(row["image_sha256"]) == 64
    assert row["image_width"] in (40, 44, 48), "as stored"
    assert row["image_height"] == 40
    assert row["words"] == len(row["text"].split())
    assert sum(not row["alt_text_shown"] for row in rows) == 1, "one sample has no alt text"


def test_what_a_gate_rejects_is_asked_again_with_another_seed_and_more_heat(
    tmp_path: Path, moody: MoodyServer
) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1, per_shard=2)
    # The server answers so small a limit with a text that is cut off.
    stage = stage_of(moody, kinds=("short",), max_new_tokens={"short": 4}, retries=2)
    run_all(stage, dataset)
    for row in rows_of(dataset, stage.source):
        assert (row["status"], row["reason"]) == ("rejected", "truncated")
        assert row["attempts"] == 3
        assert row["seed"] == row_seed(0, row["key"], "short", 0, attempt=2)
        assert '"temperature": 0.7' in row["sampling"]


def test_more_kinds_samples_or_keys_only_add_rows(tmp_path: Path, llava: Path) -> None:
    dataset = make_dataset(tmp_path / "set")
    keys = stored_keys(dataset)
    dataset.write_selection("few", pa.array(keys[::3]), {})
    common = {"temperature": 1.0}
    few = stage_of(llava, selection="few", kinds=("short",), **common)
    run_all(few, dataset)
    before = rows_of(dataset, few.source)
    assert len(before) == len(keys[::3])

    everything = stage_of(llava, samples_per_image=2, **common)
    assert everything.source == few.source
    counts = run_all(everything, dataset)
    after = rows_of(dataset, few.source)
    assert counts["kept"] == len(before)
    assert len(after) == len(keys) * 2 * 2
    assert all(row in after for row in before)
    assert few.is_done(dataset, "00000")

    dataset.write_selection("few", pa.array(keys), {})
    assert few.is_done(dataset, "00000"), "the larger selection is captioned already"


def test_another_captioner_prompt_or_sampling_never_overwrites(
    tmp_path: Path, llava: Path, qwen: Path, moody: MoodyServer
) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("short: {text: Say what it is.}")
    stages = [
        stage_of(llava),
        stage_of(qwen),
        stage_of(moody),
        stage_of(llava, prompts=str(prompts)),
        stage_of(llava, temperature=0.5),
        stage_of(llava, show_alt_text=True),
        stage_of(llava, image_size=64),
        stage_of(llava, seed=1),
    ]
    assert len({stage.source for stage in stages}) == len(stages)
    same = stage_of(llava, batch_size=7, checkpoint_rows=3, device="cpu", kinds=("descriptive",))
    assert same.source == stages[0].source


def test_captions_depend_on_neither_batches_nor_checkpoints(tmp_path: Path, llava: Path) -> None:
    tables = []
    for number, sizes in enumerate([{"batch_size": 1}, {"batch_size": 16, "checkpoint_rows": 5}]):
        dataset = make_dataset(tmp_path / str(number), shards=1)
        stage = stage_of(llava, temperature=1.0, **sizes)
        run_all(stage, dataset)
        tables.append(captions(dataset, "00000", stage.source))
    assert tables[0].equals(tables[1])


def test_a_killed_shard_keeps_its_parts_and_ends_as_an_unbroken_one(
    tmp_path: Path, moody: MoodyServer
) -> None:
    whole = make_dataset(tmp_path / "whole", shards=1)
    stage = stage_of(moody, checkpoint_rows=3)
    run_all(stage, whole)

    broken = make_dataset(tmp_path / "broken", shards=1)
    script = f"""
        import os, signal
        from curate.store.contract import CAPTIONS_VOLATILE
        from curate.store.dataset import Dataset
        from recaption.captioning.parts import ShardCaptions
        from recaption.captioning.stage import CaptionStage
        from recaption.captioning.settings import RecaptionSettings

        add_part, parts = ShardCaptions.add_part, []

        def die_after_two(self, rows):
            add_part(self, rows)
            parts.append(rows)
            if len(parts) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        ShardCaptions.add_part = die_after_two
        settings = RecaptionSettings(**{stage.settings.resolved()!r})
        CaptionStage(settings).run(Dataset({str(broken.directory)!r}), "00000")
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not broken.has_table("captions"), "no reader sees a shard half done"
    assert not stage.is_done(broken, "00000")
    kept = len(ShardCaptions(broken, stage.source, "00000").written())

    counts = stage.run(broken, "00000")
    assert counts["kept"] == kept >= 6
    again = captions(broken, "00000", stage.source)
    assert again.equals(captions(whole, "00000", stage.source))
    assert not ShardCaptions(broken, stage.source, "00000").scratch.exists()


def test_a_lost_shard_is_written_again_and_the_others_stay(tmp_path: Path, llava: Path) -> None:
    dataset = make_dataset(tmp_path / "set")
    stage = stage_of(llava)
    run_all(stage, dataset)
    first, second = (dataset.table_path("captions", s, stage.source) for s in dataset.shards())
    content, kept_since = captions(dataset, "00001", stage.source), first.stat().st_mtime_ns
    second.unlink()
    run_all(stage, dataset)
    assert captions(dataset, "00001", stage.source).equals(content)
    assert first.stat().st_mtime_ns == kept_since


def test_a_picture_that_is_not_in_the_shard_is_a_failed_row(tmp_path: Path, llava: Path) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1)
    larger = make_dataset(tmp_path / "larger", shards=1, per_shard=9)
    dataset.write_table("samples", larger.read_table("samples", "00000"), "00000")
    stage = stage_of(llava)
    counts = run_all(stage, dataset)
    assert counts["failed:missing_picture"] == 3 * 2
    assert stage.is_done(dataset, "00000")


def test_pictures_behind_a_damaged_place_are_failed_rows_and_written_once_it_is_mended(
    tmp_path: Path, llava: Path
) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1)
    tar = dataset.shard_path("00000")
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    stage = stage_of(llava)
    counts = run_all(stage, dataset)
    assert counts["failed"] == counts["failed:missing_picture"]
    assert 0 < counts["failed"] < 6 * 2
    lost = [row for row in rows_of(dataset, stage.source) if row["status"] == "failed"]
    assert all("damaged" in row["detail"] for row in lost)
    assert counts["failed"] + counts["ok"] + counts["rejected"] == 6 * 2

    tar.write_bytes(whole)
    run_all(stage_of(llava, retry_failed=True), dataset)
    assert not [row for row in rows_of(dataset, stage.source) if row["status"] == "failed"]


def test_a_shard_whose_tar_is_gone_is_no_row_s_failure(tmp_path: Path, llava: Path) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1)
    dataset.shard_path("00000").unlink()
    with pytest.raises(
        DatasetError, match=r"is missing; `caplab check .* --repair` fetches it again"
    ):
        run_all(stage_of(llava), dataset)


def test_failed_rows_are_kept_until_asked_for_again(tmp_path: Path, moody: MoodyServer) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1, broken=(0, 2))
    stage = stage_of(moody)
    assert run_all(stage, dataset)["failed"] == 4
    assert run_all(stage, dataset) == {}

    make_dataset(tmp_path / "mended", shards=1)
    mended = Dataset(tmp_path / "mended")
    dataset.shard_path("00000").write_bytes(mended.shard_path("00000").read_bytes())
    again = stage_of(moody, retry_failed=True)
    assert again.source == stage.source
    counts = run_all(again, dataset)
    assert (counts["kept"], counts["ok"]) == (8, 4)
    assert len(ids(rows_of(dataset, stage.source))) == 12


def test_alt_texts_become_captions_and_empty_ones_fail(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1)
    stage = AltCaptionStage()
    assert stage.run(dataset, "00000") == {"ok": 5, "failed": 1}
    assert stage.is_done(dataset, "00000")
    rows = rows_of(dataset, "alt")
    assert sorted(row["text"] for row in rows if row["text"])[0] == "alt text of row 0"
    assert [row["reason"] for row in rows if row["status"] == "failed"] == ["empty"]
    assert ids(rows) == sorted((key, "alt", 0) for key in stored_keys(dataset))
    counted = {(row["words"], row["clip_tokens"]) for row in rows}
    assert counted == {(5, 7), (None, None)}, "five words and the marks of start and end"


def test_a_stage_travels_by_pickle(llava: Path) -> None:
    stage = stage_of(llava)
    stage.open()
    copy = pickle.loads(pickle.dumps(stage))
    assert copy.source == stage.source
    assert len(pickle.dumps(stage)) < 20_000, "settings only, no weights"


def test_captions_are_measured_by_source_and_kind(tmp_path: Path, moody: MoodyServer) -> None:
    dataset = make_dataset(tmp_path / "set", shards=1)
    stage = stage_of(moody, max_new_tokens={"short": 4})
    run_all(stage, dataset)
    AltCaptionStage().run(dataset, "00000")
    alt, short, descriptive = measure_captions(dataset, JudgeSettings()).sets

    assert (alt.set.source, alt.counts.rows) == ("alt", 6)
    assert alt.counts.distributions["words"].mean == 5.0
    assert short.counts.accepted == 0
    assert short.counts.reasons == {"truncated": 6}
    assert short.counts.retried == 6
    assert descriptive.counts.accepted == 6
    assert descriptive.sample is not None
    assert descriptive.sample.distinct_texts == 1.0
    assert descriptive.sample.openings == {"a picture numbered": 1.0}
    assert 0 < descriptive.sample.distinct_2 < 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "needs a value for 'captioner'"),
        ({"captioner": "no/such/folder/here"}, "neither a folder, nor a hub id"),
        ({"captioner": "x", "kindz": ["short"]}, "did you mean 'kinds'"),
        ({"captioner": "x", "kinds": []}, "kinds"),
        ({"captioner": "x", "kinds": ["alt"]}, "alt texts are not captioned"),
        ({"captioner": "x", "samples_per_image": 3}, "needs a temperature above 0"),
        ({"captioner": "x", "reject": ["lop"]}, "did you mean 'loop'"),
        ({"captioner": "x", "api_key_env": "sk-12 34"}, "must be the NAME"),
        ({"captioner": "http://me:secret@host/v1"}, "holds a password"),
        ({"captioner": "LLAVA", "kinds": ["shrt"]}, "did you mean 'short'"),
        ({"captioner": "LLAVA", "engine": "http"}, "needs a URL"),
        ({"captioner": "LLAVA", "prompts": "/no/file.yaml"}, "cannot be read"),
        ({"captioner": "BLIP", "kinds": ["descriptive"]}, "no prompt for captions of kind"),
        ({"captioner": "BLIP", "kinds": ["short"], "show_alt_text": True}, "cannot show the alt"),
        ({"captioner": "EMPTY"}, "holds no .safetensors"),
        ({"captioner": "http://127.0.0.1:9/v1"}, "No model answers"),
    ],
)
def test_a_wrong_setting_gets_one_sentence_before_any_work(
    settings: dict, says: str, llava: Path, blip: Path, tmp_path: Path
) -> None:
    places = {"LLAVA": str(llava), "BLIP": str(blip), "EMPTY": str(tmp_path)}
    given = {k: places.get(v, v) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(ConfigError) as raised:
        CaptionStage(load_settings(RecaptionSettings, None, given))
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "sk-12" not in str(raised.value)


def test_structured_captions_are_stored_as_one_serialisation_and_others_rejected_by_name(
    tmp_path: Path, moody: MoodyServer
) -> None:
    ring = '{"objects": [{"name": "ring", "attributes": ["red"]}]}'
    answers = {
        "0": (f"```json\n{ring}\n```", "stop"),
        "1": ("{'Objects': [{'name': 'ring', 'attributes': ['red'],}]} Enjoy!", "length"),
        "2": ("I'm sorry, but I cannot help with this image.", "stop"),
        "3": (ring[:30], "length"),
        "4": (ring.replace('"red"', "1e999"), "stop"),
        "5": ("A red ring on white.", "stop"),
    }
    for row, (text, finish) in answers.items():
        choice = {"message": {"content": text}, "finish_reason": finish}
        alt_text = None if row == "4" else f"alt text of row {row}"
        (prompt,) = JSON.render([alt_text], show_alt_text=True)
        body = json.dumps({"choices": [choice]}).encode()
        moody.scripted[prompt] = (200, {"Content-Type": "application/json"}, body)
    dataset = make_dataset(tmp_path / "set", shards=1)
    stage = stage_of(moody, kinds=("structured",), show_alt_text=True)
    run_all(stage, dataset)

    order = {key: row for row, key in enumerate(stored_keys(dataset))}
    rows = sorted(rows_of(dataset, stage.source), key=lambda row: order[row["key"]])
    assert [row["reason"] for row in rows] == [
        *(None, None, "refusal", "truncated", "json_number", "json_syntax")
    ]
    assert [row["text"] for row in rows] == [ring, ring, None, None, None, None]
    assert [row["attempts"] for row in rows] == [1, 1, 2, 2, 2, 2]
    assert rows[4]["flags"] == ["json_number"]
    assert rows[4]["detail"] == "1e999"
    # It is one source with the captioner's other kinds.
    assert stage_of(moody, kinds=("short",), show_alt_text=True).source == stage.source
