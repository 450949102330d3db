"""Ten deletion requests one after another, with a method for each door of data.

    python -m experiments ten_deletions
    python -m experiments ten_deletions --case digits --method jit --seeds 3

Ten requests of 1 % of the training rows each, by key, on digits with the perceptron and with a
small convolutional network with batch normalisation; ten classes of twenty where there are no
data. Each request starts from the model and the case that the one before has left. After each
stand the model, models retrained without all rows deleted so far, and a placebo: the same ten
unlearnings of a model that never saw a row of any request, with no such row among its retained
rows. It writes ``docs/results/ten_deletions.json``, ``.md`` and ``.svg``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from benchmarks.drawing import figure
from unlearnkit.auto.chooser import unlearn
from unlearnkit.cases.digits import digits
from unlearnkit.cases.registry import random_indices
from unlearnkit.catalog import method
from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.inference import predict
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, ForgetRequest, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.training_summary import TrainingSummary
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.linalg.input_moments import InputMoments
from unlearnkit.oracles import oracle, train_originals
from unlearnkit.stats.entropy import js
from unlearnkit.stats.roc import auc
from unlearnkit.tasks.classification import Classification
from unlearnkit.unlearning.run_method import Unlearned

OUT = Path("docs/results/ten_deletions.json")
REQUESTS, SHARE = 10, 0.01
PLACEBO = 2000
"""Seed of the first model that never saw a row of any request."""


@dataclass(frozen=True)
class Chain:
    """A case and ten requests on it, in order."""

    case: Case
    requests: tuple[ForgetRequest, ...]

    def before(self, step: int) -> Case:
        """Return the case after the requests before a step."""
        case = self.case
        for request in self.requests[:step]:
            case = case.after_deletion(request)
        return case

    def never_saw(self, step: int) -> Case:
        """Return the case of a placebo: of all requests' rows it has those of this step alone."""
        case = self.case
        for k, request in enumerate(self.requests):
            case = case if k == step else case.after_deletion(request)
        return case


def with_rows(make: Callable[[], Case]) -> Chain:
    """Return ten requests of 1 % of a case's rows each, drawn at random, by key."""
    case = make()
    assert case.train is not None
    count = len(case.train)
    size = round(SHARE * count)
    drawn = torch.tensor(random_indices(count, REQUESTS * size, "ten_deletions"))
    order = torch.randperm(len(drawn), generator=Runtime().rng("ten_deletions/order"))
    requests = drawn[order].reshape(REQUESTS, size).tolist()
    return Chain(keyed(case), tuple(Rows(keys) for keys in requests))


def keyed(case: Case) -> Case:
    """Return a case whose positions of today are the keys of its rows."""
    assert case.train is not None
    train, test, validation = case.train, case.test, case.validation
    assert test is not None
    assert validation is not None
    pairs = {
        name: (data.x, data.y)  # type: ignore[attr-defined]  # rows in memory
        for name, data in (("train", train), ("test", test), ("validation", validation))
    }
    return Case(
        **pairs, keys=range(len(train)), task=case.task, fresh=case.fresh, recipe=case.recipe,
        name=case.name,
    )  # fmt: skip


