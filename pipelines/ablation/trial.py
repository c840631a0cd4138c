"""What is declared is tried before a step is trained: prompts, judges and metrics of every test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.base.errors import ConfigError, StageError
from curate.base.settings import nearest
from pipelines.ablation.judged import JudgeSpec, checked_scores, refuse_shared_metrics, said_by
from pipelines.ablation.metrics import metric as metric_of
from pipelines.ablation.results import ALL
from pipelines.ablation.settings import AblateSettings
from pipelines.judges.protocol import Judge, Pictures, SetJudge

_TRIED = 64
"""Pictures of a form and wording that each judge looks at before a step is trained, at most."""


class _Test(NamedTuple):
    """A metric that decides something: which setting says so, and of which prompts."""

    where: str
    metric: str
    form: str
    wording: str


def declared_tests(settings: AblateSettings) -> Iterator[_Test]:
    """What `primary`, `no_worse` and `interactions` ask for."""
    primary = settings.primary
    yield _Test("primary", primary.metric, primary.form, primary.wording)
    for own in settings.no_worse:
        yield _Test("no_worse", own.metric or primary.metric, own.form, own.wording)
    for asked in settings.interactions:
        metric, wording = asked.metric or primary.metric, asked.wording or primary.wording
        for form in asked.forms:
            yield _Test("interactions", metric, form, wording)


def check_places(settings: AblateSettings, prompts: pa.Table) -> None:
    """
    Raises:
        ConfigError: a form or wording that was declared is that of no prompt, or a margin is
            none that the metric can miss.
    """
    for where, _, form, wording in declared_tests(settings):
        forms = list(dict.fromkeys(prompts.column("form").to_pylist()))
        if form not in forms:
            raise ConfigError(
                f"No prompt has the form {form!r} that {where} names; {nearest(form, forms)}"
            )
        rows = prompts.filter(pc.equal(prompts.column("form"), form))
        wordings = [ALL, *dict.fromkeys(rows.column("wording").to_pylist())]
        if wording not in wordings:
            raise ConfigError(
                f"No {form} prompt has the wording {wording!r} that {where} names; "
                f"{nearest(wording, wordings)}"
            )
    for own in settings.no_worse:
        known = metric_of(own.metric or settings.primary.metric)
        if known.unit in ("share", "probability") and own.margin >= 1:
            raise ConfigError(
                f"no_worse: no arm can lose the margin {own.margin:g} of {known.label}, which goes "
                f"from 0 to 1; three points are 0.03."
            )


def tried_judges(
    settings: AblateSettings,
    prompts: pa.Table,
    resolution: int,
    device: str,
    added: Mapping[str, Mapping[str, Any]],
) -> list[JudgeSpec]:
    """The judges of a study, each loaded and tried on prompts of every declared test.

    Args:
        added: further ones; where the settings name one of them, theirs counts.

    Raises:
        ConfigError: as `loaded_judges`, or a metric that was declared is given by none or is not
            defined on the form that was declared with it.
    """
    values: dict[str, NDArray[np.float64]] = {}
    tests = list(declared_tests(settings))
    places = dict.fromkeys((test.form, test.wording) for test in tests)
    parts = {place: few(prompts_at(prompts, *place)) for place in places}
    rows = pa.concat_tables(parts.values())
    of = np.repeat(np.arange(len(parts)), [part.num_rows for part in parts.values()])
    judges = settings.judges | {n: own for n, own in added.items() if n not in settings.judges}
    specs = loaded_judges(judges, rows, resolution, device, values)
    refuse_small_sets(specs, prompts, settings.noises, device)
    of_sets = [metric for spec in specs if spec.of_sets for metric in spec.metrics]
    for where, metric, form, wording in tests:
        if where == "no_worse" and metric in of_sets:
            continue
        if metric not in values:
            raise ConfigError(
                f"No judge of single pictures ({', '.join(settings.judges)}) gives the metric "
                f"{metric!r} that {where} names; {nearest(metric, list(values))}"
            )
        if np.isnan(values[metric][of == list(parts).index((form, wording))]).all():
            raise ConfigError(
                f"The metric {metric!r} is not defined on {form} prompts; name another metric or "
                f"form in `{where}`."
            )
    return specs


def loaded_judges(
    judges: Mapping[str, Mapping[str, Any]],
    prompts: pa.Table,
    resolution: int,
    device: str,
    values: dict[str, NDArray[np.float64]] | None = None,
) -> list[JudgeSpec]:
    """The judges, each of which has judged a few pictures of the models' size.

    Args:
        prompts: what each is tried on; see `few`.
        values: receives what they said.

    Raises:
        ConfigError: one does not load, or two give one metric.
        StageError: one does not judge.
    """
    specs = [JudgeSpec.of(name, options, device) for name, options in judges.items()]
    refuse_shared_metrics(specs)
    for spec in specs:
        judge = spec.made(device)
        pictures = sample_pictures(judge, prompts, resolution)
        if isinstance(judge, SetJudge):
            said_by(spec.name, judge.attempt, pictures, prompts)
            continue
        found = checked_scores(spec.name, judge, pictures, prompts)
        if values is not None:
            values |= found
    return specs


def refuse_small_sets(
    specs: Sequence[JudgeSpec], prompts: pa.Table, noises: int, device: str
) -> None:
    """
    Raises:
        ConfigError: a form and wording has too few pictures for a judge of sets.
    """
    counts = prompts.group_by(["form", "wording"]).aggregate([([], "count_all")])
    for spec in specs:
        judge = spec.made(device)
        if isinstance(judge, SetJudge):
            for count in counts.column("count_all").to_pylist():
                judge.used(count * noises)


def few(prompts: pa.Table) -> pa.Table:
    """At most 64 of the prompts, from everywhere among them: a file may be sorted by category."""
    rows = np.unique(np.linspace(0, prompts.num_rows - 1, _TRIED).astype(np.int64))
    return prompts.take(pa.array(rows))


def primary_prompts(settings: AblateSettings, prompts: pa.Table) -> pa.Table:
    """The prompts of the primary form and wording."""
    return prompts_at(prompts, settings.primary.form, settings.primary.wording)


def prompts_at(prompts: pa.Table, form: str, wording: str) -> pa.Table:
    """The prompts of a form and wording."""
    here = pc.equal(prompts.column("form"), form)
    if wording != ALL:
        here = pc.and_(here, pc.equal(prompts.column("wording"), wording))
    return prompts.filter(here)


def sample_pictures(judge: Judge, rows: pa.Table, resolution: int) -> Pictures:
    """What the prompts meant, or black pictures, which show as well what is defined on them."""
    name, shape = type(judge).__name__, (rows.num_rows, resolution, resolution, 3)
    pictures: Pictures | None = said_by(name, judge.targets, rows, resolution)
    if pictures is None:
        return np.zeros(shape, np.uint8)
    if getattr(pictures, "shape", None) != shape or pictures.dtype != np.uint8:
        raise StageError(f"The judge {name} has targets that are no pictures {shape} of uint8.")
    return pictures
