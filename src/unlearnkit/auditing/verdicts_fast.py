"""Verdicts of the fast audit: faults that show without retrained models.

Each test first compares the model with never-seen rows or with the original, at a level that is
corrected for the number of tests. What it finds is an accusation only where a control model, which
was trained for a short time without the forget set, does not show the same (``control_models``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.verdict_evaluation import FALSE_ALARMS, Reason, VerdictRule
from unlearnkit.auditing.verdict_metrics import (
    ATTACKS,
    MATCHED,
    UTILITY,
    attack_of,
    format_estimate,
    metric_label,
)
from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.metrics.relearning_speed import relearning_losses
from unlearnkit.report.schema import MetricRow, Verdict
from unlearnkit.stats.intervals import clopper_pearson, mean_interval, t_quantile, welch_interval
from unlearnkit.stats.matched_auc import matched_auc, matched_auc_difference
from unlearnkit.stats.roc import auc, auc_difference, auc_interval

FAST_MARGIN = 0.02
"""Margin where there is no oracle: two points of accuracy, 0.02 of AUC."""

CONTROL_LEVEL = 0.98
"""Coverage of the interval of the difference from a control. It matters only where the forget set
differs from never-seen rows; elsewhere the first comparison keeps the rate of false alarms."""

RELEARNING = "relearn_gap"
"""The attack without oracles: whether forget rows are learned faster than fresh ones."""

SHORTFALL = 1 / 3
"""Largest share by which short training may leave a control's AUC nearer to 0.5 than retraining's;
up to a quarter was measured on the bundled cases (docs/results/fast_audit.md)."""

RELEARNING_MARGIN = 0.1
"""Smallest advantage of forget rows over the control that counts, as a share of the mean training
loss of fresh rows."""

NO_CONTROL = (
    "no control model could be trained to tell whether the rows or the model are the cause ({why});"
    " give the case fresh= and recipe=, or compare with retrained models"
)


@dataclass(frozen=True)
class FastAudit:
    """What the verdicts of a fast audit rest on."""

    table: dict[str, MetricRow]
    """The rows of the report, by metric."""

    evidence: Evidence
    controls: ControlModels

    classes_removed: bool
    """Whether whole classes had to go: no retain row has them."""

    unchanged: bool
    """Whether the model is the original, bit for bit."""

    @property
    def attack(self) -> MetricRow | None:
        """Return the row of the attack, where its AUC is defined."""
        row = attack_of(self.table.values())
        return None if row is None or row.estimate.low is None else row

    @property
    def relearning(self) -> MetricRow | None:
        """Return the row of the relearning test, where it is defined."""
        row = self.table.get(RELEARNING)
        return None if row is None or row.estimate.low is None else row

    @property
    def utility(self) -> dict[Split, MetricRow]:
        """Return the rows of accuracy or error where utility must not be lost."""
        found = {}
        for split in (Split.RETAIN, Split.TEST):
            rows = (self.table.get(f"{name}_{split}") for name in ("accuracy", "error"))
            row = next((r for r in rows if r is not None), None)
            if row is not None and row.original is not None and row.original.value is not None:
                found[split] = row
        return found

    @cached_property
    def class_tests(self) -> tuple[FastTest, ...]:
        """Return whether removed classes are still named."""
        return tuple(_recognised(self))

    @cached_property
    def attack_tests(self) -> tuple[FastTest, ...]:
        """Return what the membership attack found."""
        return tuple(_attack(self))

    @cached_property
    def relearning_tests(self) -> tuple[FastTest, ...]:
        """Return what the relearning test found."""
        return tuple(_relearning(self))

    @cached_property
    def damage_tests(self) -> tuple[FastTest, ...]:
        """Return where utility was lost."""
        return tuple(t for split, row in self.utility.items() for t in _damage(self, split, row))

    @property
    def level(self) -> float:
        """Return the coverage of each interval, corrected for the number of tests."""
        tests = (self.attack is not None) + (self.relearning is not None)
        tests += len(self.utility) + self.classes_removed
        return 1 - FALSE_ALARMS / max(1, tests)


@dataclass(frozen=True)
class FastTest:
    """A test that found something, and whether a control model explains it."""

    metric: str
    text: str
    familiar: bool = True
    """Whether forget rows look more familiar, not less; of no meaning for utility."""

    open: bool = False
    """Whether the control shows the same, or there is none."""


def _recognised(audit: FastAudit) -> Iterator[FastTest]:
    row = audit.table.get("accuracy_forget")
    if not audit.classes_removed or row is None or row.estimate.value is None:
        return
    right = 1 - audit.evidence.errors(ModelRole.UNLEARNED, Split.FORGET)
    low, _ = clopper_pearson(int(right.sum()), len(right), audit.level)
    if low > FAST_MARGIN:
        yield FastTest(
            row.metric,
            "forgotten classes are still recognised: accuracy on forget rows"
            f" {format_estimate(row)}, and a model that never saw a class cannot name it",
        )


@dataclass(frozen=True)
class _Comparison:
    """What one test shows of the model, and of the model less the control."""

    control: float
    """The control's own value."""

    low: float
    high: float
    """Interval of the model's value less the control's."""

    def __str__(self) -> str:
        return f"difference [{self.low:+.3f}, {self.high:+.3f}]"


