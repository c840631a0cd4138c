"""Placeholders and control tokens of chat formats, which no text of the web may bring along.

A server reads them in a prompt as the real thing: a picture that is not there, another turn, an
end. (In-process engines take out their own tokenizer's as well.) Collected from the tokenizers and
chat templates of captioners and of the servers that run them.
"""

from __future__ import annotations

import re

from recaption.gates.characters import readable

# Looks of < > [ ] | and of letters that a tokenizer's normalisation turns into them.
_LOOKS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    ord(look): plain
    for plain, looks in {"<": "﹤", ">": "﹥", "|": "∣│¦┃❘ǀ", "_": "▁＿"}.items()
    for look in looks
}
# Names in angle brackets. "<b>", "<3" and "a < b > c" are what a person types.
_NAMES = (
    r"bos|eos|pad|unk|mask|cls|sep|eod|eot|eom|"
    r"im[gs]?|images?|imagehere|picture|pic|videos?|audios?|media|frame|"
    r"box|ref|quad|point|grounding|phrase|obj|object|polygon|loc|seg|"
    r"think|thinking|thought|reasoning|answer|tools?|"
    r"user|assistant|system|human|bot|gpt|inst|sys|"
    r"caption|od|ocr|vqa|docvqa|unused|reserved|eoa|eop|sop|nl|boi|eoi|boa|"
    r"slice|patch|vision|bov|eov|ctrl|gimg|crop|doc|speaker|image[ -]placeholder|"
    r"im[gs]?[ -](?:start|end|sep|pad|patch|row|col|newline)|"
    r"0x[0-9a-f]{2}"
)
_TAG = (
    # <|im_end|>, < | image_1 | >, <｜User｜>
    r"<\s*/?\s*\|[^<>]{0,60}\|\s*>|"
    r"<<\s*/?\s*sys\s*>>|"
    # Any name of several words: <end_of_utterance>, <__media__>, <row_1_col_2>, <global-img>.
    r"<\s*/?\s*_*[a-z0-9]+(?:_+[a-z0-9]+)+_*\s*/?\s*>|<\s*__+[a-z0-9]+__+\s*>|<\s*global-img\s*>|"
    rf"<\s*/?\s*(?:{_NAMES})(?:[ _-]?\d{{1,4}})?\s*/?\s*>|"
    r"<s>|<\s*/\s*s\s*>|"
    # Kimi's and old spellings without brackets of ASCII.
    r"◁\s*/?\s*[a-z_]+\s*▷"
)
# Words that people put in brackets too, as in "[Image] of a cat" or "[Pad] Thai", count as models
# write them.
_WORDS = "|".join(f"{word}|{word.upper()}" for word in ("image", "images", "audio", "mask", "pad"))
_SQUARE = (
    rf"\[\s*/?\s*(?:(?-i:{_WORDS})|inst|imgs?|boi|eoi|"
    r"img[ _-](?:break|end|start|pad|\d{1,4})|images?[ _:-]{0,2}\d{1,4}|"
    r"image[ _]placeholder|system_prompt|available_tools|tool_(?:calls|results|content)|"
    r"begin_audio|bos|eos|unk|cls|sep|gmask|smask|think|model_settings|"
    r"unused_token_\d+|unused\d+|control_\d+)\s*\]"
)
_PLACEHOLDER = re.compile(f"{_TAG}|{_SQUARE}", re.IGNORECASE)


def without_placeholders(text: str) -> str:
    """`text` without placeholders and control tokens, and without characters that nobody sees.

    Also without those that come up where another was taken out, and in full-width characters.
    """
    text = readable(text)
    while True:
        # One character for one, so that places in both are the same.
        found = [match.span() for match in _PLACEHOLDER.finditer(text.translate(_LOOKS))]
        if not found:
            return text
        for start, end in reversed(found):
            text = f"{text[:start]} {text[end:]}"
