"""Forgetting in regression: two methods at their defaults, on built-in cases with real targets.

Run with ``python -m experiments regression``; with ``--write`` it writes
``docs/results/regression.md``. The cases that are not bundled are read from ``UNLEARNKIT_DATA``.
Originals and oracles are kept in the cache: a second call trains what is missing.
"""

import argparse
import platform
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import unlearnkit as uk
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.core.data import Data, View

PAGE = Path(__file__).parents[1] / "docs" / "results" / "regression.md"
CASES = ("diabetes", "demand", "california_housing", "digits_number", "sts", "etth1")
"""Those that train in seconds; cifar10_rotation can be named besides."""

METHODS = ("blindspot_regression", "gaussian_amnesiac")
LIMIT, NEAR = 0.25, 2.0
"""Largest share of retraining's rows backward, and how many of the oracles' deviations are near."""


@dataclass(frozen=True)
class Line:
    """Some models of one kind on one request: absolute errors, one a model."""

    case: str
    request: str
    name: str
    forget: list[float]
    retain: list[float]
    test: list[float]
    cost: float | None = None
    """Rows backward as a share of retraining's; None for models trained from nothing."""

    notes: tuple[str, ...] = ()
    """What the runs had to say, such as a restart that was given up."""


def measure(cases: Iterable[str], seeds: int, oracles: int) -> Iterator[list[Line]]:
    """Yield the lines of each request: oracles, originals, methods."""
    for name in cases:
        built = uk.catalog.cases()[name]
        for request in built.requests:
            yield request_lines(built.id, request, built.ask(request), seeds, oracles)


def request_lines(
    case: str, request: str, asked: CaseWithRequest, seeds: int, oracles: int
) -> list[Line]:
    """Return the lines of one request: seed s of a method starts from the original of seed s."""
    truth = uk.oracle(asked.case, asked.request, seeds=oracles)
    originals = [uk.train_original(asked.case, seed=s).model for s in range(seeds)]
    lines = [
        line(case, request, "oracles", asked, truth.models),
        line(case, request, "originals", asked, originals),
    ]
    stay = asked.case.partition(asked.request).retain
    assert stay is not None
    assert asked.case.recipe is not None
    whole = len(stay) * asked.case.recipe.epochs
    for method in METHODS:
        done = [
            uk.unlearn(m, asked.case, asked.request, method, uk.Runtime(seed=s))
            for s, m in enumerate(originals)
        ]
        cost = statistics.mean(d.cost.backward for d in done) / whole
        notes = tuple(note for d in done for note in d.notes)
        lines.append(line(case, request, method, asked, [d.model for d in done], cost, notes))
    return lines


def line(
    case: str,
    request: str,
    name: str,
    asked: CaseWithRequest,
    models: list[nn.Module],
    cost: float | None = None,
    notes: tuple[str, ...] = (),
) -> Line:
    """Return the errors of some models on forgotten, retained and test rows."""
    parts = asked.case.partition(asked.request)
    assert asked.case.train is not None
    assert asked.case.test is not None
    assert parts.forget is not None
    assert parts.retain is not None
    seen = [errors(asked, m, asked.case.train) for m in models]
    return Line(
        case,
        request,
        name,
        forget=[float(e[parts.forget.rows].mean()) for e in seen],
        retain=[float(e[parts.retain.rows].mean()) for e in seen],
        test=[float(errors(asked, m, asked.case.test).mean()) for m in models],
        cost=cost,
        notes=notes,
    )


def errors(asked: CaseWithRequest, model: nn.Module, rows: Data) -> Tensor:
    """Return the absolute error of each row ``(N,)``, in target units."""
    model.eval()
    task = asked.case.task
    with torch.inference_mode():
        found = [
            task.errors(task.outputs(model, b), b)
            for b in View.all(rows).batches(512, uk.Runtime())
        ]
    return torch.cat(found)


def away(x: Line, truth: Line) -> float:
    """Return how far the mean forget error is from the oracles', in their standard deviations."""
    apart = statistics.mean(x.forget) - statistics.mean(truth.forget)
    return apart / statistics.stdev(truth.forget)


