"""What becomes of one reply of a real server on loopback, from the socket to the gates' verdict."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from moody_server import MoodyServer, moody_server
from tiny_captioners import picture

from curate.served.address import Server
from curate.served.reply import understand
from recaption.engines.http.engine import HttpEngine
from recaption.engines.protocol import CaptionOutcome, CaptionRequest, Sampling
from recaption.gates.gates import GateColumns, Verdict, judge

LIMIT = 50
CAPTION = "A blue boat lies on the sand below a wooden pier."
HALF = "A blue boat lies on the sand. Behind it stan"
JSON = {"Content-Type": "application/json"}


def said(content: Any, finish: Any = "stop", **message: Any) -> bytes:
    usage = {"prompt_tokens": 70, "completion_tokens": message.pop("tokens", 20)}
    choice = {"message": {"content": content, **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def part(text: Any, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": text}


WHOLE = ["stop", "end_turn", "eos", "eos_token", "stop_sequence", "STOP", "FinishReason.STOP"]
WHOLE += ["COMPLETE", "endTurn", None, "", {"type": "stop", "matched": 2}]
CUT_OFF = ["length", "max_tokens", "model_length", "MAX_TOKENS", "FinishReason.MAX_TOKENS"]
CUT_OFF += ["Length", "max_output_tokens", {"type": "length"}]
BROKEN_OFF = ["error", "network_error", "insufficient_system_resource", "ERROR", "tool_calls"]
BROKEN_OFF += ["function_call", "FINISH_REASON_UNSPECIFIED", "some_new_word", 7, ["stop"]]
FILTERED = ["content_filter", "safety", "SAFETY", "recitation", "PROHIBITED_CONTENT", "sensitive"]

CONTENTS: dict[str, tuple[bytes, str | None]] = {
    "plain": (said(CAPTION), CAPTION),
    "two paragraphs": (said("A blue boat.\n\nA wooden pier."), "A blue boat. A wooden pier."),
    "quoted": (said(f'"{CAPTION}"'), CAPTION),
    "italic": (said(f"*{CAPTION}*"), CAPTION),
    "control": (said("A blue\0 boat lies\b on the sand.\x1b[0m"), "A blue boat lies on the sand."),
    "bidi": (said("A \u202eblue\u202c boat on sand."), "A blue boat on sand."),
    "right to left": (said("A sign: «مرحبا» 🚲, on a door."), "A sign: «مرحبا» 🚲, on a door."),
    "parts": (said([part("A blue boat "), part("on the sand.")]), "A blue boat on the sand."),
    "sentences": (said([part("A blue boat."), part("A pier.")]), "A blue boat. A pier."),
    "null part": (said([part(None), part(CAPTION)]), CAPTION),
    "numbers": (said([part(5), part(CAPTION), 7, None, True]), CAPTION),
    "no text": (said([{"type": "text"}, part(CAPTION)]), CAPTION),
    "no type": (said([{"text": CAPTION}]), CAPTION),
    "strings": (said(["A blue boat ", ["on the sand."]]), "A blue boat on the sand."),
    "value": (said([part({"value": CAPTION, "annotations": []})]), CAPTION),
    "picture": (said([{"type": "image_url", "image_url": {"url": "x"}}, part(CAPTION)]), CAPTION),
    "one part": (said(part(CAPTION)), CAPTION),
    "output text": (said([part(CAPTION, "output_text")]), CAPTION),
    "reasoning part": (said([part("First I look.", "reasoning"), part(CAPTION)]), CAPTION),
    "thinking part": (said([{"type": "thinking", "thinking": ["Hm."]}, part(CAPTION)]), CAPTION),
    "thought": (said([{"text": "Hm.", "thought": True}, part(CAPTION)]), CAPTION),
    "quoted refusal": (said('"I\'m sorry, but I can\'t assist with that."'), None),
    "quoted leak": (said('"As requested, the boat is described."'), None),
    "no braces": (said('"caption": "A blue boat", "tags": "boat, pier"'), None),
    "think": (said("[THINK]I look at the boat.[/THINK]A blue boat on sand."), None),
    "harmony": (said("analysisWe look at the boat.assistantfinalA blue boat on sand."), None),
    "role": (said("assistant\n\nA blue boat on sand."), None),
    "next turn": (said("A blue boat on sand.\n\nUser: And the pier?\nAssistant: Wood."), None),
    "options": (said("Option 1: A blue boat.\nOption 2: A boat on the sand."), None),
    "error in words": (said("[ERROR] Failed to process image"), None),
    "quota in words": (said("You have exceeded your quota"), None),
    "nothing": (said("It is not possible to determine what the image depicts."), None),
    "blank": (said("The image is blank."), None),
    "counting": (said("Seats: " + " ".join(f"{n}." for n in range(1, 90)), "length"), None),
}  # fmt: skip
"""Name -> reply, and the caption that it gives; None where a gate has to reject it."""

FAILED: dict[str, tuple[int, bytes, str]] = {
    "null content": (200, said(None), "no_answer"),
    "null parts": (200, said([part(None)]), "no_answer"),
    "number": (200, said(5), "no_answer"),
    "refusal field": (200, said(None, refusal="I cannot help."), "refused"),
    "refusal part": (200, said([{"type": "refusal", "refusal": "I cannot."}]), "refused"),
    "refusal word": (200, said("A bo", "refusal"), "refused"),
    "only thought": (200, said([part("First I look.", "reasoning")]), "only_reasoning"),
    "error in choice": (
        200,
        json.dumps(
            {"choices": [{"message": {"content": "A bo"}, "error": {"code": 502}}]}
        ).encode(),
        "no_answer",
    ),
    "filter": (400, b'{"error": {"code": "content_filter", "message": "no"}}', "content_filter"),
    "inner filter": (
        400,
        b'{"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}',
        "content_filter",
    ),
    "filter in 200": (200, b'{"error": {"code": "content_filter"}}', "content_filter"),
}


@pytest.fixture(scope="module")
def replies() -> dict[str, tuple[CaptionOutcome, int]]:
    """Name -> what the engine made of the reply, and how often it asked."""
    with moody_server() as moody:
        _script(moody)
        server = Server(moody.url, "tiny-vlm", attempts=2, timeout=5.0, first_wait=0.001)
        names = list(moody.scripted)
        request = CaptionRequest(
            [picture(0)] * len(names), names, [0] * len(names), Sampling(LIMIT)
        )
        outcomes = HttpEngine(server).caption(request)
        tries = {name.rsplit("/", 2)[0]: count for name, count in moody.tries.items()}
    return {name: (out, tries[name]) for name, out in zip(names, outcomes, strict=True)}


def _script(moody: MoodyServer) -> None:
    for name, (body, _) in CONTENTS.items():
        moody.scripted[name] = (200, JSON, body)
    for name, (status, body, _) in FAILED.items():
        moody.scripted[name] = (status, JSON, body)
    for kind, words in (("whole", WHOLE), ("cut", CUT_OFF), ("broken", BROKEN_OFF)):
        for word in words:
            moody.scripted[f"{kind} {word}"] = (200, JSON, said(HALF, word))
    for word in FILTERED:
        moody.scripted[f"filtered {word}"] = (200, JSON, said(HALF, word))
    moody.scripted["at the limit"] = (200, JSON, said(HALF, "stop", tokens=LIMIT))
    moody.scripted["nowhere"] = (300, JSON, b"")
    moody.scripted["created"] = (201, JSON, said(CAPTION))
    moody.scripted["kept alive"] = (200, JSON, b"\n\n \r\n  " + said(CAPTION))
    packed = {**JSON, "Content-Encoding": "gzip"}
    moody.scripted["packed"] = (200, packed, gzip.compress(said(CAPTION)))


Replies = dict[str, tuple[CaptionOutcome, int]]


def judged(outcomes: list[CaptionOutcome]) -> Verdict:
    texts = [outcome.text or "" for outcome in outcomes]
    reasons = [outcome.finish_reason for outcome in outcomes]
    return judge(GateColumns(texts, reasons, [None] * len(texts), (), 3, ["en"] * len(texts)))


def test_every_reply_gives_its_caption_or_is_rejected(replies: Replies) -> None:
    verdict = judged([replies[name][0] for name in CONTENTS])
    pairs = zip(verdict.texts, verdict.reasons, strict=True)
    captions = [text if reason is None else None for text, reason in pairs]
    assert dict(zip(CONTENTS, captions, strict=True)) == {
        name: caption for name, (_, caption) in CONTENTS.items()
    }


def test_a_reply_without_a_caption_fails_with_its_reason(replies: Replies) -> None:
    found = {name: replies[name][0].error for name in FAILED}
    assert found == {name: error for name, (_, _, error) in FAILED.items()}
    filters = [replies[name][1] for name in FAILED if "filter" in name]
    assert filters == [1, 1, 1], "a filter is no bad request and no trouble: it is asked once"


def test_words_of_a_whole_answer_are_stop(replies: Replies) -> None:
    outcomes = [replies[f"whole {word}"][0] for word in WHOLE]
    assert [(out.text, out.finish_reason) for out in outcomes] == [(HALF, "stop")] * len(WHOLE)


def test_words_of_a_limit_cut_the_caption_back_and_flag_it(replies: Replies) -> None:
    names = [*[f"cut {word}" for word in CUT_OFF], "at the limit"]
    verdict = judged([replies[name][0] for name in names])
    assert verdict.texts == ["A blue boat lies on the sand."] * len(names)
    assert verdict.flags == [["truncated"]] * len(names)


def test_all_other_words_fail_with_their_word(replies: Replies) -> None:
    for word in BROKEN_OFF:
        outcome, _ = replies[f"broken {word}"]
        assert outcome.error == "no_answer"
        assert str(word).lower().removeprefix("finish_reason_") in (outcome.detail or "")
    assert replies["broken network_error"][1] == 2, "it may pass"
    assert replies["broken tool_calls"][1] == 1, "it will not pass"
    assert {replies[f"filtered {word}"][0].error for word in FILTERED} == {"content_filter"}


def test_a_caption_may_come_with_another_status_or_packed_or_behind_blank_lines(
    replies: Replies,
) -> None:
    assert {replies[name][0].text for name in ("created", "kept alive", "packed")} == {CAPTION}


def test_a_redirect_without_an_address_says_so(replies: Replies) -> None:
    outcome, _ = replies["nowhere"]
    assert (outcome.error, outcome.detail) == ("http_300", "redirects to no address")


def test_deep_parts_and_long_words_of_a_hostile_server_end_in_a_reason() -> None:
    deep: Any = "A boat"
    for _ in range(400):
        deep = [deep]
    assert understand(200, None, said(deep), None).outcome.text == "A boat"
    endless = understand(200, None, said("A boat", "x\x1b" * 100_000), None).outcome
    assert endless.error == "no_answer"
    assert len(endless.detail or "") < 200
    assert (endless.detail or "").isprintable()