def _attack(audit: FastAudit) -> Iterator[FastTest]:
    row = audit.attack
    if row is None:
        return
    matched = row.metric in MATCHED
    low, high = _auc_interval(audit.evidence, audit.level, matched=matched)
    familiar = low > 0.5 + FAST_MARGIN
    if not familiar and high >= 0.5 - FAST_MARGIN:
        return
    word = "more" if familiar else "less"
    shown = f"forget rows look {word} familiar than never-seen rows: AUC {format_estimate(row)}"
    if audit.controls.leaks_only and not familiar:
        yield FastTest(row.metric, f"{shown}; no control was wanted", familiar, open=True)
        return
    control = audit.controls.without_forget_set(audit.evidence)
    if isinstance(control, str):
        yield FastTest(row.metric, f"{shown}; {NO_CONTROL.format(why=control)}", open=True)
        return
    found = _auc_comparison(audit.evidence, control, matched=matched)
    if found is None:
        text = f"{shown}; the control model's AUC is undefined"
        yield FastTest(row.metric, text, open=True)
        return
    seen = f"{shown}, control model {found.control:.3f}, {found}"
    margin = FAST_MARGIN + SHORTFALL * abs(found.control - 0.5)
    if (found.low if familiar else -found.high) > margin:
        yield FastTest(row.metric, seen, familiar)
    else:
        yield FastTest(row.metric, f"{seen}: {_IN_THE_ROWS}", open=True)


_IN_THE_ROWS = (
    "a model that never saw the forget set may show the same, because its rows differ from the"
    " never-seen rows; only retrained models can decide"
)


def _scores(e: Evidence) -> tuple[Tensor, Tensor]:
    return e.margins(ModelRole.UNLEARNED, Split.FORGET), e.margins(
        ModelRole.UNLEARNED, Split.HELD_OUT
    )


def _auc_interval(e: Evidence, level: float, *, matched: bool) -> tuple[float, float]:
    forget, unseen = _scores(e)
    if matched:
        targets = e.targets(Split.FORGET), e.targets(Split.HELD_OUT)
        return matched_auc(forget, unseen, *targets, level).interval or (0.0, 1.0)
    return auc_interval(forget, unseen, level) or (0.0, 1.0)


def _auc_comparison(e: Evidence, control: Evidence, *, matched: bool) -> _Comparison | None:
    members, others = zip(_scores(e), _scores(control), strict=True)
    if matched:
        targets = e.targets(Split.FORGET), e.targets(Split.HELD_OUT)
        paired = matched_auc_difference(members, others, *targets)
        value, error, rows = paired.value, paired.error, paired.pairs
        own = matched_auc(members[1], others[1], *targets).auc
    else:
        value, error = auc_difference(members, others)
        rows, own = min(len(members[0]), len(others[0])), auc(members[1], others[1])
    if math.isnan(value) or math.isnan(error):
        return None
    reach = t_quantile(CONTROL_LEVEL, rows - 1) * error
    return _Comparison(own, value - reach, value + reach)


