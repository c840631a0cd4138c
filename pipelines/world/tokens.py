"""Word-level tokenizers of the two small models, in the files that AutoTokenizer reads.

The contrastive model's tokenizer drops stop words and punctuation that carries no fact, so that a
descriptive caption takes at most 25 tokens in place of 43. The captioner must write whole
sentences: its words carry their leading space, so that decoding is plain concatenation.
"""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipelines.world.words import STOP_WORDS, VOCABULARY

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<s>", "</s>"
IMAGE, SHORT, DESCRIPTIVE = "<image>", "<short>", "<descriptive>"

CLIP_CONTEXT = 28

# One image and one text; prose becomes a mode token because the model is far too small for prose.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% set ask = namespace(text='') %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% if message['content'] is string %}"
    "{% set ask.text = message['content'] %}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{% set ask.text = part['text'] %}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '<short>' if 'main subject' in ask.text | lower else '<descriptive>' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{{ message['content'][0]['text'] }}{% endif %}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)

_PLACE = r"(?:top|center|bottom)-(?:left|center|right)"


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-cases, keeps known and unknown words but no stop word; pads to the right.

    The end token has the highest id, because open_clip pools a text there (argmax over ids).
    """
    kept = [word for word in VOCABULARY if word not in STOP_WORDS and word not in (",", ".", ":")]
    tokenizer = _word_level([PAD, UNKNOWN, BEGIN, *kept, END])
    stops = "|".join(sorted(STOP_WORDS))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf"{_PLACE}|(?<![a-z])(?!(?:{stops})(?![a-z]))[a-z]+|[0-9]"), "removed", invert=True
    )
    vocabulary = tokenizer.get_vocab()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=CLIP_CONTEXT,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def captioner_tokenizer() -> PreTrainedTokenizerFast:
    """Whole sentences in, whole sentences out; pads to the left, as generation wants."""
    marks = (",", ".", ":")
    spoken = [word if word in marks else f" {word}" for word in VOCABULARY]
    specials = [PAD, UNKNOWN, BEGIN, END, IMAGE, SHORT, DESCRIPTIVE]
    tokenizer = _word_level([*specials, *spoken])
    tokenizer.add_special_tokens(specials)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Prepend(" ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf" {_PLACE}| [a-z]+| ?[0-9]|[,.:]"), "removed", invert=True
    )
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _word_level(vocabulary: list[str]) -> Tokenizer:
    ids = {word: k for k, word in enumerate(vocabulary)}
    return Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
