"""Cards of methods: memory, signature, likeness and cost, and false alarms of both questions.

    python -m experiments placebo --request random_tenth --models 64
    python -m experiments placebo --false-alarms 200

Each method is run on N originals and on N retrained models (placebo). The false alarms are those of
equal arms: margins drawn from one law, whose examples differ in centre and width and whose models
differ as a whole, as unlearned, placebo and both sets of retrained models. Models and margins are
kept in the cache; a line that is written is not made again.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.drawing import figure
from experiments.over_finetuning import cost_share
from unlearnkit.auditing.memory_and_likeness import strong_answers
from unlearnkit.auditing.strong.margin_store import MarginMatrix, Membership, ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO, reads_request
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.train_ensembles import (
    StrongAuditSpec,
    collect_margins,
    subject_of,
)
from unlearnkit.auditing.verdicts_strong import strong_findings
from unlearnkit.cache import Cache
from unlearnkit.catalog import cases, method
from unlearnkit.core.method import Method, Need
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import Verdict
from unlearnkit.train.checkpoint_history import DiskCheckpoints
from unlearnkit.train.checkpointed_training import with_checkpoints

OUT = Path("docs/results/placebo.json")

DIAL = "shrink_perturb, renew "
"""Label of the dial, before its setting."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "warm_restart": ("warm_restart", {}),
    **{
        f"{DIAL}{share:g}": ("shrink_perturb", {"renew": share})
        for share in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    },
    **{
        name: (name, {})
        for name in (
            *("duck", "finetune", "influence_step", "jit", "pgu", "renew_distill", "retrain"),
            *("rewind", "scrub", "ssd"),
        )
    },
}
"""Methods of the table, by label."""

REQUESTS = {
    "class": ("digits", "class"),
    "random_tenth": ("digits", "random_tenth"),
    "mislabelled_tenth": ("digits", "mislabelled_tenth"),
    "breast_cancer patients": ("breast_cancer", "patients"),
    "diabetes group": ("diabetes", "group"),
}
"""Case and request, by label."""


def subject(request: str, how: Method) -> StrongAuditSpec:
    """Return what a method is audited on; for ``rewind`` trainings keep every second state."""
    name, wanted = REQUESTS[request]
    asked, cache = cases()[name].ask(wanted), Cache()
    case = asked.case
    if Need.CHECKPOINTS in how.info.needs:
        case = with_checkpoints(case, DiskCheckpoints(cache.root / "checkpoints", every=2))
    return subject_of(case, asked.request, how, Runtime(), cache)


def measured(request: str, how: Method, models: int) -> dict[str, Any]:
    """Return what a strong audit says of a method, and its cost as a share of retraining."""
    spec = subject(request, how)
    table = strong_table(collect_margins(spec, models), Runtime(), reads_request=reads_request(how))
    found = strong_findings(table)
    accuracy, retrained = {}, {}
    for split, kind in itertools.product(("retain", "test"), ("accuracy", "error")):
        row = table.row(f"ensemble_{kind}_{split}")
        if row is not None:
            accuracy[split] = row.estimate.value
            retrained[split] = None if row.oracle is None else row.oracle.mean
    return {
        "arms": {a.name: a.model_dump(mode="json", exclude={"name"}) for a in table.arms},
        "accuracy": accuracy,
        "retrained": retrained,
        "errors": table.row("ensemble_accuracy_test") is None,
        "cost": cost_share(spec, how),
        "verdicts": sorted({str(f.verdict) for f in found}),
        "answers": {a.question: a.sentence for a in strong_answers(found, table)},
        "placebo": table.placebo,
    }


