"""The contrastive model's word-level tokenizer, in the files that AutoTokenizer reads.

It drops stop words and punctuation that carries no fact, so that a descriptive caption takes at
most 25 tokens in place of 43.
"""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipelines.world.words import STOP_WORDS, VOCABULARY

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<s>", "</s>"

CLIP_CONTEXT = 28

_PLACE = r"(?:top|center|bottom)-(?:left|center|right)"


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Lower-cases, keeps known and unknown words but no stop word; pads to the right.

    The end token has the highest id, because open_clip pools a text there (argmax over ids).
    """
    kept = [word for word in VOCABULARY if word not in STOP_WORDS and word not in (",", ".", ":")]
    ids = {word: k for k, word in enumerate([PAD, UNKNOWN, BEGIN, *kept, END])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    stops = "|".join(sorted(STOP_WORDS))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf"{_PLACE}|(?<![a-z])(?!(?:{stops})(?![a-z]))[a-z]+|[0-9]"), "removed", invert=True
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])],
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