def convolution() -> nn.Module:
    """Return an untrained convolutional network with batch normalisation, for digits."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def digits_conv() -> Case:
    """Return digits with the convolutional network."""
    recipe = Recipe(lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=30)
    return digits().replace(fresh=convolution, recipe=recipe, name="digits, batch norm")


def twenty_classes() -> Chain:
    """Return digits in 20 classes, each digit's rows cut in half, and requests for ten of them.

    The cut is at the median of the training rows' projection on their first principal axis.
    """
    case = digits()
    cuts: dict[int, tuple[Tensor, Tensor]] = {}
    for c in range(10):
        x = case.train.x[case.train.y == c]  # type: ignore[union-attr]
        axis = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[0]
        cuts[c] = axis, (x @ axis).median()

    def halved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        upper = [bool(row @ cuts[int(c)][0] > cuts[int(c)][1]) for row, c in zip(x, y, strict=True)]
        return x, 2 * y + torch.tensor(upper)

    made = Case(
        train=halved(case.train.x, case.train.y),  # type: ignore[union-attr]
        test=halved(case.test.x, case.test.y),  # type: ignore[union-attr]
        task=Classification(20),
        fresh=lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 20)),
        recipe=case.recipe,
        name="digits in 20 classes",
    )
    return Chain(made, tuple(Classes(2 * c + c % 2) for c in range(REQUESTS)))


CASES: dict[str, Callable[[], Chain]] = {
    "digits": partial(with_rows, digits),
    "digits, batch norm": partial(with_rows, digits_conv),
    "digits in 20 classes": twenty_classes,
}

Door = Callable[[Case, ForgetRequest, TrainingSummary | None], tuple[Case, ForgetRequest | None]]


def all_rows(
    case: Case, request: ForgetRequest, moments: TrainingSummary | None
) -> tuple[Case, ForgetRequest | None]:
    """Give the whole case; a method reads what it declares."""
    del moments
    return case, request


def forget_rows(
    case: Case, request: ForgetRequest, moments: TrainingSummary | None
) -> tuple[Case, ForgetRequest | None]:
    """Give the forget rows, validation rows, and what was kept of the training rows."""
    view = case.partition(request).forget
    assert view is not None
    validation = case.validation
    return Case.from_parts(
        forget=(view.data.x[view.rows], view.y),  # type: ignore[attr-defined]
        validation=(validation.x, validation.y),  # type: ignore[union-attr]
        task=case.task, recipe=case.recipe, name=case.name, input_moments=moments,
    ), None  # fmt: skip


def no_rows(
    case: Case, request: ForgetRequest, moments: TrainingSummary | None
) -> tuple[Case, ForgetRequest | None]:
    """Give no row: the shape of inputs, and the classes that were deleted before."""
    del moments
    assert case.train is not None
    bare = Case.without_data(
        task=case.task,
        input_shape=tuple(case.train.x.shape[1:]),  # type: ignore[attr-defined]
        fresh=case.fresh, recipe=case.recipe, name=case.name,
    )  # fmt: skip
    gone = set(range(int(case.task.spec()["classes"]))) - set(case.train.y.tolist())
    return (bare.after_deletion(Classes(sorted(gone))) if gone else bare), request


@dataclass(frozen=True)
class Way:
    """A method, its settings, and the data that it is given."""

    method: str
    settings: Mapping[str, Any]
    data: str
    door: Door
    moments: bool = False
    cases: tuple[str, ...] = ("digits", "digits, batch norm")
    projection: RetainedSubspace | None = None
    """What is held of the retained inputs."""

    seeds: int = 0
    """Fewer seeds for a method that costs more than retraining; as asked when 0."""


WAYS: dict[str, Way] = {
    "scrub": Way("scrub", {}, "all rows", all_rows),
    "duck": Way("duck", {}, "all rows", all_rows, cases=("digits",)),
    "finetune": Way("finetune", {}, "retained rows", all_rows),
    "warm_restart": Way("warm_restart", {}, "retained rows", all_rows),
    "shrink_perturb": Way("shrink_perturb", {}, "retained rows", all_rows),
    "pgu": Way("pgu", {}, "forget rows and input moments", forget_rows, moments=True),
    "pgu, accuracy of validation rows": Way(
        "pgu",
        {"stop": "validation_gap"},
        "forget rows and input moments",
        forget_rows,
        moments=True,
    ),
    "gradient_ascent, projected": Way(
        "gradient_ascent",
        {},
        "forget rows and input moments",
        forget_rows,
        moments=True,
        projection=RetainedSubspace(),
    ),
    "jit": Way("jit", {}, "forget rows", forget_rows),
    "gradient_ascent": Way("gradient_ascent", {}, "forget rows", forget_rows),
    "gradient_ascent, projected, validation rows": Way(
        "gradient_ascent", {}, "forget rows", forget_rows, projection=RetainedSubspace()
    ),
    "gated_transfer": Way(
        "gated_transfer", {}, "no rows", no_rows, cases=("digits in 20 classes",), seeds=2
    ),
    "emmn": Way("emmn", {}, "no rows", no_rows, cases=("digits in 20 classes",), seeds=2),
}


def answered(
    model: nn.Module, chain: Chain, way: Way, seed: int, case_at: Callable[[int], Case]
) -> list[Unlearned]:
    """Answer the ten requests one after another.

    Args:
        model: The first model.
        chain: The requests.
        way: The method and its data.
        seed: Of the method.
        case_at: Returns the case of a step.

    Returns:
        One result a step. Input moments are measured once, and updated.
    """
    moments: TrainingSummary | None = None
    if way.moments:
        moments = InputMoments.of_case(model, chain.case)
    found = []
    for step, request in enumerate(chain.requests):
        case, asked = way.door(case_at(step), request, moments)
        how = method(way.method, **way.settings)
        done = unlearn(model, case, asked, how, Runtime(seed=seed), projection=way.projection)
        if way.moments:
            moments = done.input_moments_after_deletion()
        model = done.model
        found.append(done)
    return found


@dataclass(frozen=True)
class Models:
    """Models that all methods of a case share, by seed."""

    originals: tuple[nn.Module, ...]
    retrained: tuple[tuple[nn.Module, ...], ...]
    """By step: without all rows deleted so far."""

    placebo: tuple[nn.Module, ...]
    """Without a row of any request; of other seeds than the retrained ones."""


def trained(chain: Chain, seeds: int) -> Models:
    """Return the models of a chain; each is trained once and kept in the cache."""
    steps = [
        tuple(oracle(chain.before(k), r, seeds=seeds).models) for k, r in enumerate(chain.requests)
    ]
    last = REQUESTS - 1
    others = range(PLACEBO, PLACEBO + seeds)
    without = oracle(chain.before(last), chain.requests[last], seeds=others).models
    originals = tuple(t.model for t in train_originals(chain.case, seeds=seeds))
    return Models(originals, tuple(steps), tuple(without))


def outputs(model: nn.Module, view: View, case: Case) -> Tensor:
    """Return a model's outputs on some rows, in eval mode."""
    return predict(model.eval(), view, case.task, Runtime())


