"""How few weights and how short a repair come near retraining: ``del_localized`` on digits.

Run with ``python -m experiments localized``; ``--write`` writes ``docs/results/localized.md``. Each
setting runs with the criterion of the method and with a random mask of the same budget.
"""

import argparse
import itertools
import math
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.cases.registry import CaseWithRequest, random_indices
from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.stats.oracle_gap import closed_share
from unlearnkit.stats.paired_test import Paired, paired

OUT = Path(__file__).parents[1] / "docs" / "results" / "localized.md"
BUDGETS = (0.01, 0.03, 0.1, 0.3, 1.0)
REPAIRS = (0.05, 0.1, 0.2, 0.5)
HEADS = {
    "auto": "The last layer is trained whole besides the mask, as the method does by default",
    "none": "Nothing but the mask is trained",
}
CLASSES = (2, 5)
CHOSEN, RANDOM = "weighted_grad", "random"
METRICS = {n: uk.catalog.metrics()[n] for n in ("accuracy_forget", "accuracy_test", "js_forget")}


@dataclass(frozen=True)
class Line:
    """One setting: a number a seed."""

    budget: float
    repair: float
    criterion: str
    head: str
    forget: tuple[float, ...]
    """Forget accuracy minus the oracles' mean, in points."""

    test: tuple[float, ...]
    """Test accuracy minus the oracles' mean, in points."""

    closed: tuple[float, ...]
    """Share of the Jensen-Shannon distance to the oracles, on forget rows, that is gone."""

    moved: float
    """Share of the scalars that might move: the mask, and the head."""

    cost: float
    """Share of retraining's cost."""

    @property
    def off(self) -> float:
        """Return the size of the gap of forget accuracy, the mean over seeds, in points."""
        return statistics.fmean(map(abs, self.forget))


@dataclass(frozen=True)
class Scene:
    """What all lines stand beside."""

    rows: int
    original: float
    """Size of the gap of the originals' forget accuracy to the oracles' mean, in points."""

    band: float
    """Two standard deviations of the oracles' forget accuracy, in points."""

    finetuned: float
    """Test accuracy of full-parameter fine-tuning minus the oracles' mean, in points."""


def part_of_two_classes() -> CaseWithRequest:
    """Return digits with a request for 143 rows of classes 2 and 5: a set that is not IID."""
    case = digits()
    assert case.train is not None
    own = torch.isin(case.train.y, torch.tensor(CLASSES)).nonzero()[:, 0]
    which = random_indices(
        len(own), len(case.train) // 10, f"{case.name}/part of classes {list(CLASSES)}"
    )
    return CaseWithRequest(case, uk.Rows(own[which].tolist()))


