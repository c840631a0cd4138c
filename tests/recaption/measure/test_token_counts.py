import json
import logging
import pickle
from pathlib import Path

import pytest
from caption_lists import BAD, GOOD

from curate.base.errors import ConfigError
from recaption.measure.token_counts import TokenCounter, _find_t5

ODD = [
    "",
    "   ",
    "it's they'RE don't, 3.5kg & 100%",
    "A &amp; B &lt;3",
    "ﬁne “quotes” — dash… naïve Straße, İstanbul",
    "mojibake: schÃ¶n, donâ€™t",
    "一只棕色的狗 🐶🐶 نص नमस्ते",
    "<start_of_text> spelled <end_of_text>",
    "a\x0bb\x00c é",
    "word " * 200,
]


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json of T5's make: Unigram, metaspace, an end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(GOOD, trainer)
    end = [("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=end)
    tokenizer.enable_truncation(8)
    folder = tmp_path_factory.mktemp("t5")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_clip_tokens_are_those_of_open_clip_with_start_and_end_and_beyond_77() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    reference = SimpleTokenizer()
    texts = [*ODD, *GOOD, *(text for some in BAD.values() for text in some)]
    assert TokenCounter("").clip(texts) == [len(reference.encode(text)) + 2 for text in texts]
    assert TokenCounter("").clip(["word " * 200]) == [202]
    assert TokenCounter("").clip([]) == []


def test_clip_tokens_of_human_captions_are_those_of_open_clip(real_data: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    reference = SimpleTokenizer()
    lines = (real_data / "18f" / "captions.jsonl").read_text().splitlines()
    texts = [text for text in (json.loads(line)["alt"] for line in lines) if text]
    assert TokenCounter("").clip(texts) == [len(reference.encode(text)) + 2 for text in texts]


def test_t5_tokens_are_counted_whole_with_their_end_by_the_tokenizer_of_a_folder(
    t5_folder: Path,
) -> None:
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(t5_folder / "tokenizer.json"))
    reference.no_truncation()
    counter = pickle.loads(pickle.dumps(TokenCounter(str(t5_folder))))
    assert counter.t5(GOOD) == [len(reference.encode(text).ids) for text in GOOD]
    assert counter.t5([""]) == [1]
    assert max(counter.t5(GOOD)) > 8, "the folder's own limit does not cut the count"


def test_t5_tokens_are_counted_by_a_sentencepiece_model_too(tmp_path: Path) -> None:
    import sentencepiece

    model = tmp_path / "spiece"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(GOOD), model_prefix=str(model), vocab_size=200, minloglevel=2
    )
    counts = TokenCounter(str(tmp_path)).t5(GOOD)
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{model}.model")
    assert counts == [len(processor.encode(text)) + 1 for text in GOOD]


def test_without_the_hub_t5_tokens_are_null_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _find_t5.cache_clear()
    with caplog.at_level(logging.WARNING):
        counters = [TokenCounter("auto") for _ in range(3)]
    _find_t5.cache_clear()
    assert [counter.t5(["a", "b"]) for counter in counters] == [[None, None]] * 3
    assert len([record for record in caplog.records if "t5_tokens" in record.message]) == 1
    assert TokenCounter("").t5(["a"]) == [None]


def test_a_t5_tokenizer_that_was_named_and_is_not_there_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A hub that cannot be reached is asked again and again for half a minute.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    for source, says in (
        (str(tmp_path), "holds neither tokenizer.json nor spiece.model"),
        (str(tmp_path / "broken"), "cannot be loaded"),
        ("nobody/has-this-tokenizer", "cannot be loaded"),
    ):
        with pytest.raises(ConfigError, match=says):
            TokenCounter(source)
