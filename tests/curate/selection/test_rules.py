import duckdb
import pytest

from curate.base.errors import ConfigError
from curate.selection.rules import split_rules

COLUMNS = ["clip_similarity", "aesthetic", "nsfw", "alt_text"]


def rules(where: str) -> list[str]:
    return [rule.text for rule in split_rules(duckdb.connect(), where, COLUMNS)]


def test_top_level_ands_are_rules_whatever_the_brackets() -> None:
    where = "clip_similarity >= 0.28 AND (aesthetic > 5 and (nsfw < .5 or aesthetic > 8))"
    assert rules(where) == [
        "clip_similarity >= 0.28",
        "aesthetic > 5",
        "(nsfw < .5) OR (aesthetic > 8)",
    ]


def test_the_and_of_between_and_of_texts_does_not_split() -> None:
    assert len(rules("aesthetic between 5 and 6 and alt_text <> 'salt and pepper'")) == 2


def test_a_rule_knows_its_columns() -> None:
    (rule,) = split_rules(duckdb.connect(), "greatest(aesthetic, nsfw) > 1", COLUMNS)
    assert rule.columns == ("aesthetic", "nsfw")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("clip_similarity >", "not a valid SQL expression"),
        ("clip_simlarity > 0.3", "did you mean 'clip_similarity'"),
        ("1 = 1; DROP TABLE samples", "not a valid SQL expression|is a statement"),
        ("1 = 1; SELECT 2", "is a statement"),
        ("aesthetic > 5 FROM samples", "is a statement"),
        ("aesthetic > 5, nsfw", "is a statement"),
        ("aesthetic > 5 AS good", "is a statement"),
        ("true) OR (true", "not a valid SQL expression"),
        ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "subquery"),
        ("aesthetic IN (SELECT 5)", "subquery"),
        ("EXISTS (SELECT 1)", "subquery"),
        ("row_number() OVER () < 5", "window"),
        ("random() < 0.5", "another answer on every run"),
        ("length(read_text('/etc/passwd')) > 0", "reads outside"),
        ("aesthetic > ?", "parameter"),
        ("COLUMNS('a.*') > 1", "star"),
        ("pg_sleep(9) IS NULL", "no rule about one sample"),
        ("list_sum(range(width * 1000000)) > 1", "no rule about one sample"),
        ("abs(" * 300 + "nsfw" + ")" * 300 + " > 1", "nests too deeply"),
        ("   ", "empty"),
    ],
)
def test_whatever_is_no_rule_about_one_sample_is_refused(where: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rules(where)