class Bench:
    """The originals and oracles, and what is measured beside them.

    An audit would say more and take many times the work of these small runs.
    """

    def __init__(self, seeds: int, oracles: int) -> None:
        self.asked = part_of_two_classes()
        case = self.asked.case
        self.truth = uk.oracle(case, self.asked.request, seeds=oracles)
        self.originals = [uk.train_original(case, seed=s).model for s in range(seeds)]
        parts = case.partition(self.asked.request)
        assert parts.forget is not None
        assert parts.retain is not None
        assert case.test is not None
        assert case.recipe is not None
        self.whole = 3 * case.recipe.epochs * len(parts.retain)
        self.views = {Split.FORGET: parts.forget, Split.TEST: View.all(case.test)}
        e = self.evidence(self.originals[0])
        seats = [e.with_candidate(ModelRole.ORACLE, k) for k in range(oracles)]
        self.oracles = {n: [m(seat).value for seat in seats] for n, m in METRICS.items()}
        self.before = [self.values(model) for model in self.originals]

    def evidence(self, model: nn.Module) -> Evidence:
        """Return what is looked at of a model."""
        models = {"unlearned": model}
        models |= {f"oracle/{k}": m for k, m in enumerate(self.truth.models)}
        return Evidence(models, self.views, self.asked.case.task, uk.Runtime())

    def values(self, model: nn.Module) -> dict[str, float]:
        """Return a model's number for each metric."""
        e = self.evidence(model)
        return {name: metric(e).value for name, metric in METRICS.items()}

    def gap(self, values: Mapping[str, float], name: str) -> float:
        """Return an accuracy minus the oracles' mean, in points."""
        return 100 * (values[name] - statistics.fmean(self.oracles[name]))

    def runs(self, method: uk.Method) -> list[uk.Unlearned]:
        """Return what a method makes of each original, with its seed."""
        case, request = self.asked.case, self.asked.request
        return [
            uk.unlearn(model, case, request, method, uk.Runtime(seed=seed))
            for seed, model in enumerate(self.originals)
        ]

    def scene(self) -> Scene:
        """Return what the originals, the oracles and full-parameter fine-tuning do."""
        tuned = [self.values(done.model) for done in self.runs(uk.method("finetune"))]
        return Scene(
            rows=len(self.views[Split.FORGET]),
            original=statistics.fmean(abs(self.gap(v, "accuracy_forget")) for v in self.before),
            band=200 * statistics.stdev(self.oracles["accuracy_forget"]),
            finetuned=statistics.fmean(self.gap(v, "accuracy_test") for v in tuned),
        )

    def line(self, budget: float, repair: float, criterion: str, head: str) -> Line:
        """Return what one setting does."""
        method = uk.method(
            "del_localized",
            mask={"budget": budget, "criterion": criterion},
            run={"share": repair},
            head=head,
        )
        runs = self.runs(method)
        found = [self.values(done.model) for done in runs]
        floor, name = self.oracles["js_forget"], "js_forget"
        closed = [
            closed_share(now[name], was[name], floor)
            for now, was in zip(found, self.before, strict=True)
        ]
        return Line(
            budget=budget,
            repair=repair,
            criterion=criterion,
            head=head,
            forget=tuple(self.gap(v, "accuracy_forget") for v in found),
            test=tuple(self.gap(v, "accuracy_test") for v in found),
            closed=tuple(math.nan if c is None else c for c in closed),
            moved=statistics.fmean(done.mask.share if done.mask else 1.0 for done in runs),
            cost=statistics.fmean(done.cost.work / self.whole for done in runs),
        )


def measure(bench: Bench) -> Iterator[Line]:
    """Yield every setting; at a budget of 1 both criteria choose everything."""
    for head, budget, repair in itertools.product(HEADS, BUDGETS, REPAIRS):
        if budget == 1 and head == "none":
            continue
        for criterion in (CHOSEN, RANDOM) if budget < 1 else (CHOSEN,):
            yield bench.line(budget, repair, criterion, head)


def apart(chosen: Line, chance: Line) -> Paired:
    """Return how much nearer to 1 the chosen mask's closed share is, paired by seed."""
    return paired([a - b for a, b in zip(chosen.closed, chance.closed, strict=True)])


def row(x: Line) -> str:
    """Return a line as text."""
    return (
        f"{x.head} {x.budget:5.0%} {x.repair:4.0%} {x.criterion:13} |gap| {x.off:5.2f}"
        f" test {statistics.fmean(x.test):+5.2f} closed {statistics.fmean(x.closed):6.3f}"
        f" moved {x.moved:.3f} cost {x.cost:.3f}"
    )


