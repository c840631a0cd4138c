"""What a language model is asked when it makes a short prompt descriptive.

A model that was trained on descriptive captions draws worse from short prompts, and a rewritten
prompt wins that back. The rule is DALL-E 3's (Betker et al. 2023, section 3.5 and appendix C): 15
to 80 words, the meaning unchanged. Wording and examples are ours.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from curate.base.errors import ConfigError
from recaption.gates.placeholders import without_placeholders

PLACE = "{prompt}"

_RULES = """\
Below is a short prompt for a text-to-image model. Rewrite it as one paragraph of {min_words} to \
{max_words} words that describes a single picture. Keep all that the prompt names: each thing, how \
many there are, names, colours, places, style, and words in quotes letter for letter. Add what a \
painter would still have to choose, such as surroundings, light, materials and viewpoint, and \
nothing that the prompt rules out. Answer with the paragraph alone.
"""

_EXAMPLES = (
    (
        "a cat on a sofa",
        "A grey tabby cat lies curled up on a worn green sofa beside a tall window. Afternoon "
        "light falls across its fur and a knitted blanket, and a bookshelf fades into shadow.",
    ),
    (
        "three red balloons, watercolor",
        "Three red balloons float close together above a summer meadow, painted in loose "
        "watercolor. Their strings tangle in the wind, and the grain of the paper shows through "
        "the pale blue washes of the sky.",
    ),
    (
        'a shop with a sign "OPEN LATE"',
        'A narrow brick shop at night, seen from across the street, with a pink neon sign "OPEN '
        'LATE" above its door. Rain has left the pavement wet, the glowing letters are mirrored in '
        "a puddle, and a bicycle leans against the wall.",
    ),
)


def built_in_instruction(min_words: int, max_words: int) -> str:
    """The instruction, with {prompt} where the prompt goes."""
    rules = _RULES.format(min_words=min_words, max_words=max_words)
    shown = [f"Prompt: {short}\nRewritten: {long}\n" for short, long in _EXAMPLES]
    return "\n".join([rules, *shown, f"Prompt: {PLACE}\nRewritten:"])


def load_instruction(path: str, min_words: int, max_words: int) -> str:
    """The instruction in a text file, or the built-in one for an empty path.

    Raises:
        ConfigError: the file is unreadable or says nowhere where the prompt goes.
    """
    if not path:
        return built_in_instruction(min_words, max_words)
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The instruction file {path} cannot be read ({error}).") from error
    if PLACE not in text:
        raise ConfigError(f"The instruction file {path} must hold {PLACE} where the prompt goes.")
    return text


def ask(instruction: str, prompt: str) -> str:
    """The user turn for one prompt, without placeholders of chat formats."""
    return instruction.replace(PLACE, " ".join(without_placeholders(prompt).split()))


def without_prompt(instruction: str) -> str:
    """What is asked of every prompt alike, for the gate against leaks."""
    return instruction.replace(PLACE, " ")


def instruction_sha256(instruction: str) -> str:
    """Hex sha256, for provenance."""
    return hashlib.sha256(instruction.encode()).hexdigest()
