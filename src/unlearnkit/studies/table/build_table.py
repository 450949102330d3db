"""Study table: built from the results of its runs."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from unlearnkit.stats.oracle_gap import ENOUGH_FOR_EQUIVALENCE, Judgement, closed_share
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_INTERVALS as ENOUGH_ORACLES
from unlearnkit.stats.paired_test import ENOUGH_FOR_INTERVALS, paired
from unlearnkit.store import Store
from unlearnkit.studies import columns as c
from unlearnkit.studies.planning.study_plan import StudyPlan, load_or_make_plan
from unlearnkit.studies.spec import Study
from unlearnkit.studies.table.captions import short_request
from unlearnkit.studies.table.compare_with_oracles import (
    Measures,
    Oracles,
    all_finite,
    make_cell,
    mean,
    spread,
)
from unlearnkit.studies.table.load_results import Result, read
from unlearnkit.studies.table.random_mask_control import compare_with_random_mask
from unlearnkit.studies.table.study_table import Table
from unlearnkit.studies.table_schema import (
    Column,
    Failure,
    ForgetSetTable,
    MethodComparison,
    TableRow,
)

ORACLE = "oracle"
ORIGINAL = "original"
UNLEARNED = "unlearned"
Originals = Mapping[str, Mapping[int, float]]
"""By metric and training seed."""


def show(
    study: Study,
    store: Store,
    names: Iterable[str] | None = None,
    planned: StudyPlan | None = None,
) -> Table:
    """Return the table of what a study has found so far.

    Args:
        study: Its runs that are not in the store count as not done.
        store: Only the numbers that are shown are read.
        names: Ids of the columns; the core columns when None.
        planned: The plan; the one in the store, or a new one, when None.

    Returns:
        The table.
    """
    plan = planned or load_or_make_plan(study, store)
    shown = c.select_columns(
        names or (c.STRONG if study.tier == "strong" else c.CORE), plan.metrics
    )
    wanted = [*c.metrics_of_columns(shown), *c.FORGETTING, *c.UTILITY]
    results = read(plan.runs, store, dict.fromkeys(wanted))
    return tabulate(study, results, shown, plan.metrics, keep_empty=names is not None)


def tabulate(
    study: Study,
    results: Sequence[Result],
    shown: Sequence[Column],
    measures: Measures,
    *,
    keep_empty: bool = False,
) -> Table:
    """Return the table: for each forget set the oracles, the original and each method."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.spec.case, r.spec.request), []).append(r)
    blocks = tuple(
        _block(case, request, group, shown, measures, keep_empty)
        for (case, request), group in groups.items()
    )
    used = {name for b in blocks for name in b.columns}
    return Table(
        study=study.name,
        about=study.about,
        design=study.design,
        tier=study.tier,
        seeds=study.seeds,
        planned_runs=len(results),
        done=sum(r.status == "done" for r in results),
        columns=tuple(column for column in shown if column.id in used),
        blocks=blocks,
        failures=tuple(_failures(results)),
        notes=tuple(_notes(study, results, blocks)),
    )


def _failures(results: Sequence[Result]) -> Iterator[Failure]:
    for r in results:
        if r.status == "failed" or r.status == "cancelled":
            p = r.spec
            yield Failure(
                case=p.case,
                request=p.request,
                label=p.label,
                seed=p.seed,
                status=r.status,
                error=r.error,
            )


