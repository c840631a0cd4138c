import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moody_server import MoodyServer, moody_server

from curate.base.errors import ConfigError, DatasetError, StageError
from curate.base.settings import load_settings
from recaption.prompts.file import read_prompts
from recaption.upsample.gates import Rewrites, judge_rewrites, kept_words, tidy
from recaption.upsample.prompt import ask, built_in_instruction, without_prompt
from recaption.upsample.rewrite import Upsampler
from recaption.upsample.run import dry_run, upsample
from recaption.upsample.settings import UpsampleSettings

PROMPTS = ["a red circle", "two green triangles on a blue background", "a small square"]


@pytest.fixture
def moody() -> Iterator[MoodyServer]:
    with moody_server() as running:
        running.story = " Two small dogs sleep on the warm floor."
        yield running


def settings_of(captioner: object, **changes: object) -> UpsampleSettings:
    quick = {
        "captioner": str(getattr(captioner, "url", captioner)),
        "request_attempts": 2,
        "patience": 0.5,
        "part_rows": 2,
    }
    return load_settings(UpsampleSettings, None, {**quick, **changes})


def listed(directory: Path, prompts: list[str], suffix: str = "txt") -> Path:
    path = directory / f"prompts.{suffix}"
    path.write_text("\n".join(prompts) + "\n")
    return path


def asked(moody: MoodyServer) -> list[str]:
    """The prompts that reached the server behind the first try, which opens the engine."""
    turns = [body["messages"][-1]["content"] for body in moody.bodies]
    return [turn.rsplit("Prompt: ", 1)[-1].split("\n")[0] for turn in turns if "Prompt: " in turn]


def test_every_prompt_has_one_row_that_keeps_the_original(
    tmp_path: Path, moody: MoodyServer
) -> None:
    out = tmp_path / "out.parquet"
    report = upsample(listed(tmp_path, [*PROMPTS, PROMPTS[0]]), out, settings_of(moody))
    rows = pq.read_table(out).to_pylist()

    assert [row["prompt"] for row in rows] == [*PROMPTS, PROMPTS[0]]
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert sorted(asked(moody)) == sorted(PROMPTS), "equal prompts are asked once"
    assert report.counts == {"ok": 4}
    row = rows[0]
    assert row["text"].startswith("A picture numbered")
    assert (row["words"], row["status"], row["flags"]) == (20, "ok", ["lost_words"])
    assert (row["engine"], row["model"], row["attempts"]) == ("http", "tiny-vlm", 1)
    assert row["kept_words"] == 0.0
    assert row["prompt_tokens"] == 70
    assert {path.name for path in tmp_path.iterdir()} == {"out.parquet", "prompts.txt"}


def test_a_text_outside_of_the_word_range_is_asked_again_with_another_seed_and_rejected(
    tmp_path: Path, moody: MoodyServer
) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(StageError, match=r"None of 1 prompt .*1 rejected: too_short"):
        upsample(listed(tmp_path, PROMPTS[:1]), out, settings_of(moody, min_words=30, retries=2))
    (row,) = pq.read_table(out).to_pylist()
    assert (row["status"], row["reason"], row["attempts"]) == ("rejected", "too_short", 3)
    assert row["text"] is None
    assert row["raw_text"].startswith("A picture numbered")
    seeds = [body.get("seed") for body in moody.bodies[1:]]
    assert seeds[0] is None
    assert len(set(seeds)) == 3


def test_a_run_that_stopped_goes_on_with_what_its_parts_lack(
    tmp_path: Path, moody: MoodyServer
) -> None:
    source, out = (
        listed(tmp_path, [f"a cat number {n}" for n in range(6)]),
        tmp_path / "out.parquet",
    )
    settings = settings_of(moody)
    # What a kill behind the first part leaves.
    upsampler = Upsampler(settings)
    part = tmp_path / f".out.parquet.{upsampler.identity}.parts" / "000000.parquet"
    part.parent.mkdir()
    pq.write_table(upsampler.rewrite(["a cat number 0", "a cat number 1"]), part)
    before = len(asked(moody))

    report = upsample(source, out, settings)
    assert report.kept == 2
    assert sorted(asked(moody)[before:]) == [f"a cat number {n}" for n in range(2, 6)]
    assert not part.parent.exists()

    source.write_text(source.read_text() + "a dog\n")
    before = len(asked(moody))
    assert upsample(source, out, settings).kept == 6
    assert asked(moody)[before:] == ["a dog"]
    assert pq.read_table(out).num_rows == 7
    with pytest.raises(DatasetError, match="other settings"):
        upsample(source, out, settings_of(moody, max_words=60))


