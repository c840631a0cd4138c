from pathlib import Path

import pytest

from curate.base.errors import ConfigError
from curate.scoring.scorers.text_basics import TextBasics
from curate.scoring.scorers.text_language import TextLanguage
from curate.scoring.scorers.text_words import TextWords, read_list


def columns_of(scorer, *texts: str | None) -> dict[str, list]:
    scores = scorer.score({"alt_text": list(texts)})
    return {name: column.tolist() for name, column in scores.items()}


def basics(*texts: str | None) -> dict[str, list]:
    return columns_of(TextBasics(), *texts)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a brown dog runs along the beach", "en"),
        ("ein brauner Hund läuft am Strand entlang", "de"),
        ("un chien brun court le long de la plage", "fr"),
        ("un perro marrón corre por la playa", "es"),
        ("um cachorro marrom corre pela praia", "pt"),
        ("un cane marrone corre sulla spiaggia", "it"),
        ("een bruine hond rent langs het strand", "nl"),
        ("brązowy pies biegnie wzdłuż plaży", "pl"),
        ("коричневая собака бежит по пляжу", "ru"),
        ("一只棕色的狗在海滩上奔跑", "zh"),
        ("茶色の犬がビーチを走っている", "ja"),
        ("갈색 개가 해변을 따라 달린다", "ko"),
        ("สุนัขวิ่งบนชายหาด", "th"),
        ("كلب بني يركض على طول الشاطئ", "ar"),
    ],
)
def test_the_language_of_a_caption_is_told(text: str, language: str) -> None:
    scores = columns_of(TextLanguage(), text)
    assert scores["text_language"] == [language]
    assert 0.3 < scores["text_language_confidence"][0] <= 1


def test_a_text_without_letters_has_no_language() -> None:
    scores = columns_of(
        TextLanguage(), None, "", "2019-04-12", "©®™", "a dog runs\nin the snow \ud800"
    )
    assert scores["text_language_guess"] == [None] * 4 + ["en"]
    assert [share == share for share in scores["text_language_confidence"]] == [False] * 4 + [True]


@pytest.mark.parametrize(
    "text", ["Hummus", "Rösti", "Torrijas", "Potato purée", "Arroz Chaufa", "fox", "NEW IN 2019"]
)
def test_the_language_of_a_few_words_is_unknown_and_its_guess_stands_apart(text: str) -> None:
    scores = columns_of(TextLanguage(), text)
    assert scores["text_language"] == [None]
    assert scores["text_language_guess"] != [None]
    assert 0 < scores["text_language_confidence"][0] <= 1


def test_capitals_do_not_make_a_text_german() -> None:
    scores = columns_of(TextLanguage(), "A BROWN DOG RUNS ALONG THE BEACH")
    assert scores["text_language"] == ["en"]


@pytest.mark.parametrize(
    "text",
    [
        "Bild 3",
        "Zum Vergrößern hier klicken",
        "image non disponible",
        "Cliquez pour agrandir",
        "sin título",
        "Haz clic aquí",
        "Clicca qui!",
        "imagem indisponível",
        "Geen afbeelding beschikbaar",
        "нет фото",
        "查看大图",
        "画像なし",
    ],
)
def test_boilerplate_of_other_languages_is_recognised(text: str) -> None:
    assert basics(text)["text_is_boilerplate"] == [True]


@pytest.mark.parametrize(
    "text", ["Bild einer alten Mühle", "une image de chat noir", "фото красного дома у реки"]
)
def test_captions_of_other_languages_are_no_boilerplate(text: str) -> None:
    assert basics(text)["text_is_boilerplate"] == [False]


@pytest.mark.parametrize(
    "text", ["write to jane.doe@example.com", "info@shop.co.uk", "JANE+news@mail-1.example.org"]
)
def test_e_mail_addresses_are_flagged(text: str) -> None:
    assert basics(text)["text_has_email"] == [True]


@pytest.mark.parametrize("text", ["follow @jane", "2 @ 5.00", "a@b", "cats @ home.", "Jane's"])
def test_what_only_looks_like_an_address_is_not(text: str) -> None:
    assert basics(text)["text_has_email"] == [False]


@pytest.mark.parametrize(
    "text",
    [
        "call +1 (212) 555-0123 now",
        "+49 30 901820",
        "tel. 030 / 90 18 20",
        "(212) 555-0123",
        "212-555-0123",
        "Phone: 555 0123 45",
        "WhatsApp 0171 2345678",
        "тел. 8 (495) 123-45-67",
        "0044 20 7946 0958",
    ],
)
def test_phone_numbers_are_flagged(text: str) -> None:
    assert basics(text)["text_has_phone"] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "2019-04-12 10:30:00",
        "ISBN 978-3-16-148410-0",
        "IMG_20190412_173022",
        "1024x768",
        "a phone on a table",
        "1,000,000 stars",
        "iPhone 12 128 GB",
        "12345678901234",
        "200-300 mm f/4.5",
        "call 911",
        "01/02/2020",
    ],
)
def test_other_numbers_are_no_phone_numbers(text: str) -> None:
    assert basics(text)["text_has_phone"] == [False]


def test_equal_texts_share_a_hash_whatever_their_case_and_spaces() -> None:
    first, second, other, empty, none = basics("Red  Fox\n", "red fox", "red foxes", " ", None)[
        "text_hash"
    ]
    assert first == second != other
    assert empty is none is None


def test_adult_words_and_slurs_count_as_whole_words_only() -> None:
    scores = columns_of(
        TextWords(), "Free PORN here", "a sex toy", "Sussex and Essex", "retarded", None, "a fox"
    )
    assert scores["text_has_adult_words"] == [True, True, False, False, False, False]
    assert scores["text_has_slurs"] == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "Maine Coon cat",
        "great tit on a branch",
        "rooster (cock) crowing",
        "chicken breast with rice",
        "pussy willow in spring",
        "XXX-Large shirt",
        "vestido negro",
        "nude descending a staircase",
        "a chink in the wall",
    ],
)
def test_words_with_another_meaning_are_not_listed(text: str) -> None:
    scores = columns_of(TextWords(), text)
    assert scores == {"text_has_adult_words": [False], "text_has_slurs": [False]}


def test_a_list_of_ones_own_in_any_language(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# mine\nДом\nred  fox\nc++\n", encoding="utf-8")
    scorer = TextWords(str(path))
    scores = columns_of(scorer, "белый дом", "домик", "a Red fox!", "uses C++ here", "red, fox")
    assert scores["text_has_listed_words"] == [True, False, True, True, False]
    other = tmp_path / "other.txt"
    other.write_text("fox")
    assert scorer.signature() != TextWords(str(other)).signature()


def test_a_missing_or_empty_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        TextWords(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    with pytest.raises(ConfigError, match="holds no words"):
        read_list(tmp_path / "empty.txt")