def _notes(
    study: Study, results: Sequence[Result], blocks: Sequence[ForgetSetTable]
) -> Iterator[str]:
    missing = sum(r.status in {"absent", "cancelled"} for r in results)
    if missing:
        yield f"{missing} of {len(results)} planned runs are not done; the numbers may still change"
    if len(study.seeds) < ENOUGH_FOR_INTERVALS:
        yield (
            f"{len(study.seeds)} seed{'s' if len(study.seeds) > 1 else ''}: no intervals and no"
            f" equivalence; {ENOUGH_FOR_INTERVALS} are the least"
        )
    most = max((b.oracles for b in blocks), default=0)
    if not blocks or all(r.status == "absent" for r in results):
        pass  # nothing was measured yet
    elif most < ENOUGH_ORACLES:
        yield (
            f"{most or 'no'} oracle{'s' if most != 1 else ''}: no equivalence is shown;"
            f" {ENOUGH_ORACLES} are the least"
        )
    elif most < ENOUGH_FOR_EQUIVALENCE:
        yield (
            f"{most} oracles: equivalence is shown column by column;"
            f" {ENOUGH_FOR_EQUIVALENCE} are the least to say that a method matches retraining"
        )
    points = dict.fromkeys(n.label for b in blocks for n in b.lines if n.same)
    if points:
        yield (
            "design REUSE with methods that draw no random numbers: all seeds gave the same model,"
            f" one point without an interval: {', '.join(points)}"
        )
    for b in blocks:
        judged = [
            cell.judgement
            for n in b.lines
            if n.kind == "original"
            for cell in n.cells.values()
            if cell.judgement is not Judgement.NOT_JUDGED
        ]
        if judged and all(j is Judgement.EQUIVALENT for j in judged):
            yield (
                f"{b.case}, {short_request(b.request)}: the untouched original is equivalent"
                " to retraining on every column; this forget set cannot rank methods"
            )


def _block(
    case: str,
    request: str,
    results: Sequence[Result],
    shown: Sequence[Column],
    measures: Measures,
    keep_empty: bool,
) -> ForgetSetTable:
    """Return the table of one forget set."""
    done = [r for r in results if r.status == "done"]
    oracles, before, examples = _oracles(done), _originals(done), _examples(done)
    measured = {
        metric
        for r in done
        for (metric, who), value in r.values.items()
        if who == UNLEARNED and value is not None
    }
    here = [s for s in shown if keep_empty or c.metrics_of_columns([s])[0] in measured]
    by_label: dict[str, list[Result]] = {}
    for r in results:
        by_label.setdefault(r.spec.label, []).append(r)
    count = max(map(len, oracles.values()), default=0)
    lines = []
    if count:
        lines.append(_oracle_line(count, here, oracles, before))
    if before:
        lines.append(_original_line(here, oracles, before, measures, examples))
    lines += [_method_line(runs, here, oracles, measures, examples) for runs in by_label.values()]
    pairs = tuple(_pairs(by_label, oracles, measured, measures))
    return ForgetSetTable(
        case=case,
        request=request,
        columns=tuple(column.id for column in here),
        lines=tuple(lines),
        pairs=pairs,
        chances=tuple(
            compare_with_random_mask([runs[0].spec for runs in by_label.values()], pairs)
        ),
        oracles=count,
    )


def _oracles(done: Sequence[Result]) -> Oracles:
    """Return each metric's value of each oracle, averaged over runs that drew other rows."""
    found: dict[str, dict[str, list[float]]] = {}
    for r in done:
        for (metric, who), value in r.values.items():
            if value is not None and who.startswith(ORACLE):
                found.setdefault(metric, {}).setdefault(who, []).append(value)
    return {metric: [mean(v) for v in by_who.values()] for metric, by_who in found.items()}


def _examples(done: Sequence[Result]) -> dict[str, int]:
    """Return the rows behind each metric's values: the fewest of any run."""
    found: dict[str, int] = {}
    for r in done:
        for metric, count in r.examples.items():
            found[metric] = min(count, found.get(metric, count))
    return found


def _originals(done: Sequence[Result]) -> Originals:
    """Return the value of each original, by metric and training seed."""
    found: dict[str, dict[int, list[float]]] = {}
    for r in done:
        for (metric, who), value in r.values.items():
            if value is not None and who == ORIGINAL:
                found.setdefault(metric, {}).setdefault(r.spec.original_seed, []).append(value)
    return {m: {seed: mean(v) for seed, v in by.items()} for m, by in found.items()}


