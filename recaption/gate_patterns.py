"""What the gates look for: patterns of RE2, each a line of a list.

Collected from issues and readmes of captioners, written in our own words, and tried on the lists
and on human captions in tests/recaption/test_gates.py.
"""

from __future__ import annotations


def _any(*patterns: str) -> str:
    return "|".join(patterns)


# ---- refusals -----------------------------------------------------------------------------------

_ABILITY = (
    r"(see|view|look|seem|access|open|load|process|analy[sz]e|identify|recogni[sz]e|describe|"
    r"caption|help|assist|provide|comply|fulfil|answer|tell|determine|make out|create|generate|"
    r"comment|discuss|do that|do this|share|give|offer|write|continue|engage|interpret|confirm)"
)
_NOT_ABLE = (
    r"(can't|cannot|can not|could not|couldn't|won't|will not|am unable to|am not able to|"
    r"'m unable to|'m not able to|do not have the ability to|don't have the ability to|"
    r"must decline to|would rather not|am not allowed to|'m not allowed to)"
)
_PICTURE = r"(image|picture|photo)"
_REFUSES_AT_THE_START = _any(
    r"i'?m (very |so |really )?sorry",
    r"i am (very )?sorry",
    r"((we|my) )?apolog",
    r"sorry,? (but )?(i|we|as|this|that)\b",
    r"i apologi[sz]e",
    r"unfortunately,? (i|the image|the picture|there is no|no image)",
    rf"i ?{_NOT_ABLE} {_ABILITY}",
    r"i (do not|don't) (see|have access|have the ability|feel)",
    r"i('m| am) (not comfortable|uncomfortable|(just |only )?an? (ai|language|text))",
    r"i must decline",
    rf"i see no {_PICTURE}",
    rf"there is no {_PICTURE} (attached|provided|available|given|uploaded|visible|here)",
    rf"no {_PICTURE} (was|is|has been) (provided|given|attached|uploaded|found)",
    rf"it (seems|looks like|appears)( that| like)? ?(you|there is no|no|the) ?"
    rf"(have not|haven't|did not|didn't|forgot|{_PICTURE})",
    r"(please|could you( please)?|can you( please)?) (provide|upload|share|attach|send|try) ",
    rf"the (attached |provided |given |uploaded )?{_PICTURE}( you)?( have)?"
    rf"( sent| provided| attached| uploaded)? (is|was) "
    rf"(not |in)(accessible|available|visible|supported|provided|loading)",
    rf"the (attached |provided |given |uploaded )?{_PICTURE}( you)?( have)?"
    rf"( sent| provided| attached| uploaded)? (could not|cannot|can't|failed to|did not|didn't) "
    rf"(be )?(load|open|display|upload|process)",
    r"no (description|caption|content|text|image|data)( is| was)?( available| provided| found)?"
    r"\W*$",
    r"(n/?a|none|null|nan|undefined|unknown|not available|error)\W*$",
    # The same in the languages that captioners slip into.
    r"(抱歉|对不起|很抱歉|非常抱歉|我无法|我不能|無法|作为一个?(人工智能|AI))",
    r"(申し訳|すみません|恐れ入り|죄송)",
    r"(lo siento,? (pero )?no|es tut mir leid|leider kann ich|entschuldigung, (aber )?ich)",
    r"(je suis désolée?|désolée?, (mais )?je|je ne peux pas|mi dispiace|non posso)",
    r"(desculpe|sinto muito|não posso|извините|к сожалению|простите|я не могу)",
    r"(przepraszam|het spijt me)",
)
REFUSAL = _any(
    rf"(?i)^\W*({_REFUSES_AT_THE_START})",
    r"\bas (an|a) ([a-z-]+ )?(ai|language model|artificial intelligence|text-based model)\b"
    r"( (model|assistant|system))?,? (i|and)\b",
    r"\bas (an ai\b|a large language model\b|a language model\b)",
    rf"\bi('m| am) (unable|not able) to {_ABILITY}",
    rf"\b(i|we) ?{_NOT_ABLE} (assist|help) ",
    r"\b(cannot|can't|unable to) (assist|help) with (that|this)",
    r"\b(against|violates?) (my|our|the) (content |usage |safety )?(guidelines|polic(y|ies))",
)

