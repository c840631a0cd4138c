"""The language of captions: told where they are long enough, and the names people give languages.

The model is the one of curate.scoring.scorers.text_language (fastText's lid.176), so a caption's
language and its alt text's are told alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from curate.base.errors import ConfigError
from curate.scoring.scorers.text_language import TextLanguage, count_letters

# To reject by it takes more than to tell it (the score of alt texts has lower limits).
LEAST_LETTERS = 40
LEAST_SHARE = 0.75
# From this share of letters in a script that the language is not written in, no model is needed.
FOREIGN_SCRIPT_SHARE = 0.3

# What stands in quotes is text in the picture, in whatever language that is.
_QUOTED = re.compile(
    r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|「[^」]*」|『[^』]*』|(?<!\w)'[^']*'(?!\w)|‘[^’]*’"
)
_SCRIPTS: Mapping[str, re.Pattern[str]] = {
    "han": re.compile(r"[\u3400-\u9fff\uf900-\ufaff]"),
    "kana": re.compile(r"[\u3040-\u30ff]"),
    "hangul": re.compile(r"[\u1100-\u11ff\uac00-\ud7af]"),
    "cyrillic": re.compile(r"[\u0400-\u052f]"),
    "arabic": re.compile(r"[\u0600-\u06ff\u0750-\u077f]"),
    "devanagari": re.compile(r"[\u0900-\u097f]"),
    "thai": re.compile(r"[\u0e00-\u0e7f]"),
    "hebrew": re.compile(r"[\u0590-\u05ff]"),
    "greek": re.compile(r"[\u0370-\u03ff]"),
}
_WRITTEN_IN: Mapping[str, tuple[str, ...]] = (
    {"zh": ("han",), "ja": ("han", "kana"), "ko": ("hangul", "han"), "el": ("greek",)}
    | {"th": ("thai",), "he": ("hebrew",), "yi": ("hebrew",)}
    | dict.fromkeys(("hi", "mr", "ne", "sa"), ("devanagari",))
    | dict.fromkeys(("ar", "fa", "ur", "ps", "ug", "sd", "ckb"), ("arabic",))
    | dict.fromkeys(
        ("ru", "uk", "bg", "be", "mk", "kk", "ky", "tg", "mn", "tt", "ba", "sr"), ("cyrillic",)
    )
)
# Languages that the model takes for each other, and that a reader of one can read.
_ALIKE: Sequence[frozenset[str]] = (
    frozenset({"no", "nn", "nb", "da"}),
    frozenset({"hr", "sr", "bs", "sh"}),
    frozenset({"id", "ms"}),
    frozenset({"zh", "yue", "wuu"}),
    frozenset({"cs", "sk"}),
    frozenset({"gl", "pt"}),
    frozenset({"fa", "pnb", "ur"}),
    frozenset({"ru", "uk", "be"}),
)
_NAMES_OF = """
af=afrikaans; ar=arabic; be=belarusian; bg=bulgarian; bn=bengali; bs=bosnian; ca=catalan;
cs=czech; cy=welsh; da=danish; de=german,deutsch; el=greek;
en=english,british english,american english; eo=esperanto; es=spanish,español; et=estonian;
eu=basque; fa=persian,farsi; fi=finnish; fr=french,français; ga=irish; gl=galician;
gu=gujarati; he=hebrew; hi=hindi; hr=croatian; hu=hungarian; id=indonesian; is=icelandic;
it=italian,italiano; ja=japanese,日本語; ka=georgian; kk=kazakh; kn=kannada; ko=korean,한국어;
la=latin; lt=lithuanian; lv=latvian; mk=macedonian; ml=malayalam; mn=mongolian; mr=marathi;
ms=malay; ne=nepali; nl=dutch; no=norwegian; pa=punjabi; pl=polish;
pt=portuguese,português,brazilian portuguese; ro=romanian; ru=russian,русский; sk=slovak;
sl=slovenian; sr=serbian; sv=swedish; sw=swahili; ta=tamil; te=telugu; th=thai; tl=tagalog;
tr=turkish; uk=ukrainian,українська; ur=urdu; uz=uzbek; vi=vietnamese; yi=yiddish;
zh=chinese,mandarin,中文,simplified chinese,traditional chinese
"""
_NAMES: Mapping[str, str] = {
    name: code.strip()
    for code, _, names in (entry.partition("=") for entry in _NAMES_OF.split(";"))
    for name in names.strip().split(",")
}


def language_code(name: str) -> str | None:
    """ISO 639-1 code of a language's name or code, in any case; None where it is unknown.

    "German", "deutsch", "de" and "de-AT" are all "de".
    """
    plain = " ".join(name.lower().split())
    if plain in _NAMES:
        return _NAMES[plain]
    code = re.fullmatch(r"([a-z]{2,3})(?:[-_][a-z0-9]+)*", plain)
    known = {*_NAMES.values(), *(one for alike in _ALIKE for one in alike), *_WRITTEN_IN}
    return code[1] if code and code[1] in known else None


def expected_language(name: str) -> str:
    """The code of a language that a prompt asks for.

    Raises:
        ConfigError: an unknown name, so that nobody could check the captions.
    """
    code = language_code(name)
    if code is None:
        raise ConfigError(
            f"The prompt variable language = {name!r} is no language that captions can be checked "
            f"for; write its English name or ISO code, or give the variable another name."
        )
    return code


def detect_languages(texts: Sequence[str]) -> list[str | None]:
    """ISO code of each text's language; None where it is too short or the model is not sure.

    Quoted parts are left out. About 10 us a text; the model takes 40 MB, once a process.
    """
    unquoted = [_QUOTED.sub(" ", text) for text in texts]
    long_enough = [row for row, text in enumerate(unquoted) if count_letters(text) >= LEAST_LETTERS]
    columns = _model().score({"alt_text": [unquoted[row] for row in long_enough]})
    found: list[str | None] = [None] * len(texts)
    codes = columns["text_language"].to_pylist()
    for row, code, share in zip(
        long_enough, codes, columns["text_language_confidence"], strict=True
    ):
        found[row] = code if share >= LEAST_SHARE else None
    return found


def is_other_language(expected: str, detected: str | None, text: str) -> bool:
    """Whether a text is surely not in the expected language (an ISO code; "" expects none)."""
    if not expected:
        return False
    if detected is not None and not _alike(expected, detected):
        return True
    unquoted = _QUOTED.sub(" ", text)
    if count_letters(unquoted) < LEAST_LETTERS:
        return False
    own = _WRITTEN_IN.get(expected, ())
    foreign = sum(
        len(pattern.findall(unquoted)) * (3 if name in ("han", "kana", "hangul") else 1)
        for name, pattern in _SCRIPTS.items()
        if name not in own
    )
    return foreign >= FOREIGN_SCRIPT_SHARE * count_letters(unquoted)


def _alike(one: str, other: str) -> bool:
    return one == other or any(one in group and other in group for group in _ALIKE)


@lru_cache(maxsize=1)
def _model() -> TextLanguage:
    model = TextLanguage()
    model.open()
    return model