def equal_arms(seed: int, models: int, examples: int) -> MarginMatrix:
    """Return margins of one law for unlearned, placebo and retrained models; originals know more.

    Args:
        seed: Of the draw.
        models: N.
        examples: Rows of each section.

    Returns:
        The margins.
    """
    rng = Runtime(seed=seed).rng("placebo/equal")
    sections = ("forget", "retain", "held_out", "population", "test")
    width = examples * len(sections)
    centre = 3.0 + torch.randn(width, generator=rng, dtype=torch.float64)
    wide = 0.5 + torch.rand(width, generator=rng, dtype=torch.float64)
    kinds = ("original", "unlearned", "oracle", "floor", PLACEBO)
    margins = []
    for kind in kinds:
        own = torch.randn(models, width, generator=rng, dtype=torch.float64)
        whole = torch.randn(models, 1, generator=rng, dtype=torch.float64)
        noise = (own + 0.5 * whole) / 1.25**0.5
        noise[:, :examples] += 2.0 * (kind == "original")
        margins.append(centre + wide * noise)
    every = torch.cat(margins)
    return MarginMatrix(
        every,
        torch.full(every.shape, int(Membership.OUT), dtype=torch.uint8),
        (every < 0).float(),
        tuple(ModelId(kind, i) for kind in kinds for i in range(models)),
        {s: torch.arange(i * examples, (i + 1) * examples) for i, s in enumerate(sections)},
    )


def alarms(draws: int, models: int, examples: int) -> dict[str, Any]:
    """Return how often equal arms are accused, by question, and how often each is passed."""
    counts: Counter[str] = Counter()
    for seed in range(draws):
        table = strong_table(
            equal_arms(seed, models, examples), Runtime(seed=seed), judged_only=True
        )
        found = {f.verdict for f in strong_findings(table)}
        counts["memory accused"] += bool(found & {Verdict.LEAKS, Verdict.OVER_FORGOT})
        counts["likeness accused"] += Verdict.DISTINGUISHABLE in found
        counts["memory gone"] += Verdict.MEMORY_GONE in found
        counts["matches"] += Verdict.MATCHES in found
    rates = {k: v / draws for k, v in counts.items()}
    return {"draws": draws, "models": models, "examples": examples, "rates": rates}


def main() -> None:
    """Measure what is asked for, and add it to ``docs/results/placebo.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--request", default="random_tenth", choices=REQUESTS)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--method", action="append", choices=METHODS, help="all by default")
    parser.add_argument("--false-alarms", type=int, default=0, metavar="DRAWS")
    parser.add_argument("--examples", type=int, default=20, help="rows a section of false alarms")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.false_alarms:
        found = {"false_alarms": alarms(args.false_alarms, args.models, args.examples)}
        _add(args.out, found)
        print(json.dumps(found, indent=1))
        return
    for label in args.method or METHODS:
        name, settings = METHODS[label]
        one = measured(args.request, method(name, **settings), args.models)
        _add(args.out, {f"{args.request}/{args.models}/{label}": one})
        arms = {k: (a["auc"]["value"], a["klom"], a["p"]) for k, a in one["arms"].items()}
        print(label, arms, one["accuracy"], one["verdicts"], flush=True)


def _add(path: Path, found: dict[str, Any]) -> None:
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept |= found
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(kept), encoding="utf-8")
    plot(kept, path.with_suffix(".svg"))


HEAD = """# Placebo control: memory, signature and likeness

Written by `python -m experiments placebo`; [numbers](placebo.json). Strong audits of methods on
digits. Memory: unlearned against placebo models (the same method on models that never saw the
forget set). Signature: placebo against retrained models. Likeness: unlearned against retrained
models. Each cell: U-LiRA AUC (0.5 = alike), median KLoM, mean shift of margins in standard
deviations, and exposed records. Original: the AUC of the untouched model. Accuracy of models, and
of retrained ones; cost as a share of retraining's row passes.

![Memory against test accuracy; cost as size](placebo.svg)

The area of a point is its cost; the dashed line is the test accuracy of retrained models. The line
of points is the dial of `shrink_perturb`. Its last point (`renew` 1) is a short retraining, which
never saw the forget set: a dial below it is worth its name only where it answers test rows better.