def _relearning(audit: FastAudit) -> Iterator[FastTest]:
    row = audit.relearning
    if row is None:
        return
    losses = relearning_losses(audit.evidence)
    assert not isinstance(losses, str), losses
    forget, fresh = losses
    if welch_interval(fresh, forget, audit.level)[0] <= 0:
        return
    shown = (
        "forget rows are learned again faster than fresh rows: a mean training loss lower by"
        f" {format_estimate(row)}"
    )
    control = audit.controls.without_forget_set(audit.evidence)
    if isinstance(control, str):
        yield FastTest(row.metric, f"{shown}; {NO_CONTROL.format(why=control)}", open=True)
        return
    theirs = relearning_losses(control)
    if isinstance(theirs, str) or not all(bool(t.isfinite().all()) for t in theirs):
        text = f"{shown}; the control model cannot learn these rows"
        yield FastTest(row.metric, text, open=True)
        return
    low, high = welch_interval(fresh - theirs[1], forget - theirs[0], CONTROL_LEVEL)
    own = float(theirs[1].mean() - theirs[0].mean())
    seen = f"{shown}, control model {own:.3f}, {_Comparison(own, low, high)}"
    if low > RELEARNING_MARGIN * float(fresh.mean()):
        yield FastTest(row.metric, seen)
    else:
        yield FastTest(row.metric, f"{seen}: {_IN_THE_ROWS}", open=True)


def _damage(audit: FastAudit, split: Split, row: MetricRow) -> Iterator[FastTest]:
    e = audit.evidence
    after, before = e.errors(ModelRole.UNLEARNED, split), e.errors(ModelRole.ORIGINAL, split)
    rate = metrics()[row.metric].unit == "fraction"
    least = FAST_MARGIN if rate else FAST_MARGIN * float(before.mean())
    if _loss_of_utility([after, -before], audit.level) <= least:
        return
    assert row.original is not None
    shown = (
        f"{metric_label(row.metric)} went from {row.original.value:.3f} to {format_estimate(row)}"
    )
    without = audit.controls.without_forget_set(e)
    both = without if isinstance(without, str) else audit.controls.with_forget_set(e)
    if isinstance(without, str) or isinstance(both, str):
        if split is Split.RETAIN or audit.classes_removed or e.at_random:
            yield _unless_noise(audit, split, row, shown, least)
        else:
            yield FastTest(row.metric, f"{shown}; {NO_CONTROL.format(why=both)}", open=True)
        return
    removal = [without.errors(ModelRole.UNLEARNED, split), -both.errors(ModelRole.UNLEARNED, split)]
    expected = float(sum(removal, torch.zeros(())).mean())
    why = f"removing the data changes the error of control models by {expected:+.3f}"
    if _loss_of_utility([after, -before, *(-t for t in removal)], CONTROL_LEVEL) > least:
        yield _unless_noise(audit, split, row, f"{shown}; {why}", least)
    else:
        yield FastTest(row.metric, f"{shown}; {why}: retraining may cost as much", open=True)


def _unless_noise(
    audit: FastAudit, split: Split, row: MetricRow, shown: str, least: float
) -> FastTest:
    """Return the accusation; open where noisy labels explain a lower fit of the retain set."""
    if split is not Split.RETAIN:
        return FastTest(row.metric, shown)
    noise, e = audit.controls.label_noise(audit.evidence), audit.evidence
    errors = [e.errors(ModelRole.UNLEARNED, split), -e.errors(ModelRole.ORIGINAL, split)]
    generalisation = 0.0
    if Split.TEST in e.views:
        test, retain = (e.errors(ModelRole.ORIGINAL, s).mean() for s in (Split.TEST, split))
        generalisation = float(test - retain)
    allowed = noise.allowance(generalisation)
    explained = _loss_of_utility(errors, audit.level) <= least + allowed
    return FastTest(row.metric, f"{shown}; {noise}", open=explained)


