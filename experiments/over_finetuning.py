"""What each published method adds to plain fine-tuning on the same schedule.

    python -m experiments over_finetuning --models 24

Each method at its default settings, and ``finetune`` with its schedule, on N originals and on N
retrained models (placebo): memory, likeness, accuracy, cost. Models and margins are kept in the
cache. The pages of the methods show these rows (``python -m unlearnkit.docs``).
"""

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.ten_deletions import digits_conv
from unlearnkit.attacks.ulira import ulira
from unlearnkit.auditing.strong.margin_store import MarginMatrix
from unlearnkit.auditing.strong.placebo import PLACEBO
from unlearnkit.auditing.strong.train_ensembles import StrongAuditSpec, collect_margins, subject_of
from unlearnkit.cache import Cache
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.catalog import cases, method
from unlearnkit.core.method import Method
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.docs import COMPARED, compared_table
from unlearnkit.oracles import train_original
from unlearnkit.unlearning.run_method import run_method

CLASSIFIERS = (
    *("l1_sparse", "scrub", "neggrad_plus", "relabel", "amnesiac", "salun", "bad_teacher"),
    *("del_localized", "duck", "jit", "pgu", "cf_k", "eu_k"),
)
BRIEF = {"lr": 1.0, "share": 0.035}
"""A fine-tuning that costs what ``jit`` and ``pgu`` do: their schedules are their own."""

NUMBERS = ("gaussian_amnesiac", "blindspot_regression")
OURS = ("warm_restart",)
"""Beside them, for comparison: methods of the library's own, on schedules of their own."""


@dataclass(frozen=True)
class Setting:
    """A request on which methods are compared."""

    name: str
    make: Callable[[], CaseWithRequest]
    methods: tuple[str, ...]


def digits_conv_class() -> CaseWithRequest:
    """Forget a digit that a convolution with batch normalisation has learned."""
    return CaseWithRequest(digits_conv(), Classes(3))


SETTINGS = (
    Setting("digits, class", lambda: cases()["digits"].ask("class"), CLASSIFIERS),
    Setting("digits, random tenth", lambda: cases()["digits"].ask("random_tenth"), CLASSIFIERS),
    Setting("digits, batch norm, class", digits_conv_class, CLASSIFIERS),
    Setting("diabetes, group", lambda: cases()["diabetes"].ask("group"), NUMBERS),
)


@dataclass(frozen=True)
class Attack:
    """How N models of one kind differ from N of another on the forget set."""

    auc: float
    """Of U-LiRA; 0.5 is no difference."""

    shift: float
    """Mean over records of the shift of the median margin, in deviations of the others."""


@dataclass(frozen=True)
class Row:
    """A method on a setting, means over N models."""

    setting: str
    method: str
    schedule: dict[str, float]
    """Rate and share; empty for methods on schedules of their own."""

    original: Attack
    """The untouched models against retrained ones."""

    memory: Attack
    """Unlearned against placebo models."""

    likeness: Attack
    """Unlearned against retrained models."""

    unit: str
    """Of the next four: accuracy, or the task's error."""

    forget: float
    retain: float
    test: float
    """Without rows of forgotten classes."""

    retrained_test: float
    cost: float
    """Share of retraining's."""


def schedule_of(how: Method) -> dict[str, float]:
    """Return rate and share of a method's schedule; empty where it has one of its own."""
    run = getattr(how, "run", None)
    return {"lr": run.lr, "share": run.share} if isinstance(run, FineTuneSchedule) else {}


def measured(setting: Setting, how: Method, models: int) -> Row:
    """Return what a method does on a setting."""
    asked = setting.make()
    subject = subject_of(asked.case, asked.request, how, Runtime(), Cache())
    found = collect_margins(subject, models)
    errors = asked.case.task.name == "regression"
    kept = kept_rows(subject)

    def level(who: str, section: str) -> float:
        each = found.of(who, section, "errors")
        mean = float((each[:, kept] if section == "test" else each).double().mean())
        return mean if errors else 1 - mean

    return Row(
        setting.name,
        how.id,
        schedule_of(how),
        original=attack(found, "original", "oracle"),
        memory=attack(found, "unlearned", PLACEBO),
        likeness=attack(found, "unlearned", "oracle"),
        unit="error" if errors else "accuracy",
        forget=level("unlearned", "forget"),
        retain=level("unlearned", "retain"),
        test=level("unlearned", "test"),
        retrained_test=level("oracle", "test"),
        cost=cost_share(subject, how),
    )


def attack(found: MarginMatrix, one: str, other: str) -> Attack:
    """Return how two kinds differ on the forget set, with all models that there are."""
    ours, theirs = found.of(one, "forget"), found.of(other, "forget")
    told = ulira(ours, theirs, least=len(ours))
    return Attack(told.auc, float(told.shifts.mean()))


def kept_rows(subject: StrongAuditSpec) -> Tensor:
    """Return which test rows are of no forgotten class."""
    y = subject.views["test"].y
    if y.is_floating_point() or y.ndim > 1:
        return torch.ones(len(y), dtype=torch.bool)
    return ~torch.isin(y, torch.tensor(subject.parts.removed_classes, dtype=y.dtype))


