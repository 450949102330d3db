"""How often the recipe check accuses a genuine original, and how often it sees a wrong recipe.

    python -m experiments recipe_check --draws 200

For each case, two hundred originals are trained by its recipe, and as many by the recipe with one
change. Each is compared with five further originals of the unchanged recipe, drawn from a pool, as
an audit does it. Models are in the cache, so that a call that was interrupted goes on.

Quantities, least deviations and level were chosen on models of the seeds from 100,000 on; the
page shows models of the seeds from ``FIRST`` on, which were trained afterwards.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from unlearnkit.auditing.recipe_check import LEVEL, ORIGINALS, compare_with_originals
from unlearnkit.auditing.recipe_measures import TESTED, recipe_measures
from unlearnkit.catalog import cases
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import train_originals

OUT = Path("docs/results/recipe_check")
FIRST = 500_000
"""Seed of the first original of the pool."""

BLOCK = 10_000
"""Seeds between two kinds of models."""

NOISE = 0.5
"""Deviation of the input noise, in deviations of the training inputs."""

COMMAND = "python -m experiments recipe_check"


@dataclass(frozen=True)
class InputNoise:
    """Augmentation: Gaussian noise on every input."""

    deviation: float

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Return noisy inputs."""
        return x + self.deviation * torch.randn(x.shape, generator=rng)


def convolution() -> nn.Module:
    """Return an untrained network of two convolutions for 8 by 8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def tenth(name: str) -> tuple[Case, View]:
    """Return a bundled case and what its request of a random tenth leaves."""
    asked = cases()[name].ask("random_tenth")
    retain = asked.case.partition(asked.request).retain
    assert retain is not None
    return asked.case, retain


def digits_convolution() -> tuple[Case, View]:
    """Return digits as images, with a small convolution, and the same retain set."""
    case, retain = tenth("digits")
    assert case.train is not None
    assert case.test is not None
    train, test = (TensorData(d.x.reshape(-1, 1, 8, 8), d.y) for d in (case.train, case.test))
    recipe = Recipe(
        lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=60, batch_size=64
    )
    images = case.replace(
        train=train, test=test, validation=None, fresh=convolution, recipe=recipe, name="conv"
    )
    return images, View(train, retain.rows)


PROBLEMS: dict[str, Callable[[], tuple[Case, View]]] = {
    "digits": partial(tenth, "digits"),
    "breast_cancer": partial(tenth, "breast_cancer"),
    "diabetes": partial(tenth, "diabetes"),
    "convolution": digits_convolution,
}


def variants(case: Case) -> dict[str, Recipe]:
    """Return the recipe of a case, and three that it is not."""
    recipe = case.recipe
    assert recipe is not None
    assert case.train is not None
    noise = InputNoise(NOISE * float(case.train.x.std()))
    changes: dict[str, dict[str, object]] = {
        "genuine": {},
        "a fifth of the epochs": {"epochs": max(1, recipe.epochs // 5)},
        "5 times the learning rate": {"lr": 5 * recipe.lr},
        "input noise": {"augment": noise},
    }
    return {name: recipe.model_copy(update=change) for name, change in changes.items()}


def measured(case: Case, retain: View, recipe: Recipe, seeds: range) -> list[Mapping[str, float]]:
    """Return the measures of models that a recipe gives, one a seed; trained if missing."""
    rt = Runtime()
    assert case.test is not None
    test = View.all(case.test)
    runs = train_originals(case.replace(recipe=recipe), seeds=seeds)
    moving = {n for n, _ in runs[0].model.named_parameters()}
    return [recipe_measures(r.model, retain, test, case.task, rt, moving) for r in runs]


def problem_rates(name: str, draws: int, pool: int, first: int) -> dict[str, dict[str, float]]:
    """Return the share of accused models of each kind: by all tests together, and by each alone."""
    case, retain = PROBLEMS[name]()
    assert case.recipe is not None
    originals = measured(case, retain, case.recipe, range(first, first + pool))
    found = {}
    for k, (kind, recipe) in enumerate(variants(case).items(), 1):
        start = first + k * BLOCK
        given = measured(case, retain, recipe, range(start, start + draws))
        counts = dict.fromkeys(["accused", *(q.words for q in TESTED.values())], 0)
        for i, one in enumerate(given):
            rng = Runtime().rng(f"recipe check/{name}/{kind}/{i}")
            five = torch.randperm(pool, generator=rng)[:ORIGINALS].tolist()
            compared = compare_with_originals(one, [originals[j] for j in five])
            counts["accused"] += compared.p is not None and compared.p < LEVEL
            for m in compared.measures:
                if m.p is not None and m.p < LEVEL / len(TESTED):
                    counts[m.name] += 1
        found[kind] = {what: round(n / draws, 4) for what, n in counts.items()}
        print(name, kind, found[kind], flush=True)
    return found


def kept_rates(path: Path, facts: Mapping[str, object]) -> dict[str, object]:
    """Return the rates of other cases that an earlier call with the same facts has written."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept["rates"] if all(kept.get(k) == v for k, v in facts.items()) and kept else {}