"""

COLUMNS = (
    *("request, models", "method", "original", "memory", "signature", "likeness"),
    *("retain / test", "retrained", "cost", "verdicts"),
)


def page(kept: dict[str, Any]) -> str:
    """Return the results as a page of Markdown."""
    lines = []
    for key, one in sorted(kept.items()):
        if key == "false_alarms":
            continue
        request, models, label = key.split("/", 2)
        arms = one["arms"]
        cells = [f"{request}, {models}", label, f"{arms['likeness']['auc_original']:.3f}"]
        cells += [_cell(arms[name]) for name in ("memory", "signature", "likeness")]
        for kind in ("accuracy", "retrained"):
            cells.append(" / ".join(f"{one[kind][s]:.3f}" for s in ("retain", "test")))
        cells.append(f"{one['cost']:.3f}")
        cells.append(", ".join(v for v in one["verdicts"] if v != Verdict.INCONCLUSIVE))
        lines.append(f"| {' | '.join(cells)} |")
    head = (f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}")
    text = HEAD + "\n".join((*head, *lines)) + "\n"
    if "false_alarms" in kept:
        text += _alarms_text(kept["false_alarms"])
    return text


def plot(kept: dict[str, Any], path: Path) -> None:
    """Write memory against test accuracy, a panel for each request, the dial as a line."""
    each = [(*key.split("/", 2), one) for key, one in sorted(kept.items()) if "/" in key]
    lines = [x for x in each if not x[-1]["errors"]]
    requests = list(dict.fromkeys(request for request, *_ in lines))
    with figure(path, 4.2 * len(requests), 4.0) as drawn:
        panels = drawn.subplots(1, len(requests), squeeze=False, sharey=True)[0]
        for ax, request in zip(panels, requests, strict=True):
            mine = [(label, one) for name, _, label, one in lines if name == request]
            _panel(ax, mine)
            ax.set(title=request.replace("_", " "), xlabel="Memory: U-LiRA AUC (0.5 = none)")
        panels[0].set_ylabel("Test accuracy")


def _panel(ax: Any, mine: Sequence[tuple[str, dict[str, Any]]]) -> None:
    points = [
        (label, one["arms"]["memory"]["auc"]["value"], one["accuracy"]["test"], one["cost"])
        for label, one in mine
    ]
    dial = [(x, y) for label, x, y, _ in points if label.startswith(DIAL)]
    if dial:
        ax.plot(*zip(*dial, strict=True), "-", color="0.7", zorder=0)
    for label, x, y, cost in points:
        own = label.startswith(DIAL)
        ax.scatter(x, y, s=8 + 300 * cost, color="C0" if own else "C1", alpha=0.7, lw=0)
        text = label.removeprefix(DIAL)
        at = (3, 6 if own else -10)
        ax.annotate(text, (x, y), xytext=at, textcoords="offset points", fontsize=7)
    ax.axvline(0.5, color="0.6", lw=0.8, ls=":")
    ax.axhline(mine[0][1]["retrained"]["test"], color="0.6", lw=0.8, ls="--")


def _cell(arm: dict[str, Any]) -> str:
    exposed = arm["familiar"] + arm["strange"]
    return (
        f"{arm['auc']['value']:.3f}; {arm['klom']:.2f}; {arm['shift']['value']:+.2f};"
        f" {exposed} of {arm['records']}"
    )


def _alarms_text(found: dict[str, Any]) -> str:
    names = ("memory accused", "likeness accused", "memory gone", "matches")
    rates = " | ".join(f"{found['rates'][name]:.3f}" for name in names)
    return f"""
## False alarms

{found["draws"]} draws of equal arms, {found["models"]} models of each kind, {found["examples"]}
rows of each section; margins of models that differ as a whole. Nominal: 5 % for memory, 1 % for
likeness (permutation test).

| LEAKS or OVER-FORGOT | DISTINGUISHABLE | MEMORY GONE | MATCHES |
|---|---|---|---|
| {rates} |
"""


if __name__ == "__main__":
    main()