def cost_share(subject: StrongAuditSpec, how: Method) -> float:
    """Return what a method takes, in row passes, as a share of retraining."""
    case = subject.case
    assert case.recipe is not None
    assert subject.parts.retain is not None
    done = run_method(train_original(case, cache=Cache()).model, case, subject.request, how)
    return done.cost.work / (3 * case.recipe.epochs * len(subject.parts.retain))


def wanted() -> Iterator[tuple[Setting, Method]]:
    """Yield every line: on each setting fine-tuning on each schedule, the methods, ours."""
    for setting in SETTINGS:
        each = [method(name) for name in setting.methods]
        paces = [schedule_of(how) or BRIEF for how in each]
        for told in {tuple(pace.items()): None for pace in paces}:
            yield setting, method("finetune", run=dict(told))
        for how in each:
            yield setting, how
        for name in OURS:
            yield setting, method(name)


def main() -> None:
    """Measure what is not there yet, and write ``docs/results/over_finetuning``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=24)
    parser.add_argument("--setting", action="append", choices=[s.name for s in SETTINGS])
    parser.add_argument("--method", action="append", help="all by default")
    parser.add_argument("--out", type=Path, default=Path(COMPARED))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for setting, how in wanted():
        if setting.name in (args.setting or [setting.name]) and how.id in (args.method or [how.id]):
            one = measured(setting, how, args.models)
            held = {"models": args.models, "rows": merged(args.out, asdict(one))}
            args.out.write_text(json.dumps(rounded(held), indent=1) + "\n", encoding="utf-8")
            args.out.with_suffix(".md").write_text(page(held), encoding="utf-8")
            print(one, flush=True)


def merged(path: Path, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a file with one in the place of its older self, in the usual order."""
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []

    def line(r: dict[str, Any]) -> tuple[str, str, tuple[Any, ...]]:
        return r["setting"], r["method"], tuple(r["schedule"].items())

    order = [(s.name, how.id, tuple(schedule_of(how).items())) for s, how in wanted()]
    every = {line(r): r for r in [*kept, row]}
    return [every[key] for key in order if key in every]


READ = (
    "What can be read here: on a class, plain fine-tuning leaves the memory of it whole. In the"
    " network with batch normalisation `neggrad_plus`, `bad_teacher` and `del_localized` take most"
    " of it away for at most 0.6 points of test accuracy; in the perceptron `del_localized` alone"
    " takes a part. Methods with wrong targets and `scrub` overshoot: the class ends below what"
    " models say that never knew it, and that shows as memory too. Of a random tenth fine-tuning"
    " leaves 0.68 of 0.77; thresholds (`l1_sparse`) and wrong targets leave nearly nothing. All"
    " that forget more end less like retrained models. Of the three on geometry, `duck` and `pgu`"
    " bring a class of the perceptron to 0.00 for 0.035 of retraining's cost, where fine-tuning of"
    " that cost leaves 0.88; its margins still show the memory. Of a random tenth `pgu` leaves 0.63"
    " of 0.77 (fine-tuning 0.73); `duck` leaves more than there was. `jit` adds nothing to"
    " fine-tuning of its cost. In the network with batch normalisation `jit` and `pgu` end before"
    " they have forgotten anything. The last layer alone: trained on (`cf_k`) it forgets less than"
    " all layers do; trained anew (`eu_k`) it has nearly no memory of a class in its answers, while"
    " the features below still tell the class apart, which this table does not see."
)


def rounded(value: Any) -> Any:
    """Return a value with all its numbers at four digits."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def page(held: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    parts = [
        "# What methods add to fine-tuning",
        "Written by `python -m experiments over_finetuning` (torch"
        f" {torch.__version__}, {platform.machine()}); [numbers](over_finetuning.json). Each"
        " published method at its defaults, and `finetune` on the same schedule (peak rate as a"
        f" multiple of the recipe's, share of its epochs); {held['models']} models of each kind.",
        "Memory: unlearned against placebo models (the same method on models that never saw the"
        " forget set). Likeness: unlearned against retrained models. Both: U-LiRA AUC (0.5 ="
        " alike) and the mean shift of margins in standard deviations. Test rows are those of kept"
        " classes. So few models show the order of magnitude: an AUC of 0.5 is known to about"
        " 0.03.",
        "A method with a schedule of its own is the library's own. " + READ,
    ]
    for name in dict.fromkeys(r["setting"] for r in held["rows"]):
        mine = [r for r in held["rows"] if r["setting"] == name]
        first = mine[0]
        parts += [
            f"## {name[0].upper()}{name[1:]}",
            f"Untouched models against retrained ones: {first['original']['auc']:.3f}"
            f" ({first['original']['shift']:+.1f}); retrained test {first['unit']}"
            f" {first['retrained_test']:.3f}.",
            compared_table(mine),
        ]
    return "\n\n".join(parts) + "\n"