def _loss_of_utility(signed: Sequence[Tensor], level: float) -> float:
    """Return the lower end of the interval of a mean error; infinite where errors are."""
    rows = torch.stack(list(signed)).sum(0)
    if not bool(rows.isfinite().all()):
        return math.inf
    return mean_interval(rows, level)[0]


def _accusing(
    tests: Callable[[FastAudit], tuple[FastTest, ...]], *, familiar: bool = True
) -> Callable[[FastAudit], list[Reason]]:
    """Return the condition that one of some tests accuses the model, on one side."""

    def holds(audit: FastAudit) -> list[Reason]:
        return [
            Reason(t.text, (t.metric,))
            for t in tests(audit)
            if not t.open and t.familiar is familiar
        ]

    return holds


def _explained(audit: FastAudit) -> Iterator[Reason]:
    for t in (*audit.attack_tests, *audit.relearning_tests, *audit.damage_tests):
        if t.open:
            yield Reason(t.text, (t.metric,))


def _unchanged(audit: FastAudit) -> Iterator[Reason]:
    if audit.unchanged:
        yield Reason("the model is the original: no weight has changed")


def _nothing_found(_: FastAudit) -> Iterator[Reason]:
    yield Reason("Fast tests passed. They cannot detect single memorised records")


_ALL_TESTS = f"all tests together {FALSE_ALARMS:g} (Bonferroni)"
_INTERVAL = "interval of the AUC (DeLong et al., 1988) and of its difference from the control"

FAST_RULES: tuple[VerdictRule[FastAudit], ...] = (
    VerdictRule(
        "fast",
        Verdict.LEAKS,
        "Forgotten classes are still recognised.",
        ("accuracy_forget",),
        f"accuracy above {FAST_MARGIN:g}; {_ALL_TESTS}",
        "interval of a share (Clopper and Pearson, 1934)",
        holds=_accusing(lambda a: a.class_tests),
    ),
    VerdictRule(
        "fast",
        Verdict.LEAKS,
        f"The interval of the membership AUC lies above {0.5 + FAST_MARGIN:g}, and a control model"
        " does not show the same.",
        ATTACKS,
        f"margin {FAST_MARGIN:g}; {_ALL_TESTS}",
        _INTERVAL,
        holds=_accusing(lambda a: a.attack_tests),
    ),
    VerdictRule(
        "fast",
        Verdict.LEAKS,
        "The forget set is learned again faster than fresh rows, and a control model does not show"
        " the same.",
        (RELEARNING,),
        f"{RELEARNING_MARGIN:g} of the loss of fresh rows; {_ALL_TESTS}",
        "two-sample interval (Welch, 1947)",
        holds=_accusing(lambda a: a.relearning_tests),
    ),
    VerdictRule(
        "fast",
        Verdict.OVER_FORGOT,
        f"The interval of the membership AUC lies below {0.5 - FAST_MARGIN:g}, and a control model"
        " does not show the same.",
        ATTACKS,
        f"margin {FAST_MARGIN:g}; {_ALL_TESTS}",
        _INTERVAL,
        holds=_accusing(lambda a: a.attack_tests, familiar=False),
    ),
    VerdictRule(
        "fast",
        Verdict.DAMAGED,
        "Accuracy on the retain set or the test rows has fallen by more than"
        f" {FAST_MARGIN:g}, and by more than removing the data explains; on the retain set also by"
        " more than noisy labels explain.",
        UTILITY,
        f"for errors {FAST_MARGIN:g} of the original error; {_ALL_TESTS}",
        "Student's interval of a mean over rows",
        holds=_accusing(lambda a: a.damage_tests),
    ),
    VerdictRule(
        "fast",
        Verdict.INCONCLUSIVE,
        "A test found something that the control models show too, or there is no control model.",
        (*ATTACKS, RELEARNING, *UTILITY),
        holds=_explained,
    ),
    VerdictRule("fast", Verdict.INCONCLUSIVE, "No weight has changed.", holds=_unchanged),
    VerdictRule(
        "fast",
        Verdict.INCONCLUSIVE,
        "Nothing was found: this tier cannot say that a model matches retraining.",
        holds=_nothing_found,
        unless=tuple(Verdict),
    ),
)
"""The fast tier's rules, in order of precedence."""
