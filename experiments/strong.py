"""The strong audit on the bench of the evaluation specification, section 16.

    python -m experiments strong --models 128
    python -m experiments strong --models 128 --mislabelled

900 of scikit-learn's digits, a perceptron 64-128-10, 80 epochs; 90 random rows are forgotten, and
with ``--mislabelled`` they were given a wrong label before training. Prints one line an arm: the
originals untouched, fine-tuning (8 epochs on retained rows), and a second set of retrained models.
Models and signals are kept in the cache; a second call trains nothing.
"""

import argparse
import time
from functools import cache

import torch
from torch import Tensor, nn

from unlearnkit.attacks.forgetting_quality import forgetting_quality
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.ulira import ulira
from unlearnkit.auditing.strong.cost_plan import plan
from unlearnkit.auditing.strong.margin_store import MarginMatrix
from unlearnkit.auditing.strong.train_ensembles import collect_margins, subject_of
from unlearnkit.cache import Cache
from unlearnkit.catalog import method
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.stats.roc import auc_rows
from unlearnkit.tasks.classification import Classification

PUBLISHED = {
    "original": "1.000 0.999 0.972 0.983 0.527 0.781 0.95 / 9.17 0.037",
    "unlearned": "1.000 0.999 0.973 0.982 0.525 0.778 0.88 / 8.35 0.045",
    "floor": "0.986 0.999 0.972 0.993 0.513 0.501 0.23 / 0.54 0.109",
}
"""The specification's lines for random rows, without JS."""


def network() -> nn.Module:
    """Return the bench's perceptron, with weights of variance 2/64 and 1/128 and no biases."""
    made = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch.no_grad():
        for layer, variance in ((made[0], 2 / 64), (made[2], 1 / 128)):
            layer.weight.normal_(0, variance**0.5)
            layer.bias.zero_()
    return made


@cache
def bench(mislabelled: bool) -> tuple[Case, Rows]:
    """Return the case and the rows that must go."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x, y = torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)
    train, test = train_test_split(range(len(y)), train_size=900, stratify=y, random_state=0)
    rng = Runtime().rng("bench")
    go = torch.randperm(900, generator=rng)[:90]
    labels = y[train].clone()
    if mislabelled:
        labels[go] = (labels[go] + torch.randint(1, 10, (90,), generator=rng)) % 10
    recipe = Recipe(
        lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=80, batch_size=64
    )
    case = Case(
        train=(x[train], labels),
        test=(x[test], y[test]),
        task=Classification(10),
        fresh=network,
        recipe=recipe,
        name="bench",
    )
    return case, Rows(go)


def line(signals: MarginMatrix, who: str) -> str:
    """Return FA, RA, TA, ToW, population AUC, U-LiRA AUC, KLoM and F."""

    def accuracy(kind: str, section: str) -> Tensor:
        return 1 - signals.of(kind, section, "errors").double().mean(1)

    parts = ("forget", "retain", "test")
    mine = {p: accuracy(who, p) for p in parts}
    truth = {p: accuracy("oracle", p) for p in parts}
    tow = torch.stack([1 - (mine[p] - truth[p]).abs() for p in parts]).prod(0)
    go, base = signals.of(who, "forget"), signals.of("oracle", "forget")
    population = auc_rows(go, signals.of(who, "test"))
    near = klom(go, base, bins="equal")
    found = forgetting_quality(go, base)
    cells = [
        *(f"{float(mine[p].mean()):.3f}" for p in parts),
        f"{float(tow.mean()):.3f}",
        f"{float(population.mean()):.3f}",
        f"{ulira(go, base, least=min(64, len(go))).auc:.3f}",
        f"{near.median:.2f} / {near.percentile_95:.2f}",
        f"| {found.score:.3f} {found.exposed_count:.0f} rows with a corrected bound above 0",
    ]
    return " ".join(cells)


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--models", type=int, default=128)
    asked.add_argument("--mislabelled", action="store_true")
    given = asked.parse_args()
    torch.set_num_threads(1)
    case, request = bench(given.mislabelled)
    run = {"kind": "tuning", "recipe": Recipe(lr=0.02, momentum=0.9, epochs=8, batch_size=64)}
    subject = subject_of(case, request, method("finetune", run=run), Runtime(), Cache())
    print(plan(subject, given.models), flush=True)
    start, busy = time.perf_counter(), time.process_time()
    signals = collect_margins(subject, given.models)
    print(f"models: {time.process_time() - busy:.0f} s of processor, ", end="")
    print(f"{time.perf_counter() - start:.0f} s in all")
    print("arm: FA RA TA ToW population-AUC U-LiRA KLoM(median / P95) | cross-fitted F")
    for who in ("original", "unlearned", "floor"):
        print(f"{who}: {line(signals, who)}", flush=True)
        if not given.mislabelled:
            print(f"{who} in the specification: {PUBLISHED[who]}")
