"""``unlearn`` and the choice of a method: table, audit, next candidate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from unlearnkit import catalog
from unlearnkit.auditing.audit import audit_one_model
from unlearnkit.auditing.control_models import CONTROL_SHARE, ControlModels
from unlearnkit.auto.case_profile import CaseProfile, profile_case
from unlearnkit.auto.decision_table import Candidate, Rule, load_decision_table
from unlearnkit.cache import Cache
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.border import border
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import DivergedError, UnlearnkitError, UnsupportedError
from unlearnkit.core.method import Method
from unlearnkit.core.module_state import tensors, tensors_equal
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.report.report import Report
from unlearnkit.report.schema import Verdict
from unlearnkit.unlearning.requirements import applicable_methods, check_needs
from unlearnkit.unlearning.run_method import (
    Unlearned,
    check_arguments,
    frozen_copy,
    run_metered,
    run_method,
)

FAILING = (Verdict.LEAKS, Verdict.DAMAGED)
"""Verdicts that make ``auto`` try the next candidate."""


class CandidateOutcome(FrozenModel):
    """The outcome of one candidate."""

    candidate: str
    """The method with its settings."""

    ran: bool
    """Whether it ran to its end."""

    passed: bool
    outcome: str
    """The result of the fast audit, or why the candidate did not run."""

    work: int = 0
    """The candidate's row passes, a backward pass counted as two."""

    audit: int = 0
    """Its audit's."""


class Selection(FrozenModel):
    """What ``auto`` chose, and why."""

    candidate: str
    """The method with its settings."""

    line: str
    """Of the decision table."""

    why: str
    """In one line."""

    kind: str
    share: float | None
    atypicality: float | None
    budget: float
    cost: float | None
    """Cost of all that was tried, audits included, as a share of retraining's; None where that is
    not known."""

    audited: bool
    passed: bool
    """Whether the returned model passed the fast audit, or could not be audited."""

    candidates: tuple[CandidateOutcome, ...]


@dataclass(frozen=True)
class SelectedModel(Unlearned):
    """The model that ``auto`` returns; ``method`` made it, ``cost`` counts all tries."""

    choice: Selection


class AutoFailedError(UnlearnkitError):
    """No candidate passed the fast audit; ``best`` is the least bad, to inspect, not to use."""

    def __init__(self, message: str, best: SelectedModel) -> None:
        super().__init__(message)
        self.best = best


@border("unlearn")
def unlearn(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    method: Method | str,
    rt: Runtime | None = None,
    *,
    mask: Mask | Localizer | None = None,
    projection: RetainedSubspace | None = None,
    cache: Cache | None = None,
) -> Unlearned:
    """Return a copy of a model that has been made to forget; the input is not touched.

    It fails with a typed error, and leaves nothing behind, if the method cannot serve the task or
    lacks an input, if model, request and case do not fit each other, if the method returned no
    finite model of the same architecture (``DivergedError``), or if it broke its contract.

    With ``"auto"`` the method is chosen from a table of measured results, its model goes through
    the fast audit, and the next candidate is tried where that says LEAKS or DAMAGED. The result
    says in its notes which it was and why; its cost counts every try and every audit. Where none
    passes, ``AutoFailedError`` is raised, with the least bad model as its ``best``.

    Args:
        model: The trained model.
        case: What it was trained on, and how.
        request: The forget set, as a request or as text (``"class=3"``); None for a case made
            from parts.
        method: How: a method with its hyper-parameters, a name for its defaults, or ``"auto"``.
        rt: Device, precision, seed, reporter; the CPU in fp32 with seed 0 by default. The run has
            a meter and notes of its own: those of this runtime stay as they are.
        mask: Which scalars may move: a mask, such as ``Localizer().find(model, case, request)``,
            or the localizer, which then finds it as a part of the run; all when None. The others
            come back bit by bit as they were. Methods that train hold them at each step, others at
            the end. Buffers, such as running statistics, are not masked.
        projection: Which directions of retained inputs are held: weights then move only where
            answers on retained rows stay, to first order (``pgu`` does it with a loss of its own).
            The directions are those of the case's input moments without the forget set, else of the
            retained rows. Parameters without such directions, biases among them, are frozen. For
            methods that take gradient steps, without a mask; nothing is held when None.
        cache: Where ``"auto"`` keeps the control models of its audits.

    Returns:
        The new model, with its cost and circumstances.
    """
    how = catalog.method(method) if isinstance(method, str) else method
    check_arguments(case, how, rt)
    if isinstance(how, Auto) and mask is None and projection is None:
        return select_method(model, case, request, how, rt, cache=cache)
    return run_method(model, case, request, how, rt, mask=mask, projection=projection)


