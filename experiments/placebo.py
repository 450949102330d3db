"""Cards of methods: memory, signature, likeness and cost, and false alarms of both questions.

    python -m experiments placebo --request random_tenth --method ssd
    python -m experiments placebo --false-alarms 200

Each method is run on N originals and on N retrained models (placebo), and judged as a strong audit
judges it. The false alarms are those of equal arms: margins drawn from one law, whose examples
differ in centre and width and whose models differ as a whole, as unlearned, placebo and both sets
of retrained models. Models and margins are kept in the cache; a card that is written is not made
again.
"""

import argparse
import itertools
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.over_finetuning import digits_conv_class, rounded
from experiments.placebo_page import DIAL, page, plot
from experiments.small_cases import photographs_class, random_rows, wrong_rows
from experiments.ten_deletions import digits_conv
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.method_judgement import judge_method
from unlearnkit.auditing.strong.margin_store import MarginMatrix, Membership, ModelId
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.train_ensembles import (
    StrongAuditSpec,
    collect_margins,
    subject_of,
)
from unlearnkit.auditing.verdicts_strong import strong_findings
from unlearnkit.cache import Cache
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.catalog import cases, method, methods
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Method, Need
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import train_original
from unlearnkit.report.schema import Verdict
from unlearnkit.train.checkpoint_history import DiskCheckpoints
from unlearnkit.train.checkpointed_training import with_checkpoints
from unlearnkit.unlearning.requirements import check_needs
from unlearnkit.unlearning.run_method import run_method

OUT = Path("docs/results/placebo.json")

FEDERATED = (
    *("class_pruning", "fed_eraser", "fed_recover", "federated_active_forgetting"),
    "federated_ascent",
)

