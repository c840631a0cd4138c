"""From pictures' values to tables and words."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.base.errors import DatasetError
from pipelines.ablation.declared import Declaration, Interaction, NoWorse, Primary, Sweep
from pipelines.ablation.finished.planning import plan_next
from pipelines.ablation.metrics import metric
from pipelines.ablation.schemas import DESCRIBING, SCHEMAS, SETS
from pipelines.ablation.tables import Tables, study_tables, text_table
from pipelines.commands.compare import beside

SKILL = {"alt": 0.1, "long-0": 0.3, "long-50": 0.5, "long-100": 0.7, "again": 0.1}
SEEDS = dict.fromkeys(SKILL, (0, 1, 2)) | {"again": (3, 4, 5)}
DECLARED = Declaration(
    primary=Primary(metric="object_hit", form="descriptive", wording="captioner"),
    contrasts=(("long-100", "alt"), ("again", "alt"), ("long-50", "nobody")),
    no_worse=(NoWorse(arm="long-100", than="alt", form="short", margin=0.03),),
    interactions=(Interaction(arms=("long-100", "alt"), forms=("descriptive", "short")),),
    trends={"long": Sweep(kind="long", rest="alt", shares=(0, 50, 100)).doses},
)


def pictures(arms: dict[str, tuple[int, ...]] = SEEDS, noises: int = 2) -> pa.Table:
    """Two wordings of 20 descriptive and 8 short prompts, in which arms differ by their skill."""
    rng = np.random.default_rng(0)
    rows = []
    for arm, seeds in arms.items():
        for seed in seeds:
            skill = SKILL[arm] + rng.normal(0, 0.02)
            for form, count in (("descriptive", 20), ("short", 8)):
                for wording in ("captioner", "typed"):
                    for intent in range(count):
                        for noise in range(noises):
                            name = f"{form}-{wording}-{intent}"
                            row = {"arm": arm, "seed": seed, "prompt_id": name, "form": form}
                            row |= {"wording": wording, "intent_id": str(intent), "noise": noise}
                            row |= {"category": "one", "held_out": intent % 4 == 0}
                            row |= {"picture_id": f"{arm}{seed}{name}{noise}", "prompt": name}
                            row["object_hit"] = float(rng.random() < skill)
                            row["position"] = None if form == "short" else float(rng.random() < 0.5)
                            rows.append(row)
    schema = pa.schema([*DESCRIBING, ("object_hit", pa.float64()), ("position", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)


def sets(arms: dict[str, tuple[int, ...]] = SEEDS) -> pa.Table:
    rng = np.random.default_rng(1)
    rows = [
        {"arm": arm, "seed": seed, "form": "descriptive", "wording": "all", "metric": "fid"}
        | {"value": 30 - 20 * SKILL[arm] + rng.normal(0, 0.5), "floor": 2.0, "pictures": 40}
        for arm, seeds in arms.items()
        for seed in seeds
    ]
    return pa.Table.from_pylist(rows, schema=SETS)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return study_tables(pictures(), sets(), DECLARED)


def test_all_that_was_declared_is_one_family_and_has_a_sentence(tables: Tables):
    beats, again, nobody, no_worse, interaction, trend = tables.headline
    assert beats.startswith("long-100 beats alt on descriptive prompts, wording captioner (object)")
    assert again.startswith("Not shown: a difference of again and alt")
    assert "This study would have seen" in again
    assert "among 6 tests)." in again
    assert nobody.startswith("Not shown: long-50 minus nobody")
    assert no_worse.startswith("long-100 is not worse than alt on short prompts (object) by 3 poin")
    assert interaction.startswith("Not shown: that the difference of long-100 and alt is another")
    assert trend.startswith("object rises with the dose of long")
    assert "for ten points of dose; Page's test" in trend
    row = tables.equivalence.to_pylist()[0]
    assert row["p_holm"] >= 2 * row["p_value"]
    assert [table.schema for table in tables.named().values()] == list(SCHEMAS.values())


def test_what_was_not_declared_is_exploratory_and_never_beats(tables: Tables):
    rows = tables.contrasts.to_pylist()
    others = [row for row in rows if not row["declared"]]
    assert len(rows) - len(others) == 2
    for row in others:
        assert row["verdict"].startswith("Exploratory: ")
        assert "beats" not in row["verdict"]
        assert not row["claimed"]
        assert row["p_holm"] is None
    assert any(row["p_value"] < 0.01 for row in others)


def test_arms_are_paired_by_the_seeds_that_they_share(tables: Tables):
    by_arm = {row["arm_a"]: row for row in tables.contrasts.to_pylist() if row["declared"]}
    paired, apart = by_arm["long-100"], by_arm["again"]
    assert (paired["paired"], len(paired["per_seed"])) == (True, 3)
    assert (apart["paired"], apart["per_seed"], apart["seeds"]) == (False, [], 3)
    assert paired["difference"] == pytest.approx(np.mean(paired["per_seed"]))


def test_arms_have_every_wording_and_group_and_intervals_of_their_metric(tables: Tables):
    rows = {
        (r["arm"], r["form"], r["wording"], r["group"], r["metric"]): r
        for r in tables.arms.to_pylist()
    }
    everything = rows["alt", "descriptive", "all", "all", "object_hit"]
    assert (everything["prompts"], everything["seeds"]) == (40, 3)
    assert 0 < everything["low"] < everything["mean"] < everything["high"] < 1
    assert rows["alt", "short", "typed", "held_out", "object_hit"]["prompts"] == 2
    assert rows["alt", "descriptive", "typed", "seen", "position"]["prompts"] == 15
    assert rows["alt", "descriptive", "all", "all", "fid"]["prompts"] == 0
    assert tables.undefined == ["position on short prompts"]


def test_the_slope_is_for_ten_points_of_dose(tables: Tables):
    (row,) = tables.trends.to_pylist()
    assert row["doses"] == [0, 50, 100]
    assert row["slope"] == pytest.approx((row["means"][2] - row["means"][0]) / 10)


def test_one_seed_is_exploratory_and_has_no_interval():
    single = dict.fromkeys(("alt", "long-100"), (0,))
    made = study_tables(pictures(single), None, Declaration(contrasts=(("long-100", "alt"),)))
    assert made.headline[0].startswith("Exploratory, one seed: long-100 minus alt")
    assert made.arms["low"].null_count == made.arms.num_rows


def test_more_of_what_is_bad_is_not_called_a_win():
    made = study_tables(
        pictures(),
        sets(),
        Declaration(primary=Primary(metric="fid"), contrasts=(("alt", "long-100"),)),
    )
    assert made.headline[0].startswith("alt is above long-100 on descriptive prompts (FID) by ")


def test_the_terminal_s_table_has_units_and_digits_of_its_intervals(tables: Tables):
    text = text_table(tables.arms, tables.undefined)
    assert "nan" not in text.lower()
    (line,) = [line for line in text.splitlines() if line.startswith("  FID ")]
    assert len(line.split("[")) == 6
    assert "  object, %" in text
    assert text.index("    captioner") < text.index("    typed")
    assert text.endswith("left out: position on short prompts")


@pytest.mark.parametrize(
    ("name", "limits", "shown"),
    [
        ("object_hit", (0.67, 0.79), "[67, 79]"),  # half-width 6 points
        ("object_hit", (0.7012, 0.7312), "[70.1, 73.1]"),
        ("object_hit", (0.7012, 0.7013), "[70.1, 70.1]"),
        ("clip_similarity", (0.28112, 0.28334), "[0.2811, 0.2833]"),
        ("fid", (18.234, 25.9), "[18, 26]"),
    ],
)
def test_an_interval_s_width_says_its_digits(name: str, limits: tuple[float, float], shown: str):
    assert metric(name).limits(*limits) == shown


def test_a_value_that_rounds_to_nothing_has_no_sign():
    assert metric("colour").shown(-0.0001) == "0.0"


def study(folder: Path, arms: dict[str, tuple[int, ...]], **record: object) -> Path:
    """A finished study, as far as it is read afterwards."""
    (folder / "results").mkdir(parents=True)
    (folder / "run").mkdir()
    pq.write_table(pictures(arms), folder / "results" / "images.parquet")
    pq.write_table(sets(arms), folder / "results" / "sets.parquet")
    told = {"kind": "ablation", "arms": [{"name": arm} for arm in arms], "runs": [{"run": "run"}]}
    told |= {"settings": {"train": {"model": "world-small"}}, "judges": [], **record}
    (folder / "run.json").write_text(json.dumps(told))
    (folder / "run" / "summary.json").write_text(json.dumps({"seconds": 360.0}))
    return folder


def test_two_arms_of_studies_stand_beside_each_other_without_a_claim(tmp_path: Path):
    one = study(tmp_path / "one", {"alt": (0, 1, 2), "long-100": (0, 1, 2)})
    other = study(tmp_path / "other", {"again": (3, 4, 5), "alt": (0, 1, 2)})
    text = str(beside(f"{one}:long-100", f"{one}:alt"))
    assert "(3 seeds, p 0.00" in text
    assert text.endswith("exploratory, and nothing is claimed.")
    assert "3 seeds, not paired" in str(beside(f"{one}:alt", f"{other}:again"))
    assert "A:alt" in str(beside(str(one), str(other)))
    with pytest.raises(DatasetError, match="share no arm"):
        beside(str(one), f"{other}:again")
    with pytest.raises(DatasetError, match="did you mean 'alt'"):
        beside(f"{one}:allt", str(other))


def test_studies_that_were_trained_or_judged_otherwise_are_refused(tmp_path: Path):
    arms = {"alt": (0, 1)}
    one = study(tmp_path / "one", arms, judges=[{"name": "world", "id": "a"}])
    other = study(tmp_path / "other", arms, settings={"train": {"model": "dit-33m"}})
    third = study(tmp_path / "third", arms, judges=[{"name": "world", "id": "b"}])
    with pytest.raises(DatasetError, match="model: 'world-small' and 'dit-33m'"):
        beside(str(one), str(other))
    with pytest.raises(DatasetError, match="other world judges"):
        beside(str(one), str(third))
    with pytest.raises(DatasetError, match="compare like with like"):
        beside(str(one), str(tmp_path))


def test_a_pilot_says_what_the_next_study_needs(tmp_path: Path):
    out = study(tmp_path / "pilot", {"alt": (0, 1, 2), "long-100": (0, 1, 2)})
    declared = Declaration(contrasts=(("long-100", "alt"),))
    text = plan_next(out, declared, 10)
    assert text.startswith("To claim 10 points of object on descriptive prompts in four of five")
    assert "2 arms' runs one after another, training alone" in text
    assert "Cheapest: " in text