def rights(models: Sequence[nn.Module], view: View, case: Case) -> Tensor:
    """Return for each row the share of models that are right."""
    right = [(outputs(m, view, case).argmax(1) == view.y).double() for m in models]
    return torch.stack(right).mean(0)


def accuracy(models: Sequence[nn.Module], view: View, case: Case) -> float:
    """Return the accuracy on some rows, a mean over models."""
    return float(rights(models, view, case).mean())


@dataclass(frozen=True)
class Familiarity:
    """How well models know some rows, less how well the placebo does; one value a row."""

    margin: Tensor
    """Margin (log-odds of the row's class), a mean over models."""

    right: Tensor
    """Share of models that are right."""

    @classmethod
    def of(
        cls, ours: Sequence[nn.Module], placebo: Sequence[nn.Module], view: View, case: Case
    ) -> Self:
        """Predict the rows once with each model."""
        rows = Batch.of_targets(view.y, view.rows)

        def mean(models: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
            answers = [outputs(m, view, case) for m in models]
            margins = torch.stack([case.task.margin(a.double(), rows) for a in answers])
            right = torch.stack([(a.argmax(1) == view.y).double() for a in answers])
            return margins.mean(0), right.mean(0)

        (margin, right), (usual, usually) = mean(ours), mean(placebo)
        return cls(margin - usual, right - usually)


def distance(
    models: Sequence[nn.Module], others: Sequence[nn.Module], view: View, case: Case
) -> float:
    """Return the mean Jensen-Shannon divergence between outputs of two models, in nats."""
    pairs = [(a, b) for a in models for b in others if a is not b]
    logs = {m: outputs(m, view, case).log_softmax(1) for m in (*models, *others)}
    return float(torch.stack([js(logs[a], logs[b]).mean() for a, b in pairs]).mean())


def memory(forget: Familiarity, unseen: Familiarity) -> dict[str, float]:
    """Return how much more familiar forget rows are to models than to the placebo.

    A row's score is its margin, a mean over models, less that of the placebo. Forget rows are
    compared with rows that neither ever saw; and so is the share of models that are right.

    Returns:
        The AUC, 0.5 where nothing is remembered, and two-sided p (Mann-Whitney, over rows) of
        margins and of right answers.
    """
    return {
        "auc": auc(forget.margin, unseen.margin),
        "p": _p(forget.margin, unseen.margin),
        "p_right": _p(forget.right, unseen.right),
    }


def _p(known: Tensor, never: Tensor) -> float:
    if len(torch.cat([known, never]).unique()) == 1:
        return 1.0
    return float(mannwhitneyu(known.numpy(), never.numpy()).pvalue)


def forget_views(chain: Chain) -> list[View]:
    """Return the rows of each request."""
    views = [chain.before(k).partition(r).forget for k, r in enumerate(chain.requests)]
    assert all(v is not None for v in views)
    return [v for v in views if v is not None]


def together(views: Sequence[View]) -> View:
    """Return the rows of several requests as one view."""
    x = torch.cat([v.data.x[v.rows] for v in views])  # type: ignore[attr-defined]
    return View.all(TensorData(x, torch.cat([v.y for v in views])))


def never_seen(chain: Chain, step: int) -> View:
    """Return the test rows of classes that stay."""
    retain = chain.before(step).partition(chain.requests[step]).retain
    assert retain is not None
    assert chain.case.test is not None
    test = View.all(chain.case.test)
    return test.pick(torch.isin(test.y, retain.y.unique()))


def measured(chain: Chain, way: Way, seeds: int) -> dict[str, Any]:
    """Return what ten requests do to the models of some seeds."""
    shared = trained(chain, seeds)
    runs = [answered(m, chain, way, s, chain.before) for s, m in enumerate(shared.originals)]
    placebos = [answered(m, chain, way, s, chain.never_saw) for s, m in enumerate(shared.placebo)]
    views, steps = forget_views(chain), []
    for k, request in enumerate(chain.requests):
        case = chain.before(k)
        retain = case.partition(request).retain
        assert retain is not None
        test = never_seen(chain, k)
        ours = [r[k].model for r in runs]
        blank = [r[k].model for r in placebos]
        know = partial(Familiarity.of, ours, blank, case=case)
        unseen = know(test)
        every = together(views[: k + 1])
        retrained = shared.retrained[k]
        steps.append(
            {
                "retained": accuracy(ours, retain, case),
                "retained_retrained": accuracy(retrained, retain, case),
                "test": accuracy(ours, test, case),
                "test_retrained": accuracy(retrained, test, case),
                "distance": distance(ours, retrained, test, case),
                "distance_floor": distance(retrained, retrained, test, case),
                "memory": [memory(know(v), unseen) for v in views[: k + 1]],
                "memory_all": memory(know(every), unseen),
                "forget": accuracy(ours, every, case),
                "forget_placebo": accuracy(blank, every, case),
                "work": [r[k].cost.work for r in runs],
                "seconds": [r[k].seconds for r in runs],
            }
        )
    know = partial(Familiarity.of, shared.originals, shared.placebo, case=chain.case)
    before = memory(know(together(views)), know(never_seen(chain, REQUESTS - 1)))
    rows, recipe = len(chain.case.train or ()), chain.case.recipe
    assert recipe is not None
    return {
        "data": way.data,
        "seeds": seeds,
        "original": before,
        "retraining": 3 * rows * recipe.epochs,
        "steps": steps,
    }


LIMIT_POINTS, LIMIT_COST, LEVEL = 1.0, 1.1, 0.05
"""Most points of retained accuracy below retraining; most cost of the tenth request, of the first;
level at which memory counts as found."""


def adjusted(p: Sequence[float]) -> list[float]:
    """Return p-values for all tests together (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, worst = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
        found[i] = worst
    return found


@dataclass(frozen=True)
class Outcome:
    """What ten requests came to, against the three limits."""

    gap: float
    """Retained accuracy below retraining, in points."""

    remembered: int
    """Requests whose memory is found after the tenth, each tested alone."""

    together: bool
    """Whether memory is found in the rows of all requests together, by margins or right answers."""

    cost: float
    """Work of the tenth request over that of the first."""

    @property
    def missed(self) -> list[str]:
        """Return the limits that are missed, in words."""
        found = []
        if not abs(self.gap) <= LIMIT_POINTS:
            found.append("retained accuracy")
        if self.remembered or self.together:
            found.append("memory")
        if not self.cost <= LIMIT_COST:
            found.append("cost")
        return found


def outcome(found: Mapping[str, Any]) -> Outcome:
    """Return the outcome of a chain."""
    first, last = found["steps"][0], found["steps"][-1]
    every = last["memory_all"]
    p = [*(m["p"] for m in last["memory"]), every["p"], every["p_right"]]
    *each, margin, right = (v < LEVEL for v in adjusted(p))
    return Outcome(
        gap=100 * (last["retained_retrained"] - last["retained"]),
        remembered=sum(each),
        together=margin or right,
        cost=sum(last["work"]) / sum(first["work"]),
    )


HEAD = """# Ten deletion requests in a row

Written by `python -m experiments ten_deletions`; [numbers](ten_deletions.json). Ten requests of 1 %
of the training rows each, by key, on digits with the perceptron and with a small convolutional
network with batch normalisation; where there are no data, ten classes of twenty. Each request
starts from the model and the case that the one before has left. A method sees only the data of its
column. `projected`: its steps are held by a projection of the input moments (`projection=`).
`accuracy of validation rows`: it stops by that, as its authors do for rows. `validation rows`: the
moments are those of their inputs; with the forget rows every method has validation rows for its stop
rules.

Retrained: models trained without all rows deleted so far. Placebo: the same ten unlearnings of a
model that never saw a row of any request, with no such row among its retained rows. Memory: AUC of
a row's margin above that of the placebo, forget rows against test rows of classes that stay; 0.5 is
no memory. Distance: Jensen-Shannon divergence of the outputs on test rows, in nats. Cost: row
passes (forward plus twice backward).

![Drift over ten requests](ten_deletions.svg)

## After ten requests

Limits: retained accuracy within 1 point of retraining; no memory found in any of the ten requests
nor in all of them together, by margins and, for all together, by right answers (Mann-Whitney over
rows, Holm over the twelve tests, 5 %); the tenth request at most 1.1 times the row passes of the
first. A single request has few rows: of 14 rows
against 270 an AUC of 0.72 is found with 80 % power, of all 140 rows one of 0.58. Where the
untouched model (original) has an AUC near 0.5 there was nothing to find, and no memory found says
nothing of the method.

| case | method | data | retained (retrained) | test (retrained) | distance (floor) | memory, all ten rows (original) | requests remembered | accuracy on deleted rows (placebo) | cost of the first, share of retraining | tenth / first | seconds, first and tenth | missed |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501


def page(kept: Mapping[str, Any]) -> str:
    """Return the results as a page of Markdown."""
    lines = [_line(*key.split("/"), one) for key, one in kept.items()]
    text = HEAD + "\n".join(lines) + "\n\n" + _summary(kept) + "\n## By request\n\n"
    text += (
        "Memory of all rows deleted so far, and of each request after the tenth; retained accuracy"
        " less that of retrained models, in points, after each request.\n\n"
    )
    numbers = " | ".join(str(k + 1) for k in range(REQUESTS))
    text += f"| case | method | what | {numbers} |\n|---|---|---|{'---|' * REQUESTS}\n"
    for key, one in kept.items():
        steps = one["steps"]
        rows = {
            "retained gap": [
                f"{100 * (s['retained'] - s['retained_retrained']):+.2f}" for s in steps
            ],
            "distance": [f"{s['distance']:.4f}" for s in steps],
            "memory so far": [f"{s['memory_all']['auc']:.3f}" for s in steps],
            "memory of each": [f"{m['auc']:.2f}" for m in steps[-1]["memory"]],
        }
        for what, values in rows.items():
            text += f"| {' | '.join([*key.split('/'), what, *values])} |\n"
    return text


def _summary(kept: Mapping[str, Any]) -> str:
    """Return by kind of data which methods keep to all limits, and which limits others miss."""
    text = ""
    for data in dict.fromkeys(one["data"] for one in kept.values()):
        told = []
        for key, one in kept.items():
            if one["data"] == data:
                missed = outcome(one).missed
                word = f"misses {' and '.join(missed)}" if missed else "within all limits"
                if one["original"]["p"] >= LEVEL:
                    word += " (the original shows no memory either)"
                told.append(f"{key.split('/')[1]} on {key.split('/')[0]} {word}")
        text += f"- **{data}**: {'; '.join(told)}.\n"
    return text


def _line(case: str, label: str, one: Mapping[str, Any]) -> str:
    first, last, done = one["steps"][0], one["steps"][-1], outcome(one)
    seconds = [statistics.median(s["seconds"]) for s in (first, last)]
    cells = [
        case,
        label,
        one["data"],
        f"{last['retained']:.4f} ({last['retained_retrained']:.4f})",
        f"{last['test']:.3f} ({last['test_retrained']:.3f})",
        f"{last['distance']:.4f} ({last['distance_floor']:.4f})",
        f"{last['memory_all']['auc']:.3f} ({one['original']['auc']:.3f})",
        f"{done.remembered} of {REQUESTS}{', all together' if done.together else ''}",
        f"{last['forget']:.3f} ({last['forget_placebo']:.3f})",
        f"{sum(first['work']) / len(first['work']) / one['retraining']:.4f}",
        f"{done.cost:.2f}",
        f"{seconds[0]:.2f}, {seconds[1]:.2f}",
        ", ".join(done.missed) or "none",
    ]
    return f"| {' | '.join(cells)} |"


PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#000000", "#7f5539", "#7b2cbf", "#8a9a5b"),
)
PANELS: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "Retained accuracy less\nretraining's (points)": lambda s: (
        100 * (s["retained"] - s["retained_retrained"])
    ),
    "Distance to retraining\n(nats)": lambda s: s["distance"],
    "Memory of all rows deleted\nso far (AUC; 0.5 = none)": lambda s: s["memory_all"]["auc"],
}