ELSEWHERE = {
    "sisa": "of a model that was not trained in shards it is retraining: [SISA](sisa.md)",
    "oracle_matching": "a diagnostic that is given retrained models: [attribution](attribution.md)",
    "retrieval_memory": "for models with a retrieval memory: [its page](retrieval_memory.md)",
    **dict.fromkeys(FEDERATED, "for federated training: [federated unlearning](federated.md)"),
}
"""Methods that have results elsewhere and no card, with the reason."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name, cls in methods().items()
        if name not in {"shrink_perturb", *ELSEWHERE}
        and cls.info.tasks & {"classification", "regression"}
    },
    **{
        f"{DIAL}{share:g}": ("shrink_perturb", {"renew": share})
        for share in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
    },
    **{f"reset_layers, renew {r:g}": ("reset_layers", {"renew": r}) for r in (0.4, 0.5)},
    "reset_layers, renew 0.8": ("reset_layers", {"renew": 0.8, "run": {"lr": 3.0}}),
}
"""Methods of the table, by label: each at its defaults, the dial of ``shrink_perturb``, and
settings of ``reset_layers``, the last for perceptrons."""

REQUESTS: dict[str, tuple[Callable[[], CaseWithRequest], int]] = {
    "digits, class": (lambda: cases()["digits"].ask("class"), 64),
    "digits, random tenth": (lambda: cases()["digits"].ask("random_tenth"), 64),
    "digits, mislabelled tenth": (lambda: cases()["digits"].ask("mislabelled_tenth"), 64),
    "breast_cancer, patients": (lambda: cases()["breast_cancer"].ask("patients"), 64),
    "diabetes, group": (lambda: cases()["diabetes"].ask("group"), 64),
    "digits, batch norm, class": (digits_conv_class, 64),
    "digits, batch norm, wrong labels": (partial(wrong_rows, digits_conv, 0.1, "digits_conv"), 64),
    "digits, batch norm, random tenth": (partial(random_rows, digits_conv, 0.1, "digits_conv"), 64),
    "photographs, class": (photographs_class, 24),
}
"""Case with request, and how many models of each kind, by label."""


def subject(request: str, how: Method) -> StrongAuditSpec:
    """Return what a method is audited on; for ``rewind`` trainings keep every second state."""
    asked, cache = REQUESTS[request][0](), Cache()
    case = asked.case
    if Need.CHECKPOINTS in how.info.needs:
        case = with_checkpoints(case, DiskCheckpoints(cache.root / "checkpoints", every=2))
    return subject_of(case, asked.request, how, Runtime(), cache)


def measured(request: str, how: Method, models: int) -> dict[str, Any]:
    """Return what a strong audit says of a method, and its cost as a share of retraining.

    The verdicts are those of the ensembles: an audit adds what the one model at hand shows.
    """
    spec = subject(request, how)
    case = spec.case
    assert case.recipe is not None
    assert spec.parts.retain is not None
    signals = collect_margins(spec, models)
    done = run_method(train_original(case, cache=spec.cache).model, case, spec.request, how)
    controls = ControlModels(case, spec.parts, spec.rt, spec.cache)
    judged = judge_method(spec, signals, done, controls)
    table, accuracy, retrained = judged.table, {}, {}
    for split, kind in itertools.product(("retain", "test"), ("accuracy", "error")):
        row = table.row(f"ensemble_{kind}_{split}")
        if row is not None:
            accuracy[split] = row.estimate.value
            retrained[split] = None if row.oracle is None else row.oracle.mean
    found: dict[str, Any] = rounded(
        {
            "arms": {a.name: a.model_dump(mode="json", exclude={"name"}) for a in table.arms},
            "accuracy": accuracy,
            "retrained": retrained,
            "errors": table.row("ensemble_accuracy_test") is None,
            "cost": done.cost.work / (3 * case.recipe.epochs * len(spec.parts.retain)),
            "verdicts": sorted({str(f.verdict) for f in judged.findings}),
            "answers": {a.question: [a.answer, a.sentence] for a in judged.answers},
            "placebo": table.placebo,
        }
    )
    return found


def no_card(request: str) -> dict[str, str]:
    """Return which methods of the catalog have no card on a request, and why."""
    asked = REQUESTS[request][0]()
    case = with_checkpoints(asked.case, DiskCheckpoints(Cache().root / "checkpoints"))
    parts, found = case.partition(asked.request), {}
    for name in methods():
        try:
            check_needs(method(name), case, parts)
        except UnsupportedError as e:
            found[name] = str(e).partition(";")[0].partition(", which")[0].removeprefix(f"{name} ")
        else:
            if name in ELSEWHERE:
                found[name] = ELSEWHERE[name]
    return found


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
    parser.add_argument("--request", action="append", choices=REQUESTS, help="all by default")
    parser.add_argument("--models", type=int, help="of each kind; those of the request by default")
    parser.add_argument("--method", action="append", choices=METHODS, help="all by default")
    parser.add_argument("--again", action="store_true", help="make cards anew that are written")
    parser.add_argument("--false-alarms", type=int, default=0, metavar="DRAWS")
    parser.add_argument("--examples", type=int, default=20, help="rows a section of false alarms")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.false_alarms:
        found = {"false_alarms": alarms(args.false_alarms, args.models or 64, args.examples)}
        _add(args.out, found)
        print(json.dumps(found, indent=1))
    elif not args.page:
        for request in args.request or REQUESTS:
            left_out = no_card(request)
            for label in args.method or METHODS:
                if METHODS[label][0] not in left_out:
                    _card(args, request, label)
    _write_page(args.out)


def _card(args: argparse.Namespace, request: str, label: str) -> None:
    """Make a card that is not written yet."""
    name, settings = METHODS[label]
    models = args.models or REQUESTS[request][1]
    key = f"{request}/{models}/{label}"
    if key in _kept(args.out) and not args.again:
        return
    try:
        one = measured(request, method(name, **settings), models)
    except Exception as e:  # noqa: BLE001  # the next card is made, and the page says why not this
        one = {"failed": f"{type(e).__name__}: {e}"}
    _add(args.out, {key: one})
    print(key, one.get("failed") or (one["cost"], one["verdicts"]), flush=True)


def _kept(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _add(path: Path, found: dict[str, Any]) -> None:
    kept = _kept(path) | found
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_page(path: Path) -> None:
    kept, left_out = _kept(path), {}
    done = {tuple(key.split("/", 2)[::2]) for key in kept}
    for request in REQUESTS:
        why = no_card(request)
        missing = [x for x, (name, _) in METHODS.items() if name not in why]
        open_yet = [x for x in missing if (request, x) not in done]
        left_out[request] = why | dict.fromkeys(open_yet, "not measured yet")
    path.with_suffix(".md").write_text(page(kept, left_out), encoding="utf-8")
    plot(kept, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
