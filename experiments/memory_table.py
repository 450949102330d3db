"""What the candidates of ``auto`` keep of the forget set, beside utility and cost.

    python -m experiments memory_table [--write] [--setting NAME]

Each candidate on N originals and on N retrained models (placebo), on settings to choose by and on
others to judge by. What is in ``--store`` is not measured again; ``--write`` puts what is there
into ``docs/results/memory_table``.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from experiments.auto_order import POOL
from experiments.over_finetuning import Attack, attack, cost_share, kept_rows, rounded
from experiments.small_cases import SMALL, wrong_rows
from experiments.ten_deletions import digits_conv
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.train_ensembles import collect_margins, subject_of
from unlearnkit.cache import Cache
from unlearnkit.cases.cifar10 import images
from unlearnkit.cases.networks import small_conv
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.catalog import cases, method
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification

OUT = Path(__file__).parents[1] / "docs" / "results" / "memory_table.json"

SHORT = "shrink_perturb renew=1"
"""The short retraining of equal cost: a candidate must answer test rows better than it."""


@dataclass(frozen=True)
class Ground:
    """A request on which candidates are measured."""

    name: str
    kind: str
    """``class``, ``wrong`` labels, rows at ``random``, or a ``group``."""

    judge: bool
    """Whether it judges the choice, and plays no part in it."""

    models: int
    make: Callable[[], CaseWithRequest]


@cache
def photographs() -> Case:
    """Return 2,000 photographs with a network with batch normalisation, trained for 20 epochs."""
    x, y = images("train", 2_500)
    recipe = Recipe(
        lr=0.1, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=20, batch_size=64
    )
    return Case(
        train=(x[:2_000], y[:2_000]),
        validation=(x[2_000:], y[2_000:]),
        test=images("test", 1_000),
        task=Classification(10),
        fresh=small_conv,
        recipe=recipe,
        name="2,000 photographs",
    )


def _small(name: str) -> Callable[[], CaseWithRequest]:
    return next(s.make for s in SMALL if s.name == name)


def _conv(number: int) -> Callable[[], CaseWithRequest]:
    return lambda: CaseWithRequest(digits_conv(), Classes(number))


GROUNDS = (
    Ground("digits, class", "class", False, 16, lambda: cases()["digits"].ask("class")),
    Ground(
        "digits, wrong labels",
        "wrong",
        False,
        16,
        lambda: cases()["digits"].ask("mislabelled_tenth"),
    ),
    Ground(
        "digits, random tenth", "random", False, 16, lambda: cases()["digits"].ask("random_tenth")
    ),
    Ground("breast_cancer, patients", "group", False, 12, _small("breast_cancer/patients")),
    Ground("diabetes, group", "group", False, 12, _small("diabetes/group")),
    Ground("digits_deep, class 8", "class", True, 12, _small("digits_deep/class 8")),
    Ground("digits_deep, wrong labels", "wrong", True, 12, _small("digits_deep/wrong")),
    Ground("digits_deep, random tenth", "random", True, 12, _small("digits_deep/random")),
    Ground("wine, class 1", "class", True, 12, _small("wine/class 1")),
    Ground("wine, wrong labels", "wrong", True, 12, _small("wine/wrong")),
    Ground("digits, batch norm, class", "class", False, 8, _conv(3)),
    Ground(
        "digits, batch norm, wrong labels",
        "wrong",
        True,
        8,
        lambda: wrong_rows(digits_conv, 0.1, "digits_conv"),
    ),
    Ground(
        "photographs, class", "class", False, 8, lambda: CaseWithRequest(photographs(), Classes(3))
    ),
    Ground("digits, batch norm, class 8", "class", True, 8, _conv(8)),
)


def _run(renew: float, lr: float) -> dict[str, Any]:
    return {"renew": renew, "run": {"lr": lr}}


CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    SHORT: ("shrink_perturb", {"renew": 1.0}),
    **{f"shrink_perturb renew={r:g}": ("shrink_perturb", {"renew": r}) for r in (0.9, 0.5, 0.95)},
    **{
        f"renew_distill renew={r:g} lr={lr:g}": ("renew_distill", _run(r, lr))
        for r, lr in ((0.9, 3.0), (0.3, 1.0), (0.5, 3.0), (0.95, 3.0))
    },
    **{name: POOL[name] for name in ("finetune", "ssd", "neggrad_plus", "bad_teacher")},
    "shrink_perturb renew=0.7": ("shrink_perturb", {"renew": 0.7}),
    "renew_distill renew=0.7 lr=3": ("renew_distill", _run(0.7, 3.0)),
    "renew_distill renew=0.2 lr=1": ("renew_distill", _run(0.2, 1.0)),
    **{
        name: POOL[name]
        for name in (
            *("del_localized", "warm_restart", "l1_sparse", "relabel", "scrub"),
            *("relabel_restart shrink=0", "relabel_restart renew=0.3 early=0.05"),
        )
    },
}
"""A method with settings, by its name in the results; the most telling first."""

FIRST = 10
"""How many are measured on all grounds before the others are on any."""


@dataclass(frozen=True)
class Line:
    """A candidate on a ground, means over N models."""

    ground: str
    candidate: str
    models: int
    original: Attack
    """Untouched models against retrained ones."""

    floor: Attack
    """Retrained models against others: what N models show where nothing is wrong."""

    memory: Attack
    """Unlearned against placebo models."""

    likeness: Attack
    """Unlearned against retrained models."""

    retain: float
    """Accuracy, or error where targets are numbers; as the next ones."""

    test: float
    """Without rows of forgotten classes."""

    retrained_retain: float
    retrained_test: float
    cost: float
    """Share of retraining's row passes."""

    errors: bool