def closed(x: Line, truth: Line, before: Line) -> float:
    """Return the share of the way that the mean forget error went, from originals to oracles."""
    start, end = statistics.mean(before.forget), statistics.mean(truth.forget)
    return (statistics.mean(x.forget) - start) / (end - start)


def row(x: Line, group: list[Line]) -> str:
    """Return a line as a row of a Markdown table; ``group`` starts with oracles and originals."""
    truth, before = group[:2]
    told = [spread(x.forget), spread(x.retain), spread(x.test)]
    if x is truth:
        return f"| {' | '.join([x.name, *told])} | | | |"
    share = "" if x is before else f"{closed(x, truth, before):.2f}"
    cost = "" if x.cost is None else f"{x.cost:.3f}"
    return f"| {' | '.join([x.name, *told])} | {away(x, truth):+.1f} | {share} | {cost} |"


def spread(values: list[float]) -> str:
    """Return mean and standard deviation of some numbers."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def verdicts(groups: list[list[Line]]) -> Iterator[str]:
    """Yield what was asked of the methods and what came."""
    for method in METHODS:
        mine = [(g, x) for g in groups for x in g if x.name == method]
        dear = max((x.cost or 0.0 for _, x in mine), default=0.0)
        yield (
            f"`{method}` costs at most {dear:.3f} of retraining in rows backward; wanted:"
            f" {LIMIT:g}; {'met' if dear <= LIMIT else 'missed'}."
        )
        near = [f"{x.case}/{x.request}" for g, x in mine if abs(away(x, g[0])) <= NEAR]
        yield (
            f"`{method}` has a forget error within {NEAR:g} deviations of the oracles' on"
            f" {len(near)} of {len(mine)} requests: {', '.join(near) or 'none'}."
        )
        gave = [
            f"{x.case}/{x.request}" for _, x in mine if any("started again" in n for n in x.notes)
        ]
        yield f"Restarts of `{method}` given up halfway: {', '.join(gave) or 'none'}."


def page(groups: list[list[Line]], seeds: int, oracles: int) -> str:
    """Return the result as Markdown."""
    cases = dict.fromkeys(group[0].case for group in groups)
    said = [
        "# Forgetting in regression",
        "",
        f"Built-in cases with real targets ({', '.join(cases)}), each request, the methods with"
        f" their defaults and nothing else; {seeds} seeds, each with an original of its own,"
        f" against {oracles} oracles."
        f" Made by `python -m experiments regression --write` (torch {torch.__version__},"
        f" {platform.machine()}).",
        "",
        "Errors are absolute, in the case's unit (`unlearnkit show CASE`), of quantiles the"
        " median's; mean ± standard deviation over models, each first averaged over its rows. Away:"
        " the mean forget error minus the oracles', in standard deviations between oracles; with so"
        " few oracles that yardstick itself is rough. Closed: the share of the way from the"
        " originals' to the oracles' forget error; 1 is all of it. Cost: rows backward as a share"
        " of retraining's.",
        "",
        *(f"- {text}" for text in verdicts(groups)),
    ]
    for group in groups:
        said += [
            "",
            f"## {group[0].case}, {group[0].request}",
            "",
            "| models | forget error | retained error | test error | away | closed | cost |",
            "|---|---|---|---|---|---|---|",
            *(row(x, group) for x in group),
        ]
    return "\n".join(said) + "\n"


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--oracles", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write docs/results/regression.md")
    asked = parser.parse_args()
    if min(asked.seeds, asked.oracles) < 2:
        parser.error("name two seeds and two oracles at least: a spread is shown")
    if asked.write and not set(CASES) <= set(asked.cases):
        parser.error("--write writes the whole page: name no case with it, or all and further ones")
    torch.set_num_threads(1)
    groups = []
    for group in measure(asked.cases, asked.seeds, asked.oracles):
        for x in group:
            print(f"{x.case}/{x.request}", row(x, group), *set(x.notes), flush=True)
        groups.append(group)
    print(*verdicts(groups), sep="\n")
    if asked.write:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(groups, asked.seeds, asked.oracles), encoding="utf-8")