def select_method(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    how: Auto,
    rt: Runtime | None = None,
    lines: Sequence[Rule] | None = None,
    cache: Cache | None = None,
) -> SelectedModel:
    """Try the candidates of the first line that holds, until one passes the fast audit.

    See ``unlearn``; ``lines`` are the decision table, the package's own when None.

    Returns:
        The model of the first candidate that passed, or could not be audited.

    Raises:
        UnsupportedError: If no line of the table holds.
    """
    start = time.perf_counter()
    run = Runtime() if rt is None else rt.fork(rt.seed)
    parsed = None if request is None else parse_request(request)
    parts = case.partition(parsed)
    original = frozen_copy(model, case, parts, run)
    seen = profile_case(original, case, parsed, parts, run)
    line = next(
        (x for x in (load_decision_table() if lines is None else lines) if seen.fits(x.when)), None
    )
    if line is None:
        raise UnsupportedError(
            f"auto: no line of the table is for {case.task.name} with what the case gives; name a"
            f" method; these work: {', '.join(applicable_methods(case, parts)) or 'none'}"
        )
    trial = _Trial(model, case, parsed, parts, how, run, seen, line, cache or Cache())
    if trial.whole is None:
        run.note("auto: the cost of retraining is not known without retained rows; no budget kept")
    for candidate in line.candidates:
        if trial.attempt(candidate):
            break
    return trial.result(time.perf_counter() - start)