def plot(kept: Mapping[str, Any], path: Path) -> None:
    """Write the drift over requests: a column for each case, a row for each quantity."""
    names = [c for c in CASES if any(key.startswith(f"{c}/") for key in kept)]
    with figure(path, 5.4 * len(names), 8.6) as drawn:
        axes = drawn.subplots(len(PANELS), len(names), squeeze=False, sharex=True)
        for column, name in enumerate(names):
            mine = {k.split("/")[1]: v for k, v in kept.items() if k.startswith(f"{name}/")}
            for row, (what, value) in enumerate(PANELS.items()):
                _panel(axes[row][column], mine, value, row)
                if column == 0:
                    axes[row][column].set_ylabel(what)
            axes[0][column].legend(
                title=name, loc="lower left", bbox_to_anchor=(-0.05, 1.0), frameon=False,
                fontsize=8, title_fontsize=10, alignment="left",
            )  # fmt: skip
            axes[-1][column].set(xlabel="Requests answered", xticks=range(1, REQUESTS + 1))


def _panel(
    ax: Any, mine: Mapping[str, Any], value: Callable[[Mapping[str, Any]], float], row: int
) -> None:
    along = range(1, REQUESTS + 1)
    styles = [(colour, line) for line in ("o-", "s:") for colour in PALETTE]
    assert len(mine) <= len(styles)
    for (colour, line), (label, one) in zip(styles, mine.items(), strict=False):
        shown = f"{label} ({one['data']})"
        ax.plot(along, [value(s) for s in one["steps"]], line, ms=3, color=colour, label=shown)
    some = next(iter(mine.values()))
    if row == 0:
        ax.axhline(0, color="#8a8f99", lw=0.8)
        ax.axhline(-LIMIT_POINTS, color="#8a8f99", lw=0.8, ls="--")
    elif row == 1:
        ax.set_yscale("log")
        floor = [s["distance_floor"] for s in some["steps"]]
        ax.plot(along, floor, color="#8a8f99", ls="--", lw=1, label="_floor")
        ax.annotate(
            "between retrained models", (REQUESTS, floor[-1]), (0, 4),
            textcoords="offset points", fontsize=7.5, color="#5a5f69", ha="right",
        )  # fmt: skip
    else:
        ax.axhline(0.5, color="#8a8f99", lw=0.8)
        before = some["original"]["auc"]
        ax.axhline(before, color="#8a8f99", lw=0.8, ls="--")
        ax.annotate("untouched model", (REQUESTS, before), (0, 2), textcoords="offset points",
                    fontsize=7.5, color="#5a5f69", ha="right")  # fmt: skip


def main() -> None:
    """Measure what is asked for, and write numbers, page and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=CASES, help="all by default")
    parser.add_argument("--method", action="append", choices=WAYS, help="all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--page", action="store_true", help="write page and figure anew, no more")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    if args.page:
        _write(args.out, kept)
        return
    for name in args.case or CASES:
        chain = CASES[name]()
        for label in args.method or WAYS:
            way = WAYS[label]
            if name not in way.cases:
                continue
            start = time.perf_counter()
            found = measured(chain, way, way.seeds or args.seeds)
            kept[f"{name}/{label}"] = found
            print(
                f"{name}/{label}: {time.perf_counter() - start:.0f} s", outcome(found), flush=True
            )
            _write(args.out, kept)


def _write(path: Path, kept: Mapping[str, Any]) -> None:
    order = [f"{c}/{w}" for c in CASES for w in WAYS]
    kept = {key: kept[key] for key in order if key in kept}
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(kept), encoding="utf-8")
    plot(kept, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