def measured(ground: Ground, name: str) -> Line:
    """Return what a candidate does on a ground."""
    asked = ground.make()
    how = method(CANDIDATES[name][0], None, **CANDIDATES[name][1])
    subject = subject_of(asked.case, asked.request, how, Runtime(), Cache())
    found = collect_margins(subject, ground.models)
    errors, kept = asked.case.task.name == "regression", kept_rows(subject)

    def level(who: str, section: str) -> float:
        each = found.of(who, section, "errors")
        mean = float((each[:, kept] if section == "test" else each).double().mean())
        return mean if errors else 1 - mean

    return Line(
        ground.name,
        name,
        ground.models,
        original=attack(found, "original", "oracle"),
        floor=attack(found, "floor", "oracle"),
        memory=attack(found, "unlearned", PLACEBO),
        likeness=attack(found, "unlearned", "oracle"),
        retain=level("unlearned", "retain"),
        test=level("unlearned", "test"),
        retrained_retain=level("oracle", "retain"),
        retrained_test=level("oracle", "test"),
        cost=cost_share(subject, how),
        errors=errors,
    )


def wanted(names: Sequence[str] | None) -> Iterator[tuple[Ground, str]]:
    """Yield every ground with its candidates: the first ones everywhere, then the others."""
    grounds = [g for g in GROUNDS if names is None or g.name in names]
    each = list(CANDIDATES)
    for some in (each[:FIRST], each[FIRST:]):
        yield from itertools.product(grounds, some)


def main() -> None:
    """Measure what is not there yet; write what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, default=Path("runs/memory_table.jsonl"))
    parser.add_argument("--setting", action="append", choices=[g.name for g in GROUNDS])
    parser.add_argument("--kept", action="store_true", help="measure nothing anew")
    parser.add_argument("--write", action="store_true", help=f"write docs/results/{OUT.name}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    there = {(r["ground"], r["candidate"]): r for r in _stored(args.store)}
    for ground, name in wanted(args.setting):
        if args.kept or (ground.name, name) in there:
            continue
        try:
            row = rounded(asdict(measured(ground, name)))
        except Exception as e:  # noqa: BLE001  # a long study survives a candidate that fails
            row = {"ground": ground.name, "candidate": name, "failed": f"{type(e).__name__}: {e}"}
        args.store.parent.mkdir(parents=True, exist_ok=True)
        with args.store.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def _stored(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(x) for x in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