@dataclass
class _Trial:
    """One request's candidates, as they are tried."""

    model: nn.Module
    case: Case
    request: ForgetRequest | None
    parts: Partition
    how: Auto
    run: Runtime
    seen: CaseProfile
    line: Rule
    cache: Cache
    tried: list[CandidateOutcome] = field(default_factory=list)
    best: tuple[int, CandidateOutcome, Unlearned] | None = None
    """How many verdicts failed, and what they were about."""

    audited: int = 0
    """Work of the dearest audit so far."""

    controls: ControlModels = field(init=False)
    """Control models that all audits share."""

    short: bool = False
    """Whether the budget kept a candidate out."""

    def __post_init__(self) -> None:
        own = self.run.fork(self.run.seed)
        self.controls = ControlModels(self.case, self.parts, own, self.cache)

    @property
    def whole(self) -> int | None:
        """Return the work of retraining."""
        if self.parts.retain is None:
            return None
        recipe = self.case.recipe or ASSUMED
        return 3 * recipe.epochs * len(self.parts.retain) or None

    def attempt(self, candidate: Candidate) -> bool:
        """Try a candidate; return whether its model is to be returned."""
        run = self.run.fork(self.run.seed)
        try:
            how = self._built(candidate)
            done = run_metered(self.model, self.case, self.request, how, run, split=self.parts)
        except (UnsupportedError, DivergedError) as e:
            self._record(candidate, run.cost, outcome=str(e))
            return False
        looked = self.run.fork(self.run.seed)
        report = self._audit(done, looked)
        self.audited = max(self.audited, looked.cost.work)
        wrong = _wrong(done, report)
        outcome = _outcome(report, wrong)
        passed = not wrong or candidate.exact
        if wrong and candidate.exact:
            outcome += "; its model never saw the forget rows, so this is in the rows themselves"
        tried = self._record(candidate, run.cost, outcome=outcome, audit=looked.cost, passed=passed)
        if self.best is None or passed or len(wrong) < self.best[0]:
            self.best = (len(wrong), tried, done)
        return passed

    def result(self, seconds: float) -> SelectedModel:
        """Return the model that passed.

        Raises:
            UnsupportedError: If no candidate could run.
            AutoFailedError: If none passed.
        """
        more = "; a larger budget lets more of them run" if self.short else ""
        if self.best is None:
            whys = "; ".join(f"{t.candidate}: {t.outcome}" for t in self.tried)
            raise UnsupportedError(
                f"auto: no candidate of line {self.line.id} could run{more}: {whys}"
            )
        _, chosen, done = self.best
        why = self._why(chosen)
        if not chosen.passed:
            self.run.note(f"auto: FAILED, do not use this model: {why}")
        else:
            self.run.note(f"auto: {why}")
        cost = self.run.cost
        found = SelectedModel(
            **{
                **{name: getattr(done, name) for name in Unlearned.__dataclass_fields__},
                "seconds": seconds,
                "cost": replace(cost, pending=0),
                "notes": (*self.run.notes, *done.notes),
            },
            choice=Selection(
                candidate=chosen.candidate,
                line=self.line.id,
                why=why,
                kind=self.seen.kind,
                share=self.seen.share,
                atypicality=self.seen.atypicality,
                budget=self.how.budget,
                cost=self._spent(),
                audited=self.audited > 0,
                passed=chosen.passed,
                candidates=tuple(self.tried),
            ),
        )
        if chosen.passed:
            return found
        whys = "; ".join(f"{t.candidate}: {t.outcome}" for t in self.tried)
        raise AutoFailedError(f"auto: no candidate passed the fast audit{more}: {whys}", found)

    def _built(self, candidate: Candidate) -> Method:
        if candidate.method not in catalog.methods():
            raise UnsupportedError(f"no method {candidate.method!r} is installed")
        how = catalog.method(candidate.method, None, **candidate.settings)
        check_needs(how, self.case, self.parts)
        spent = self._spent()
        if spent is not None:
            need = candidate.cost
            left = self.how.budget - spent
            if not candidate.exact:
                need += self._audit_cost()
                left -= self._reserve()
            if need > left:
                self.short = True
                raise UnsupportedError(
                    f"needs about {need:.2f} of retraining, and {max(0.0, left):.2f} of the budget"
                    " is left"
                )
        return how

    def _reserve(self) -> float:
        """Return what retraining would cost after other candidates, where it can follow them."""
        for candidate in self.line.candidates:
            if candidate.exact and candidate.cost <= self.how.budget:
                try:
                    check_needs(catalog.method(candidate.method), self.case, self.parts)
                except UnsupportedError:
                    continue
                return candidate.cost
        return 0.0

    def _audit_cost(self) -> float:
        """Return what the next audit costs, as a share of retraining: as the dearest so far.

        Before the first one: two models on all rows, and both control models.
        """
        assert self.whole is not None
        if self.audited:
            return self.audited / self.whole
        views = (self.parts.forget, self.parts.retain, self.case.test, self.case.held_out)
        rows = sum(len(v) for v in views if v is not None)
        controls = 2 * CONTROL_SHARE if self.case.fresh is not None else 0.0
        return 2 * rows / self.whole + controls

    def _spent(self) -> float | None:
        return None if self.whole is None else self.run.cost.work / self.whole

    def _audit(self, done: Unlearned, rt: Runtime) -> Report | None:
        if self.parts.forget is None:
            return None
        report = audit_one_model(done, None, AuditTier.FAST, rt, self.controls)
        spent, self.controls.rt = self.controls.rt.cost, self.run.fork(self.run.seed)
        rt.cost.forward += spent.forward
        rt.cost.backward += spent.backward
        return report

    def _record(
        self,
        candidate: Candidate,
        cost: Cost,
        *,
        outcome: str,
        audit: Cost | None = None,
        passed: bool = False,
    ) -> CandidateOutcome:
        for spent in (cost, audit or Cost()):
            self.run.cost.forward += spent.forward
            self.run.cost.backward += spent.backward
        self.run.cost.peak_bytes = max(self.run.cost.peak_bytes, cost.peak_bytes)
        tried = CandidateOutcome(
            candidate=candidate.words(),
            ran=audit is not None,
            passed=passed,
            outcome=outcome,
            work=cost.work,
            audit=0 if audit is None else audit.work,
        )
        self.tried.append(tried)
        return tried

    def _why(self, chosen: CandidateOutcome) -> str:
        others = [f"{t.candidate} ({t.outcome})" for t in self.tried if t is not chosen]
        before = f"; instead of {', '.join(others)}" if others else ""
        return (
            f"{chosen.candidate}, because {self.line.because} (line {self.line.id};"
            f" {self.line.evidence}); {chosen.outcome}{before}"
        )


def _wrong(done: Unlearned, report: Report | None) -> list[str]:
    """Return what speaks against a model."""
    found = [] if report is None else [f.verdict for f in report.findings if f.verdict in FAILING]
    wrong = list(dict.fromkeys(str(v) for v in found))
    theirs = tensors(done.original)
    if all(
        tensors_equal(t, theirs[name]) for name, t in tensors(done.model).items() if name in theirs
    ):
        wrong.append("NOTHING CHANGED")
    return wrong


def _outcome(report: Report | None, wrong: Sequence[str]) -> str:
    if wrong:
        return f"fast audit: {', '.join(wrong)}"
    if report is None:
        return "not audited: there are no forget rows"
    other = sorted({str(f.verdict) for f in report.findings} - {Verdict.INCONCLUSIVE})
    seen = {r.metric for r in report.rows}
    blind = []
    if not seen & {"margin_auc"}:
        blind.append("no never-seen rows to compare with")
    if not seen & {"accuracy_retain", "error_retain", "accuracy_test", "error_test"}:
        blind.append("no rows to check for damage")
    outcome = "the fast audit found no leak and no damage"
    outcome += f" ({', '.join(blind)})" if blind else ""
    return f"{outcome}; it says {', '.join(other)}" if other else outcome
