"""``unlearn`` and the choice of a method: table, audit, next candidate."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from unlearnkit import catalog
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.fast_verdict import FastVerdict, fast_verdict
from unlearnkit.auto.case_profile import CaseProfile, profile_case
from unlearnkit.auto.decision_table import Candidate, Rule, load_decision_table
from unlearnkit.auto.judged_candidate import JudgedCandidate, for_longer, outcome_of_audit
from unlearnkit.auto.selection import (
    AutoFailedError,
    CandidateOutcome,
    SelectedModel,
    Selection,
)
from unlearnkit.cache import Cache
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.border import border
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.errors import DivergedError, UnsupportedError
from unlearnkit.core.method import Method
from unlearnkit.core.module_state import tensors, tensors_equal
from unlearnkit.core.recipe import ASSUMED
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.report.schema import Finding, Verdict
from unlearnkit.train.retraining_time import processor_seconds, seconds_a_row_pass
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.train.shared_run import on_ranks
from unlearnkit.train.utility_loss import UtilityLoss, utility_loss
from unlearnkit.unlearning.requirements import applicable_methods, check_needs
from unlearnkit.unlearning.run_method import (
    Unlearned,
    check_arguments,
    fresh_model,
    frozen_copy,
    run_metered,
    run_method,
)

AUDIT_ROWS = 500
"""Most retained rows that an audit of ``auto`` reads: with the look and the other rows its audits
then cost at most a fifth of what it runs, where a recipe has 30 epochs or more."""

AUTO_CONTROL_SHARE = 0.05
"""Length of a control's training, as a share of the original's."""

SCRATCH, LEAST_SHARE = 0.18, 0.02
"""Length of a training from scratch that is kept in reserve below a budget of 1, and the shortest
that is tried at its end, as shares of retraining."""


@border("unlearn")
@on_ranks("unlearn")
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
    the fast audit, and the next candidate is tried where that says LEAKS or DAMAGED, or where more
    than a point of accuracy went on validation rows; then retraining. The result says in its notes
    which it was and why; its cost counts every try and every audit. Where the budget ends before
    one passes, the best model that does not leak comes back, with a note and ``choice.passed``
    False. A model that leaks is never returned: ``AutoFailedError`` is raised then, with it as its
    ``best``.

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
            methods that take gradient steps, without a mask; nothing is held when None. Of
            federated methods the steps of every client are held, in this process, by the directions
            of all retained rows together.
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

    See ``unlearn``; ``lines`` are the decision table, the package's own when None. A candidate that
    passes but lost more than a point of accuracy on validation rows, and more than one standard
    error, is kept in hand while the others are tried, then the best one for twice as long.
    Retraining follows where the loss is above two standard errors; a loss that may be chance is
    in the note. A model whose loss is above two standard errors is audited for leaks alone, and for
    damage once no other has passed. From a budget of 1 up its cost is kept in reserve; where it
    does not fit, a training from scratch follows for as long as the budget allows: it never saw the
    forget rows.

    What comes back is, in this order: a model that passed; one that passed and lost accuracy, with
    a note; one that the audit calls DAMAGED but not LEAKS, with a note and ``choice.passed`` False.
    This is the safest order for the owner of the data: accuracy can be seen and repaired by the
    user, a leak cannot be seen.

    Returns:
        The model.

    Raises:
        UnsupportedError: If no line of the table holds.
    """
    start = time.perf_counter()
    run = Runtime() if rt is None else rt.fork(rt.seed)
    clock = processor_seconds(run.device)
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
    trial.clock = clock
    if trial.whole is None:
        run.note("auto: the cost of retraining is not known without retained rows; no budget kept")
    for candidate in trial.plan():
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
    clock: float = 0.0
    """Processor time at the start."""

    tried: list[CandidateOutcome] = field(default_factory=list)
    ran: list[JudgedCandidate] = field(default_factory=list)

    audited: int = 0
    """Work of the dearest audit so far."""

    controls: ControlModels = field(init=False)
    """Control models that all audits share."""

    short: bool = False
    """Whether the budget kept a candidate out."""

    def __post_init__(self) -> None:
        own = self.run.fork(self.run.seed)
        self.controls = ControlModels(
            self.case, self.parts, own, self.cache, AUTO_CONTROL_SHARE, leaks_only=True
        )

    @property
    def whole(self) -> int | None:
        """Return the work of retraining."""
        if self.parts.retain is None:
            return None
        recipe = self.case.recipe or ASSUMED
        return 3 * recipe.epochs * len(self.parts.retain) or None

    @property
    def best(self) -> JudgedCandidate | None:
        """Return the best model so far, the earlier of equal ones."""
        return min(self.ran, key=lambda t: t.rank, default=None)

    def plan(self) -> Iterator[Candidate]:
        """Yield what to try next: the line's methods, the best for longer, then from scratch."""
        yield from (c for c in self.line.candidates if not c.exact)
        best = self.best
        if best is not None and best.rank[0] in {1, 2}:
            longer = for_longer(best)
            if longer is not None:
                yield longer
        exact = [c for c in self.line.candidates if c.exact]
        for candidate in exact:
            if self._lost_by_chance():
                return
            yield candidate
        if exact and not self._lost_by_chance() and not any(t.candidate.whole for t in self.ran):
            yield from self._as_long_as_the_budget_allows()

    def _lost_by_chance(self) -> bool:
        """Return whether the best model passed and lost no more than chance explains."""
        best = self.best
        return best is not None and best.rank[0] == 1 and not best.lossy_beyond_chance

    def _as_long_as_the_budget_allows(self) -> Iterator[Candidate]:
        """Yield a training from scratch on the retain set for what is left of the budget."""
        spent = self._spent()
        if spent is None:
            return
        unchecked = len(self._unchecked())
        checks = (2 + unchecked) * self._reading_cost() + (self._control_cost() if unchecked else 0)
        share = math.floor(100 * (self.how.budget - spent - checks)) / 100
        tried = [t.candidate.cost for t in self.ran if t.candidate.exact]
        if share >= LEAST_SHARE and share > max(tried, default=0.0):
            settings = {"renew": 1.0, "run": {"share": share}}
            yield Candidate(method="shrink_perturb", settings=settings, cost=share, exact=True)

    def attempt(self, candidate: Candidate) -> bool:
        """Try a candidate; return whether its model is to be returned without further tries."""
        run = self.run.fork(self.run.seed)
        try:
            how = self._built(candidate)
            done = run_metered(self.model, self.case, self.request, how, run, split=self.parts)
        except (UnsupportedError, DivergedError) as e:
            self._record(candidate, run.cost, str(e))
            return False
        looked = self.run.fork(self.run.seed)
        loss = utility_loss(done.model, done.original, self.case, self.parts, self.request, looked)
        damage = loss is None or not loss.beyond(2)
        tried = self._judged(candidate, done, loss, run.cost, looked, damage=damage)
        for spent in (run.cost, looked.cost):
            self._count(spent)
        self.tried.append(tried.outcome)
        self.ran.append(tried)
        return tried.outcome.passed and (candidate.whole or not tried.lossy)

    def _judged(
        self,
        candidate: Candidate,
        done: Unlearned,
        loss: UtilityLoss | None,
        ran: Cost,
        looked: Runtime,
        *,
        damage: bool,
    ) -> JudgedCandidate:
        """Return a model with what the audit says of it: of leaks, and of damage if wanted."""
        controls = not candidate.exact or candidate.whole
        report = self._audit(done, looked, controls=controls, damage=damage)
        self.audited = max(self.audited, looked.cost.work)
        wrong = self._wrong(done, report, loss)
        outcome = outcome_of_audit(report, wrong, damage=damage)
        never_saw = candidate.exact and Verdict.DAMAGED not in wrong
        if wrong and candidate.exact:
            outcome += "; its model never saw the forget rows, so this is in the rows themselves"
        if loss is not None and loss.more_than_a_point:
            outcome += f"; {loss}"
        one = CandidateOutcome(
            candidate=candidate.words(),
            ran=True,
            passed=not wrong or never_saw or candidate.whole,
            outcome=outcome,
            work=ran.work,
            audit=looked.cost.work,
            lost=None if loss is None else loss.lost,
        )
        return JudgedCandidate(candidate, one, done, tuple(wrong), loss, damage)

    def _check_for_damage(self) -> None:
        """Let the audit look for damage where it did not, unless a model passed without that.

        Where validation rows show a loss the first audit looks for leaks alone: another candidate
        is tried in any case, and control models cost as much as a tenth of retraining.
        """
        for at, tried in self._unchecked():
            if self.best is None or self.best.rank[0] < 2:
                return
            looked = self.run.fork(self.run.seed)
            spent = Cost(forward=tried.outcome.work)
            again = self._judged(
                tried.candidate, tried.done, tried.loss, spent, looked, damage=True
            )
            self._count(looked.cost)
            audit = again.outcome.audit + tried.outcome.audit
            one = again.outcome.model_copy(update={"audit": audit})
            self.tried[self.tried.index(tried.outcome)] = one
            self.ran[at] = replace(again, outcome=one)

    def _unchecked(self) -> list[tuple[int, JudgedCandidate]]:
        """Return models that do not leak and were not looked at for damage, with their places."""
        return [(i, t) for i, t in enumerate(self.ran) if not t.checked and t.rank[0] == 2]

    def result(self, seconds: float) -> SelectedModel:
        """Return the best model, if it does not leak.

        Raises:
            UnsupportedError: If no candidate could run.
            AutoFailedError: If all that ran leak or changed nothing.
        """
        more = "; a larger budget lets more of them run" if self.short else ""
        self._check_for_damage()
        best = self.best
        if best is None:
            whys = "; ".join(f"{t.candidate}: {t.outcome}" for t in self.tried)
            raise UnsupportedError(
                f"auto: no candidate of line {self.line.id} could run{more}: {whys}"
            )
        why = self._why(best.outcome)
        self.run.note(f"auto: {_SAID[best.rank[0]]}{why}")
        if best.rank[0] == 2:
            self.run.note(
                "auto: this model has forgotten but answers worse than it should: the audit calls"
                f" it DAMAGED, and no other candidate fitted the budget of {self.how.budget:g}; it"
                " is safe to inspect, not to be used as it is; give a budget of 2 or more, or"
                " retrain"
            )
        found = self._selected(best, why, seconds)
        if best.rank[0] < 3:
            return found
        whys = "; ".join(f"{t.candidate}: {t.outcome}" for t in self.tried)
        raise AutoFailedError(f"auto: no candidate passed the fast audit{more}: {whys}", found)

    def _selected(self, best: JudgedCandidate, why: str, seconds: float) -> SelectedModel:
        done, chosen = best.done, best.outcome
        ran = sum(t.work for t in self.tried)
        per_pass = self._seconds_a_pass()
        used = processor_seconds(self.run.device) - self.clock
        checks = self.run.cost.work - ran
        return SelectedModel(
            **{
                **{name: getattr(done, name) for name in Unlearned.__dataclass_fields__},
                "seconds": seconds,
                "cost": replace(self.run.cost, pending=0),
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
                checks=checks / ran if ran else None,
                processor_seconds=used,
                processor_cost=None
                if per_pass is None or self.whole is None
                else used / (per_pass * self.whole),
                audited=self.audited > 0,
                passed=chosen.passed,
                lost=chosen.lost,
                candidates=tuple(self.tried),
            ),
        )

    def _seconds_a_pass(self) -> float | None:
        """Return the processor time of a row pass of retraining; None where it cannot be timed."""
        case, retain = self.case, self.parts.retain
        if case.fresh is None or case.recipe is None or case.train_model is not None:
            return None
        if retain is None or not retain.labelled or not len(retain):
            return None
        own = self.run.fork(self.run.seed)
        with seeded_global_rngs(own, "auto/time"):
            found = seconds_a_row_pass(
                fresh_model(case, own, "auto/time"), retain, case.task, case.recipe, own
            )
        self.run.cost.forward += own.cost.forward
        self.run.cost.backward += own.cost.backward
        return found

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
                need = need * self._overrun() + self._audit_cost()
                left -= self._reserve()
            if need > left + 1e-9:
                self.short = True
                raise UnsupportedError(
                    f"needs about {need:.2f} of retraining, and {max(0.0, left):.2f} of the budget"
                    " is left for it"
                )
        return how

    def _overrun(self) -> float:
        """Return how many times their stated cost the candidates so far took, at least 1.

        Where a recipe has few epochs, a run that is rounded up to whole epochs takes more.
        """
        assert self.whole is not None
        taken = [t.outcome.work / (self.whole * t.candidate.cost) for t in self.ran]
        return max([1.0, *taken])

    def _reserve(self) -> float:
        """Return what must be left after other candidates: for retraining, or a part of it."""
        exact = [c for c in self.line.candidates if c.exact and self._can_run(c.method)]
        costs = [c.cost for c in exact if c.cost <= self.how.budget]
        if costs or not exact:
            return max(costs, default=0.0)
        return SCRATCH + self._reading_cost() if self._can_run("shrink_perturb") else 0.0

    def _can_run(self, method: str) -> bool:
        try:
            check_needs(catalog.method(method), self.case, self.parts)
        except UnsupportedError:
            return False
        return True

    def _audit_cost(self) -> float:
        """Return what the next audit costs, as a share of retraining: as the dearest so far.

        Before the first one: two models on the rows. Control models not yet trained come on top.
        """
        assert self.whole is not None
        dearest = self.audited / self.whole if self.audited else self._reading_cost()
        return dearest + self._control_cost()

    def _control_cost(self) -> float:
        """Return what both control models cost, as a share of retraining; 0 once they are there."""
        needed = self.case.fresh is not None and not self.controls.trained
        return 2 * AUTO_CONTROL_SHARE if needed else 0.0

    def _reading_cost(self) -> float:
        """Return what two models on the rows of an audit cost, as a share of retraining."""
        assert self.whole is not None
        views = (self.parts.forget, self.case.test, self.case.held_out, self.case.validation)
        rows = sum(len(v) for v in views if v is not None)
        rows += 0 if self.parts.retain is None else min(AUDIT_ROWS, len(self.parts.retain))
        return 2 * rows / self.whole

    def _spent(self) -> float | None:
        return None if self.whole is None else self.run.cost.work / self.whole

    def _audit(
        self, done: Unlearned, rt: Runtime, *, controls: bool, damage: bool
    ) -> FastVerdict | None:
        if self.parts.forget is None:
            return None
        own = self.controls if controls else replace(self.controls, share=0.0, _trained={})
        report = fast_verdict(done, rt, own, retain_rows=AUDIT_ROWS, damage=damage)
        spent, self.controls.rt = self.controls.rt.cost, self.run.fork(self.run.seed)
        rt.cost.forward += spent.forward
        rt.cost.backward += spent.backward
        return report

    def _wrong(
        self, done: Unlearned, report: FastVerdict | None, loss: UtilityLoss | None
    ) -> list[str]:
        """Return what speaks against a model.

        Rows that fit the original badly, as wrong labels do, say that labels are noisy: then a
        lower fit of the retain set is no damage where validation rows lost nothing.
        """
        noisy = self.seen.kind == "atypical" and loss is not None and not loss.more_than_a_point
        found = [
            f.verdict
            for f in ([] if report is None else report.findings)
            if f.verdict in FAILING
            and not (noisy and f.verdict is Verdict.DAMAGED and _of_retained_rows(f))
        ]
        wrong = list(dict.fromkeys(str(v) for v in found))
        theirs = tensors(done.original)
        if all(
            tensors_equal(t, theirs[name])
            for name, t in tensors(done.model).items()
            if name in theirs
        ):
            wrong.append("NOTHING CHANGED")
        return wrong

    def _record(self, candidate: Candidate, cost: Cost, why: str) -> None:
        """Keep that a candidate did not run to its end."""
        self._count(cost)
        words = candidate.words()
        one = CandidateOutcome(
            candidate=words, ran=False, passed=False, outcome=why, work=cost.work
        )
        self.tried.append(one)

    def _count(self, cost: Cost) -> None:
        self.run.cost.forward += cost.forward
        self.run.cost.backward += cost.backward
        self.run.cost.peak_bytes = max(self.run.cost.peak_bytes, cost.peak_bytes)

    def _why(self, chosen: CandidateOutcome) -> str:
        others = [f"{t.candidate} ({t.outcome})" for t in self.tried if t is not chosen]
        before = f"; instead of {', '.join(others)}" if others else ""
        return (
            f"{chosen.candidate}, because {self.line.because} (line {self.line.id};"
            f" {self.line.evidence}); {chosen.outcome}{before}"
        )


FAILING = (Verdict.LEAKS, Verdict.DAMAGED)
"""Verdicts that make ``auto`` try the next candidate."""

_SAID = (
    "",
    "it lost more than a point of accuracy, and nothing else that fitted the budget did better: ",
    "NOT PASSED: ",
    "FAILED, do not use this model: ",
)
"""How the note of a model begins, by its rank."""


def _of_retained_rows(finding: Finding) -> bool:
    return bool(finding.rows) and all(r.endswith("_retain") for r in finding.rows)