def test_what_failed_is_asked_again_where_that_is_wanted(
    tmp_path: Path, moody: MoodyServer
) -> None:
    source, out = listed(tmp_path, ["always 500", "a cat"]), tmp_path / "out.parquet"
    instruction = tmp_path / "instruction.txt"
    instruction.write_text("{prompt}")  # the server's mood is its whole turn
    settings = settings_of(moody, instruction=str(instruction))
    assert upsample(source, out, settings).counts == {"failed": 1, "failed:http_500": 1, "ok": 1}
    before = len(moody.bodies)
    upsample(source, out, settings)
    assert len(moody.bodies) == before, "nothing is missing, so nobody is asked"
    with pytest.raises(StageError, match=r"None of 1 prompt .*http_500"):
        upsample(source, out, settings_of(moody, instruction=str(instruction), retry_failed=True))
    assert len(moody.bodies) == before + 3, "the first try of the engine and two of the row"


def test_a_run_in_which_nothing_is_accepted_any_more_stops_and_the_next_asks_for_it_again(
    tmp_path: Path, moody: MoodyServer
) -> None:
    source, out = (
        listed(tmp_path, [f"a cat number {n}" for n in range(40)]),
        tmp_path / "out.parquet",
    )
    moody.mood, moody.calm = "402", 1 + 3  # the trial and three prompts, the last part mixed
    with pytest.raises(
        StageError, match=r"none of the last 6 prompts .*6 failed: http_402.*credits"
    ):
        upsample(source, out, settings_of(moody, stop_after_unaccepted=6))
    assert 4 - moody.calm == 1 + 4 + 6
    assert not out.exists()
    moody.mood = ""
    report = upsample(source, out, settings_of(moody))
    assert (report.kept, report.counts) == (3, {"ok": 40})


def test_a_list_of_which_nothing_is_accepted_is_kept_and_asked_again(
    tmp_path: Path, moody: MoodyServer
) -> None:
    source, out = listed(tmp_path, PROMPTS), tmp_path / "out.parquet"
    moody.mood, moody.calm = "no pictures", 1
    with pytest.raises(StageError, match=r"None of 3 prompts .*http_400.*not supported"):
        upsample(source, out, settings_of(moody))
    assert pq.read_table(out).column("status").to_pylist() == ["failed"] * 3
    moody.mood = ""
    assert upsample(source, out, settings_of(moody)).counts == {"ok": 3}


def test_a_chat_model_rewrites_in_this_process_the_same_alone_and_in_company(
    tmp_path: Path, llava: Path
) -> None:
    settings = settings_of(llava, min_words=1, max_new_tokens=16, retries=1)
    upsampler = Upsampler(settings)
    together = upsampler.rewrite(PROMPTS)
    alone = pa.concat_tables([upsampler.rewrite([prompt]) for prompt in PROMPTS])
    columns = ["prompt", "raw_text", "status", "reason", "seed", "attempts"]
    assert together.select(columns).equals(alone.select(columns))
    assert {row["engine"] for row in together.to_pylist()} == {"transformers"}
    assert all(row["raw_text"] for row in together.to_pylist())