def _oracle_line(
    count: int, here: Sequence[Column], oracles: Oracles, before: Originals
) -> TableRow:
    cells = {}
    for column in here:
        metric = c.metrics_of_columns([column])[0]
        values, starts = oracles.get(metric, []), [*before.get(metric, {}).values()]
        start = mean(starts) if starts else None
        cells[column.id] = spread(_of_column(column, values, [start] * len(values), oracles))
    return TableRow(label=ORACLE, kind="oracle", count=count, cells=cells)


def _original_line(
    here: Sequence[Column],
    oracles: Oracles,
    before: Originals,
    measures: Measures,
    examples: Mapping[str, int],
) -> TableRow:
    cells = {}
    for column in here:
        values = [*before.get(c.metrics_of_columns([column])[0], {}).values()]
        shown = _of_column(column, values, values, oracles)
        rows = examples.get(column.id, 0)
        cells[column.id] = make_cell(column, shown, oracles, measures, one=False, examples=rows)
    return TableRow(
        label=ORIGINAL, kind="original", count=max(map(len, before.values())), cells=cells
    )


def _method_line(
    runs: Sequence[Result],
    here: Sequence[Column],
    oracles: Oracles,
    measures: Measures,
    examples: Mapping[str, int],
) -> TableRow:
    done = [r for r in runs if r.status == "done"]
    first = runs[0].spec
    models = {r.weights for r in done}
    one = first.design == "REUSE" and len(done) > 1 and len(models) == 1 and "" not in models
    cells = {}
    for column in here:
        metric = c.metrics_of_columns([column])[0]
        values, starts = (
            [r.values.get((metric, who)) for r in done] for who in (UNLEARNED, ORIGINAL)
        )
        shown = _of_column(column, values, starts, oracles)
        rows = examples.get(column.id, 0)
        cells[column.id] = make_cell(column, shown, oracles, measures, one=one, examples=rows)
    return TableRow(
        label=first.label,
        kind="method",
        method=first.method,
        preset=first.preset,
        settings=dict(first.settings),
        count=len(done),
        failed=sum(r.status == "failed" for r in runs),
        absent=sum(r.status in {"absent", "cancelled"} for r in runs),
        same=one,
        cells=cells,
        verdicts=dict(Counter(r.verdict for r in done if r.verdict)),
    )


def _of_column(
    column: Column,
    values: Sequence[float | None],
    starts: Sequence[float | None],
    oracles: Oracles,
) -> Sequence[float | None]:
    """Return values of a metric as a column shows them: as they are, or as closed shares."""
    metric = c.metrics_of_columns([column])[0]
    if column.id == metric:
        return values
    known = oracles.get(metric, [])
    return [_closed(v, o, known) for v, o in zip(values, starts, strict=True)]


def _closed(value: float | None, start: float | None, oracles: Sequence[float]) -> float | None:
    if value is None or start is None or not all_finite([value, start, *oracles]):
        return None
    return closed_share(value, start, list(oracles))


def _pairs(
    by_label: Mapping[str, Sequence[Result]],
    oracles: Oracles,
    measured: set[str],
    measures: Measures,
) -> Iterator[MethodComparison]:
    """Yield every two methods, compared on the seeds that both have."""
    for names in (c.FORGETTING, c.UTILITY):
        metric = next((n for n in names if n in measured and oracles.get(n)), None)
        if metric is None:
            continue
        near = measures[metric].column.goal == "match retraining"
        centre = statistics.fmean(oracles[metric]) if near else 0.0
        far = {
            label: {
                (r.spec.seed, r.spec.original_seed): abs(v - centre)
                for r in runs
                if (v := r.values.get((metric, UNLEARNED))) is not None and math.isfinite(v)
            }
            for label, runs in by_label.items()
        }
        for a, b in itertools.combinations(far, 2):
            shared = [k for k in far[a] if k in far[b]]
            if shared:
                told = paired([far[a][k] - far[b][k] for k in shared])
                yield MethodComparison(
                    metric=metric, first=a, second=b, count=len(shared),
                    difference=told.value, low=told.low, high=told.high, p=told.p,
                    least_p=told.least_p,
                )  # fmt: skip