# ---- leaks --------------------------------------------------------------------------------------

CHAT = _any(
    r"<[|｜][^<>]{0,60}[|｜]>",
    r"\[/?INST\]|<</?SYS>>|</?s>",
    r"</?(unk|pad|bos|eos|img|image|video|IMG_CONTEXT|start_of_turn|end_of_turn)>",
    r"<image_soft_token>",
    r"(?i:^\W*(user|human|assistant|system|gpt|model)\s*:)",
    r"\b(USER|ASSISTANT|SYSTEM|HUMAN):",
    r"(?i:#{2,}\s*(human|assistant|user|instruction|response|system)\b)",
    r"(?i:^\W*(question|q)\s*:.{0,200}\b(answer|a)\s*:)",
)
BOILERPLATE = "(?i)" + _any(
    r"\b(imaginary|hypothetical) (content|elements?)\b",
    r"\bas (you )?requested\b|\bas instructed (by|in) (the|your)\b",
    r"\b(according to|based on|from|in) the alt[- ]text\b",
    r"\bthe alt[- ]text (says|reads|mentions|states|suggests|indicates|describes|provided|is)\b",
    r"\b(the|your) (given|provided|above) "
    r"(caption|prompt|instructions?|text description|alt text)\b",
    r"\bbased on (the|your) (provided|given) |"
    r"\b(based on|according to|from) the (captions?|descriptions?) (provided|given|above|of the)\b",
    r"\bi hope (this|that) (helps|description)\b",
    r"\blet me know if (you|there)\b|\bfeel free to (ask|let|reach)\b|\bis there anything else\b",
    r"\b(this|the) (description|caption) (is|was|does|has|adheres|captures|provides|avoids|"
    r"focuses|follows|accurately)\b",
    r"\b(purely|strictly) (factual|objective|descriptive) (description|manner|terms)\b",
    r"\bwithout (any )?(making )?(speculation|assumptions|interpretation) (about|on|or|beyond)\b",
    r"\bchat between a curious (user|human)\b|\byou are a helpful\b",
    r"\bthe user (wants|asked|asks|is asking|has asked|needs) (me|us|(for )?(a|an|the) "
    r"(short |brief |long |detailed |single )?(caption|description|sentence|paragraph))\b",
    r"\b(word|sentence) (count|limit|structure) (of|is|was|:)",
    r"\bnote: (this|the) (description|caption|image)\b",
)

# ---- markup -------------------------------------------------------------------------------------

TAGS = _any(
    # Any tag, <think> among them.
    r"</?[a-zA-Z][a-zA-Z0-9_-]*(\s[^<>]*)?/?>",
    r"&(amp|quot|lt|gt|nbsp|apos|#\d+);",
    r"\*\*|__\w|\]\(",
)
BLOCKS = _any(
    r"```|~~~",
    r"(?m:^\s*#{1,6}\s)",
    r"(?m:^\s*[-*•]\s+\S)",
    r"(?m:^\s*\|.*\|\s*$)",
    r"(?ms:^\s*\d+[.)]\s+\S.*\n\s*\d+[.)]\s+\S)",
    r"^\s*[\[{]\s*[\"'{\[]|^\s*\[\s*[\d.]+\s*,",
    r"^\s*(json|xml|html|yaml)\s*[{<\[]",
    r"^\s*</?think",
    r"\\(n|boxed|text|begin)\b",
)
URL = "(?i)" + _any(
    r"https?:/|\bwww\.\w",
    r"\b[\w-]+\.(com|org|net|io|co\.uk|de|fr|ru|cn|html?|php|aspx?|jpe?g|png|gif|webp|svg|pdf)"
    r"(/\S*)?\b",
)