def test_a_rehearsal_prints_originals_and_rewrites_and_writes_nothing(
    tmp_path: Path, moody: MoodyServer
) -> None:
    said = dry_run(listed(tmp_path, PROMPTS), settings_of(moody), 2)
    assert "2 prompts" in said
    assert "100% accepted" in said
    assert "  a red circle\n  A picture numbered" in said
    assert PROMPTS[2] not in said
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_lists_of_every_kind_keep_their_broken_rows(tmp_path: Path) -> None:
    records = ['{"text": "a"}', "not json", '{"text": "  "}', '{"other": 1}', '{"text": "\\ud83d"}']
    found = read_prompts(listed(tmp_path, records, "jsonl"), "text")
    reasons = [None, "unreadable_line", "empty_prompt", "empty_prompt", None]
    assert [row.reason for row in found] == reasons
    assert found[4].prompt == "?"
    table = tmp_path / "list.parquet"
    pq.write_table(pa.table({"text": ["a", None]}), table)
    assert [row.prompt for row in read_prompts(table, "text")] == ["a", None]
    (tmp_path / "list.csv").write_text("n,text\n1,007\n2,\n")
    assert [row.prompt for row in read_prompts(tmp_path / "list.csv", "text")] == ["007", None]
    (tmp_path / "list.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n{"text": "\xff"}\n')
    found = read_prompts(tmp_path / "list.jsonl", "text")
    assert [row.reason for row in found] == [None, "unreadable_line"]
    assert [row.prompt for row in read_prompts(listed(tmp_path, ["a", "", " b"]))] == ["a", "b"]


def test_a_row_without_a_prompt_fails_and_stays(tmp_path: Path, moody: MoodyServer) -> None:
    out = tmp_path / "out.parquet"
    lines = [json.dumps({"prompt": "a cat"}), "{"]
    report = upsample(listed(tmp_path, lines, "jsonl"), out, settings_of(moody))
    assert report.counts == {"failed": 1, "failed:unreadable_line": 1, "ok": 1}
    assert pq.read_table(out).column("row").to_pylist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.txt", "\n", "holds no prompts"),
        ("list.md", "a", r"must be \.txt, \.jsonl, "),
        ("list.csv", "text\na\n", "no column 'prompt'"),
        ("list.jsonl", '{"text": "a"}', "no column 'prompt'"),
        ("list.parquet", "no parquet", "is unreadable"),
    ],
)
def test_a_list_that_is_none_gets_one_sentence(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=words):
        read_prompts(tmp_path / name)


def test_a_model_that_reads_no_instructions_is_refused(blip: Path) -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        Upsampler(settings_of(blip))


LONG = "a red fox sits beside a frozen lake while snow falls on dark pines behind it " * 8
INSTRUCTION = without_prompt(built_in_instruction(15, 80))
SAID = {
    "empty": "...",
    "refusal": "I'm sorry, but I can't help with that request because it goes against my rules.",
    "prompt_leak": "Keep all that the prompt names: each thing, how many there are, and more.",
    "loop": "a red fox and " * 12,
    "url_or_markup": "**A red fox** sits beside a frozen lake while snow falls on the dark pines.",
    "too_short": "A red fox.",
    "too_long": LONG,
    "lost_words": "A dog sleeps on a warm stone floor next to an open door with a view of hills.",
}


@pytest.mark.parametrize("name", SAID)
def test_each_gate_speaks_where_it_should(name: str) -> None:
    good = "A red fox sits beside a frozen lake while snow falls on the dark pines behind it."
    rewrites = Rewrites([SAID[name], good], ["stop"] * 2, ["red foxes"] * 2, INSTRUCTION, 15, 80)
    flags = judge_rewrites(rewrites)
    assert flags[name].tolist() == [True, False]
    assert not any(flag[1] for flag in flags.values())


def test_the_examples_obey_the_rule_that_they_teach() -> None:
    shown = built_in_instruction(15, 80).split("Prompt: ")[1:-1]
    pairs = [block.strip().split("\nRewritten: ") for block in shown]
    texts = [long for _, long in pairs]
    flags = judge_rewrites(Rewrites(texts, ["stop"] * 3, [short for short, _ in pairs], "", 15, 80))
    assert len(texts) == 3
    assert not any(flag.any() for flag in flags.values())


def test_words_are_kept_by_their_beginning_and_numbers_in_full() -> None:
    shares = kept_words(
        ["two wooden chairs", "12 cats", "a car", "of the", "painting of Anna"],
        ["Two chairs of dark wood", "120 cat", "A card", "x", "Anna, painted in oil"],
    )
    assert shares.tolist() == [1.0, 0.5, 0.0, 1.0, 1.0]


def test_labels_and_quotes_around_a_rewrite_go() -> None:
    assert tidy('Rewritten: "A red fox."', "stop", 1) == "A red fox."
    assert tidy('"Open" and "late" signs', "stop", 1) == '"Open" and "late" signs'
    assert tidy("“*A red fox*”.\x1b[0m", "stop", 1) == "A red fox."
    assert tidy("A fox sits. It loo", "length", 3) == "A fox sits."
    assert tidy("A fox sits. It loo", "length", 4) == "A fox sits. It loo"


def test_braces_in_a_prompt_stay_as_they_are() -> None:
    assert ask("Say {prompt}!", "a {prompt} {x}") == "Say a {prompt} {x}!"