def page(facts: Mapping[str, object]) -> str:
    """Return the page of the result."""
    rates = facts["rates"]
    assert isinstance(rates, dict)
    shown = {name: rates[name] for name in PROBLEMS if name in rates}
    kinds = list(next(iter(shown.values())))
    lines = [
        "# Recipe check",
        "",
        f"Share of models that the recipe check accuses, {facts['draws']} of each kind. Each model"
        f" is compared with {ORIGINALS} originals that the recipe of the case gives, drawn from a"
        f" pool of {facts['pool']}; level {LEVEL:g} for all quantities together. Genuine models"
        " should be accused in at most 0.02, the others in at least 0.95.",
        "",
        "| case | " + " | ".join(kinds) + " |",
        "|---|" + "---:|" * len(kinds),
    ]
    for name, found in shown.items():
        lines.append(
            f"| {name} | " + " | ".join(f"{found[k]['accused']:.3f}" for k in kinds) + " |"
        )
    lines += [
        "",
        f"Input noise is Gaussian, with {NOISE:g} of the deviation of the training inputs."
        " `convolution` is digits as images, with two convolutions.",
        "",
        f"Quantities, least deviations and level were chosen on other models: {facts['chosen_on']}."
        f" These models have the seeds from {facts['first']:,} on.",
        "",
        "## Single quantities",
        "",
        f"Share of models that one quantity alone would accuse, at level {LEVEL:g} divided by the"
        f" number of quantities ({len(TESTED)}).",
    ]
    for name, found in shown.items():
        lines += ["", f"### {name}", "", "| quantity | " + " | ".join(kinds) + " |"]
        lines.append("|---|" + "---:|" * len(kinds))
        for q in TESTED.values():
            cells = " | ".join(f"{found[k][q.words]:.3f}" for k in kinds)
            lines.append(f"| {q.words} | {cells} |")
    return "\n".join([*lines, "", f"Repeat: `{COMMAND} --draws {facts['draws']}`", ""])


def main() -> None:
    """Measure and write ``docs/results/recipe_check.{md,json}``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--pool", type=int, default=200)
    parser.add_argument("--first", type=int, default=FIRST, help="seed of the first original")
    parser.add_argument(
        "--case", choices=PROBLEMS, action="append", help="these alone; all if none"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    wanted = args.case or list(PROBLEMS)
    rates = {n: problem_rates(n, args.draws, args.pool, args.first) for n in wanted}
    facts: dict[str, object] = {
        "draws": args.draws,
        "pool": args.pool,
        "first": args.first,
        "chosen_on": "seeds from 100,000 on",
        "level": LEVEL,
        "originals": ORIGINALS,
        "noise": NOISE,
    }
    facts["rates"] = kept_rates(args.out.with_suffix(".json"), facts) | rates
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(page(facts), encoding="utf-8")