def page(lines: Sequence[Line], scene: Scene, seeds: int, oracles: int) -> str:
    """Return the page."""
    said = [
        "# Localized unlearning: how few weights, how short a repair",
        "",
        f"`del_localized` on digits: forget {scene.rows} rows of classes 2 and 5, half of these."
        f" {seeds} seeds, each from an original of its own, against {oracles} retrained models;"
        " single scalars, an interpolating reset, four times the recipe's rate: the defaults. Made"
        " by `python -m experiments localized --write`"
        f" (torch {torch.__version__}, {platform.machine()}).",
        "",
        "The budget is the share of the scalars that the mask holds; the repair is the share of"
        " retraining's cost. A random mask of the same budget stands under each.",
        "",
        f"- The untouched originals are {scene.original:.2f} points away from the oracles in forget"
        f" accuracy; the oracles' band, two of their deviations, is {scene.band:.2f} points.",
        f"- Fine-tuning of all weights ends {scene.finetuned:+.2f} points from the oracles in test"
        " accuracy.",
    ]
    for head, text in HEADS.items():
        mine = [x for x in lines if x.head == head]
        said += ["", f"## {text}", "", _least(mine, scene)]
        for number, title in NUMBERS.items():
            said += ["", f"### {title}", "", *_grid(mine, number)]
        by = {(x.budget, x.repair, x.criterion): x for x in mine}
        said += [
            "",
            "### Does the place matter?",
            "",
            "Closed share with the chosen mask minus that with the random one, on the same seeds,"
            " with Student's 95 % interval. Above 0 the chosen mask is nearer to retraining.",
            "",
            f"| budget |{_heads()}",
            f"|---|{_rules()}",
            *(
                f"| {b:.0%} | {' | '.join(_said(by, b, r) for r in REPAIRS)} |"
                for b in BUDGETS[:-1]
            ),
        ]
    return "\n".join(said) + "\n"


NUMBERS = {
    "off": "Size of the gap of forget accuracy, in points",
    "closed": "Closed share of the Jensen-Shannon distance on forget rows",
    "test": "Gap of test accuracy, in points",
}


def _least(lines: Sequence[Line], scene: Scene) -> str:
    good = [x for x in lines if x.criterion == CHOSEN and x.off <= scene.band]
    if not good:
        return "No setting comes within the oracles' band in forget accuracy."
    small = min(good, key=lambda x: (x.budget, x.repair))
    cheap = min(good, key=lambda x: (x.repair, x.budget))
    return (
        "Within the oracles' band in forget accuracy: at the smallest budget,"
        f" {small.budget:.0%} with a repair of {small.repair:.0%} ({small.moved:.1%} of all scalars"
        f" might move); at the shortest repair, {cheap.repair:.0%} with a budget of"
        f" {cheap.budget:.0%}."
    )


def _grid(lines: Sequence[Line], number: str) -> Iterator[str]:
    by = {(x.budget, x.repair, x.criterion): x for x in lines}
    yield f"| budget | mask |{_heads()}"
    yield f"|---|---|{_rules()}"
    for budget, criterion in itertools.product(BUDGETS, (CHOSEN, RANDOM)):
        mine = [by[k] for r in REPAIRS if (k := (budget, r, criterion)) in by]
        if mine:
            told = " | ".join(_shown(x, number) for x in mine)
            yield f"| {budget:.0%} | {'all' if budget == 1 else criterion} | {told} |"


def _heads() -> str:
    return "".join(f" repair {r:.0%} |" for r in REPAIRS)


def _rules() -> str:
    return "---|" * len(REPAIRS)


def _shown(x: Line, number: str) -> str:
    if number == "off":
        return f"{x.off:.2f}"
    mean = statistics.fmean(getattr(x, number))
    return f"{mean:+.2f}" if number == "test" else f"{mean:.2f}"


def _said(by: dict[tuple[float, float, str], Line], budget: float, repair: float) -> str:
    told = apart(by[budget, repair, CHOSEN], by[budget, repair, RANDOM])
    if told.low is None or told.high is None:
        return f"{told.value:+.2f}"
    word = " **nearer**" if told.low > 0 else " **farther**" if told.high < 0 else ""
    return f"{told.value:+.2f} [{told.low:+.2f}, {told.high:+.2f}]{word}"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--oracles", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {OUT.parent.name}/{OUT.name}")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(asked.seeds, asked.oracles)
    scene, lines = bench.scene(), []
    print(scene, flush=True)
    for x in measure(bench):
        print(row(x), flush=True)
        lines.append(x)
    text = page(lines, scene, asked.seeds, asked.oracles)
    print("\n" + text)
    if asked.write:
        OUT.write_text(text, encoding="utf-8")
