"""The rule box: what a rule keeps, both sides of the cut, and saving it as a selection.

GET  /api/rule       counts, the funnel, and a slider with a histogram for each number
GET  /api/examples   pictures just above and below a slider, or random ones of one side
GET  /api/presets    published recipes as rules of this dataset, and the stored selections
POST /api/selections saves: `caplab select` with the same settings is a no-op then
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.routing import Route

from curate.base.errors import ConfigError
from curate.base.settings import load_settings
from curate.selection.preset_list import PRESETS
from curate.selection.presets import preset_where
from curate.selection.preview import Preview
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.finite import FINITE
from pipelines.view.answers import Asked, get, post
from pipelines.view.opened import Opened
from pipelines.view.order import Order
from pipelines.view.rows import rows_of_keys
from pipelines.view.rule_previews import Previews
from pipelines.view.rule_sliders import Slider, sliders, threshold

EVERYTHING = "true"
_SHOWN_COLUMNS = 6
_SAVED = ("name", "where", "preset", "keep_duplicates", "overwrite")


def routes(opened: Opened) -> list[Route]:
    """All of the above; also lets the grid order one side of a rule."""
    previews = Previews(opened)

    def keys(_: Opened, order: Order) -> str:
        with previews.ask(order.where, order.keep_duplicates) as (_cursor, shown):
            wanted = shown.keeps if order.side == "kept" else "step IS NOT NULL"
            return f"SELECT key FROM ({shown.verdicts()}) WHERE {wanted}"

    opened.rule_keys = keys
    return [
        get("/api/rule", lambda asked: _rule(previews, asked)),
        get("/api/examples", lambda asked: _examples(opened, previews, asked)),
        get("/api/presets", lambda asked: _presets(opened)),
        post("/api/selections", lambda given: _save(opened, given)),
    ]


def _rule(previews: Previews, asked: Asked) -> dict[str, Any]:
    where = asked.text("where", EVERYTHING)
    with previews.ask(where, asked.flag("keep_duplicates"), asked.text("page")) as found:
        cursor, shown = found
        sql = [rule.sql for rule in shown.rules.rules]
        told = []
        for number, slider in enumerate(sliders(cursor, where)):
            if (behind := previews.histogram(cursor, shown, slider.expression)) is not None:
                cut = {"number": number, "threshold": threshold(shown, slider)}
                told.append({**cut, **asdict(slider), **asdict(behind)})
        return {
            "where": where,
            "stored": shown.stored,
            "kept": shown.kept,
            "funnel": [
                {**asdict(step), "sql": runs if runs != step.rule else None}
                for step, runs in zip(shown.funnel, [*sql, None], strict=False)
            ],
            "sliders": told,
            "columns": shown.rules.columns,
        }


def _examples(opened: Opened, previews: Previews, asked: Asked) -> dict[str, Any]:
    where, most = asked.text("where", EVERYTHING), asked.whole("count", 24, 1, 200)
    seed = asked.whole("seed", 0)
    page = asked.text("page") and f"{asked.text('page')} {asked.text('side')}{asked.text('edge')}"
    with previews.ask(where, asked.flag("keep_duplicates"), page) as (cursor, shown):
        if asked.text("edge"):
            found = sliders(cursor, where)
            edge = asked.whole("edge", 0, 0, max(0, len(found) - 1))
            if not found:
                raise ConfigError("That rule compares nothing with a number.")
            sides = _beside(shown, found[edge], seed, most)
        else:
            sides = {"rows": _random(shown, asked, seed, most)}
        keys = {side: cursor.execute(sql).fetchall() for side, sql in sides.items()}
        steps = shown.steps
    columns = [name for name in shown.rules.columns if name in opened.tables.columns]
    answer: dict[str, Any] = {}
    for side, told in keys.items():
        by_key = {row[0]: row[1:] for row in told}
        answer[side] = rows_of_keys(opened, list(by_key), columns[:_SHOWN_COLUMNS])
        for row in answer[side]:
            step, unscored, *value = by_key[row["key"]]
            row["dropped_by"] = None if step is None else steps[step]
            row["unscored"] = unscored
            row["value"] = value[0] if value else None
    return answer


def _random(shown: Preview, asked: Asked, seed: int, most: int) -> str:
    """Random samples of one side, the same for the same seed; of those that one step dropped."""
    side = asked.one_of("side", "kept", "dropped")
    wanted = shown.keeps if side == "kept" else "step IS NOT NULL"
    if side == "dropped" and asked.text("step"):
        wanted = f"step = {asked.whole('step', 0)}"
    return (
        f"SELECT key, step, unscored FROM ({shown.verdicts()}) WHERE {wanted} "
        f"ORDER BY hash(key || ' {seed}'), key LIMIT {most}"
    )


def _beside(shown: Preview, slider: Slider, seed: int, most: int) -> dict[str, str]:
    """Of the samples that every other rule lets through, those nearest to the threshold."""
    rules = range(len(shown.rules.rules))
    others = " AND ".join(["true", *(f"r{index}" for index in rules if index != slider.rule)])
    # What only the keep rule drops is no matter of this threshold.
    open_to_it = f"{others} AND (step IS NULL OR step = {slider.rule})"
    cut = threshold(shown, slider)
    verdicts = shown.verdicts({"v": f"{FINITE}({slider.expression})"})
    above = ">" if slider.operator in (">", "<=") else ">="
    below = "<=" if above == ">" else "<"
    return {
        side: f"SELECT key, step, unscored, v FROM ({verdicts}) WHERE {open_to_it} "
        f"AND v {sign} {cut or 0!r} ORDER BY v {way}, hash(key || ' {seed}'), key LIMIT {most}"
        for side, sign, way in (("below", below, "DESC"), ("above", above, "ASC"))
    }


def _presets(opened: Opened) -> dict[str, Any]:
    dataset = opened.tables.dataset
    columns = opened.sample_tables().columns
    presets = []
    for name, preset in PRESETS.items():
        told = {"name": name, "about": preset.about, "source": preset.source}
        try:
            applied = preset_where(SelectSettings(preset=name), dataset, columns)
        except ConfigError as error:
            presets.append({**told, "where": None, "problem": str(error)})
        else:
            presets.append({**told, "where": applied.where if applied else None})
    selections = []
    for name in dataset.selections():
        record = dataset.selection_record(name)
        named = {part: record.get(part) for part in ("where", "keep_duplicates", "selected")}
        selections.append({"name": name, **named})
    return {"presets": presets, "selections": selections}


def _save(opened: Opened, given: dict[str, Any]) -> dict[str, Any]:
    """The record's summary, or what `asks` for a word: the name stands for another selection."""
    settings = load_settings(
        SelectSettings,
        None,
        {name: given[name] for name in _SAVED if name in given},
    )
    dataset = opened.tables.dataset
    try:
        summary = select(dataset, settings)
    except ConfigError as error:
        if settings.overwrite or settings.name not in dataset.selections():
            raise
        return {"asks": f"{str(error).partition('; choose another')[0]}."}
    opened.changed()
    return {
        "name": summary.name,
        "selected": summary.selected,
        "stored": summary.stored,
        "rows": summary.rows,
        "fresh": summary.fresh,
    }
