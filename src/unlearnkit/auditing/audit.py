"""The verb: from an unlearned model to a report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unlearnkit.auditing.audit_evidence import evidence_of
from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.difficulty_summary import difficulty
from unlearnkit.auditing.evidence_kinds import read_certificate, with_evidence
from unlearnkit.auditing.figure_data import class_lines, margin_samples, roc_curves
from unlearnkit.auditing.memory_and_likeness import single_model_answers
from unlearnkit.auditing.method_judgement import judge_method
from unlearnkit.auditing.metric_table import Reference, metric_rows
from unlearnkit.auditing.next_steps import AuditFacts, next_steps
from unlearnkit.auditing.placebo_models import PlaceboControl, placebo_control
from unlearnkit.auditing.provenance import provenance
from unlearnkit.auditing.recipe_check import RecipeChecker
from unlearnkit.auditing.recipe_marks import mark_findings, recipe_limits, under_recipe
from unlearnkit.auditing.remarks import limits, remarks
from unlearnkit.auditing.request_summary import (
    describe_request,
    duplicates_and_nearest,
    target_counts,
    training_digest,
)
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.strong.cost_plan import plan
from unlearnkit.auditing.strong.ensemble_size import ENOUGH
from unlearnkit.auditing.strong.mask_transfer import find_localizer
from unlearnkit.auditing.strong.results_table import StrongResults
from unlearnkit.auditing.strong.train_ensembles import check_models, collect_margins, subject_of
from unlearnkit.auditing.summary import summary_rows
from unlearnkit.auditing.verdicts_fast import FastAudit
from unlearnkit.auditing.verdicts_reference import (
    HEADROOM,
    VerdictInputs,
    enough_headroom,
    findings_of_fast_audit,
    headroom,
    judge,
)
from unlearnkit.auditing.verdicts_strong import strong_limits, strong_remarks
from unlearnkit.cache import Cache
from unlearnkit.contamination import check_fresh, check_outside
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.border import border
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import View
from unlearnkit.core.digest import model_digest, tensor_digest
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.core.inference import BATCHING, batching_note
from unlearnkit.core.metric import ANSWERS
from unlearnkit.core.module_state import structural_difference
from unlearnkit.core.outside_method import OutsideMethod
from unlearnkit.core.ranks import check_alone
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import Oracles, check_different
from unlearnkit.report.mask_section import mask_summary
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.report import Report
from unlearnkit.report.schema import (
    CostComparison,
    Finding,
    MetricRow,
    RequestSummary,
    StrongSummary,
    Verdict,
)
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_EQUIVALENCE, ENOUGH_FOR_INTERVALS
from unlearnkit.train.rng_guard import as_plain_call
from unlearnkit.train.shared_run import on_ranks
from unlearnkit.unlearning.outside_model import unlearned_outside
from unlearnkit.unlearning.run_method import (
    Unlearned,
    check_weights,
    with_merged_adapter,
)

if TYPE_CHECKING:
    from unlearnkit.linear.certificate import Certificate


@border("audit")
@on_ranks("audit")
@as_plain_call
def audit(
    done: Unlearned | nn.Module,
    *,
    original: nn.Module | None = None,
    case: Case | None = None,
    request: ForgetRequest | str | Mapping[str, Any] | None = None,
    oracle: Oracles | None = None,
    tier: AuditTier | str | None = None,
    models: int = ENOUGH,
    rt: Runtime | None = None,
    cache: Cache | None = None,
    ray: str | None = None,
    list_rows: bool = False,
    memory: AuditMemory | None = None,
    placebo: bool = True,
    recipe_check: bool = True,
    robustness: bool = False,
    certificate: Certificate | EvidenceStatement | None = None,
) -> Report:
    """Measure whether an unlearned model behaves as if it had never seen the forget rows.

    Args:
        done: What ``unlearn`` returned; or a model that another tool unlearned, and the next three.
        original: Of such a model: what it was before.
        case: Of such a model: what the original was trained on.
        request: Of such a model: what was to be forgotten; None for a case made from parts.
        oracle: Models retrained without the forget rows: of ``uk.oracle``, or your own
            (``Oracles.from_models``); five or more for a match, three or more for intervals.
        tier: ``fast`` needs no oracle and can only find faults; before it accuses a model it trains
            up to two control models, each for a tenth of the training. ``reference`` compares with
            oracles; ``strong`` judges the method record by record, with ensembles that it trains
            where they are not kept yet. None: the better of the first two that is possible.
        models: Of the strong tier: how many originals, unlearned models, retrained ones (two sets)
            and placebo models, which are what the method makes of retrained ones.
        rt: Where to run; the CPU by default. Its reporter hears the cost of a strong audit first.
        cache: Where trained models are kept: control models, ensembles and their margins.
        ray: Of the strong tier: who trains originals and retrained models, as in ``oracle``.
        list_rows: Whether the report lists the removed rows, by key or position.
        memory: What earlier audits of the same case found out about the same oracles.
        placebo: Of the reference tier: whether the method runs on the oracles too, to tell memory.
        recipe_check: Whether to ask before any comparison if the case's recipe, or ``train_model``,
            gives models like the original: it trains one to five originals, kept in the cache.
        robustness: Whether to attack what a language model forgot (section Robustness).
        certificate: Of ``unlearnkit.linear``, or the evidence of a removal by ``unlearnkit.sisa``:
            printed with all its assumptions, next to what was measured; it changes no verdict.

    Returns:
        The report. An unknown tier, oracles of another case, and none where needed are errors.
    """
    rt, cache, memory = rt or Runtime(), cache or Cache(), memory or AuditMemory()
    done = with_merged_adapter(_audited(done, original, case, request, rt))
    _check_oracle_kind(oracle)
    stated = read_certificate(certificate, done)
    check = RecipeChecker(done, oracle, rt, cache, memory, ray, wanted=recipe_check)
    tier = _tier_of(tier, oracle)
    if tier is AuditTier.STRONG:
        found = _strong(done, oracle, models, rt, cache, ray, memory, check, robustness)
    else:
        found = _single(done, oracle, tier, rt, cache, memory, check, placebo, robustness)
    return with_evidence(_with_data(found, done, list_rows=list_rows), done, stated)


def _single(
    done: Unlearned,
    oracle: Oracles | None,
    tier: AuditTier,
    rt: Runtime,
    cache: Cache,
    memory: AuditMemory,
    check: RecipeChecker,
    placebo: bool,
    robustness: bool,
) -> Report:
    """Return the fast or the reference audit of the model at hand."""
    oracles = oracle if tier is AuditTier.REFERENCE else None
    controls = ControlModels(done.case, done.parts, rt, cache)
    return audit_one_model(
        done, oracles, tier, rt, controls, memory, placebo=placebo, recipe_check=check,
        robustness=robustness,
    )  # fmt: skip


def _tier_of(wanted: AuditTier | str | None, oracle: Oracles | None) -> AuditTier:
    if wanted not in (None, *AuditTier):
        raise UnknownNameError("tier of an audit", str(wanted), list(AuditTier))
    least = AuditTier.FAST if oracle is None else AuditTier.REFERENCE
    tier = least if wanted is None else AuditTier(wanted)
    if tier is AuditTier.STRONG:
        check_alone("audit: the strong tier")
    if tier is AuditTier.REFERENCE and oracle is None:
        raise InputError(
            "audit: tier reference needs oracles; pass oracle=uk.oracle(case, request), or ask for"
            " tier fast"
        )
    return tier


def _with_data(report: Report, done: Unlearned, *, list_rows: bool) -> Report:
    """Return the report with digests of training data and request, and the removed rows."""
    forget = done.parts.forget
    assert forget is not None
    try:
        data = training_digest(done.case)
    except InputError:  # rows that differ between two reads have no content to name
        data = ""
    more = {
        "training_data": data,
        "request": tensor_digest(forget.rows),
        "removed_rows": done.case.keys.named(forget.rows) if list_rows else None,
        "removed_by": "position" if done.case.keys.rows is None else "key",
    }
    return report.model_copy(update={"provenance": report.provenance.model_copy(update=more)})


def audit_one_model(
    done: Unlearned,
    oracles: Oracles | None,
    tier: AuditTier,
    rt: Runtime,
    controls: ControlModels,
    memory: AuditMemory | None = None,
    *,
    placebo: bool = False,
    recipe_check: Callable[[Mapping[Split, View], AuditTier], RecipeCheck] | None = None,
    robustness: bool = False,
) -> Report:
    """Return the fast or the reference audit of one model; arguments are those of ``audit``.

    Without oracles it is the fast one. ``recipe_check`` makes the check of the recipe from rows.

    Raises:
        InputError: If there are no forget rows, or the oracles are of another case.
    """
    oracles = None if oracles is None else oracles.of(done.case)
    truth = None if oracles is None else _ComparedOracles.of(oracles, memory or AuditMemory())
    told = () if truth is None else _check_oracles(truth, done, rt)
    check_weights(done.model, "unlearned")
    parts = done.parts
    splits = choose(done.case, parts, rt, infer_request(done.request, parts))
    if Split.FORGET not in splits.views:
        raise InputError("audit: the case has no forget rows to look at; give them with the case")
    models, found_before = _oracle_models(truth)
    evidence = evidence_of(done, splits.views, rt, oracles=models, found=found_before)
    count = 0 if oracles is None else len(oracles)
    rows = tuple(metric_rows(evidence, tier, _known(done, truth, evidence), robustness=robustness))
    control = placebo_control(done, oracles if placebo else None, evidence, rt)
    recipe = None if recipe_check is None else recipe_check(splits.views, tier)
    found = _findings(done, rows, evidence, count, controls, control, recipe)
    asked = _asked(done, parts, rows, evidence)
    spent = _spent(done, oracles, parts)
    batching = _batching_warnings(done, splits.views[Split.FORGET], rt)
    return Report(
        verdict=found[0].verdict,
        reason=found[0].reason,
        answers=under_recipe(single_model_answers(found, control, retrained=bool(count)), recipe),
        arms=() if isinstance(control, str) else (control.memory, control.signature),
        remarks=remarks(found, rows, count),
        next_steps=next_steps(AuditFacts(found, rows, tier, count, spent, recipe=recipe)),
        summary=summary_rows(rows, found, spent, recipe=recipe),
        tier=tier,
        findings=found,
        request_summary=asked,
        rows=rows,
        margins=margin_samples(evidence),
        rocs=roc_curves(evidence),
        classes=class_lines(evidence, parts.removed_classes),
        cost=spent,
        mask=None if done.mask is None else mask_summary(done.mask),
        recipe=recipe,
        provenance=provenance(done, oracles, rt),
        limits=limits(tier, count, recipe, outside=oracles is not None and oracles.outside),
        warnings=(*told, *splits.warnings, *_warnings(done, rows, count, asked), *batching),
    )


def _warnings(
    done: Unlearned, rows: Sequence[MetricRow], oracles: int, asked: RequestSummary
) -> tuple[str, ...]:
    return (*_headroom_warnings(rows, oracles), *_tampered_warnings(asked), *done.notes)


def _findings(
    done: Unlearned,
    rows: tuple[MetricRow, ...],
    evidence: Evidence,
    oracles: int,
    controls: ControlModels,
    control: PlaceboControl | str,
    recipe: RecipeCheck | None,
) -> tuple[Finding, ...]:
    """Return every verdict that holds; of the fast tier where there is no oracle."""
    gone = bool(done.parts.removed_classes)
    unchanged = _same(done.model, done.original, below_head=False)
    if not oracles:
        table = {r.metric: r for r in rows}
        return findings_of_fast_audit(FastAudit(table, evidence, controls, gone, unchanged))
    head_only = _same(done.model, done.original, below_head=True)
    placebo = None if isinstance(control, str) else control
    noise = partial(controls.label_noise, evidence)
    inputs = VerdictInputs(rows, gone, head_only, unchanged, oracles, placebo, recipe, noise)
    return mark_findings(judge(inputs), recipe)


def _batching_warnings(done: Unlearned, forget: View, rt: Runtime) -> tuple[str, ...]:
    told = batching_note(done.model, forget, done.case.task, rt)
    known = any(BATCHING in note for note in done.notes)
    return (told,) if told and not known else ()


def _strong(
    done: Unlearned,
    truth: Oracles | None,
    models: int,
    rt: Runtime,
    cache: Cache,
    ray: str | None,
    memory: AuditMemory,
    check: RecipeChecker,
    robustness: bool,
) -> Report:
    """Return the reference audit of the model at hand, and the ensembles' verdict on its method."""
    check_models(models)
    localizer = find_localizer(done, rt)
    subject = subject_of(
        done.case, done.request, done.method, rt, cache, localizer, ray,
        projection=done.projection, parts=done.parts,
    )  # fmt: skip
    asked = plan(subject, models, unlearn_seconds=done.seconds)
    rt.reporter.note(str(asked))
    start = time.perf_counter()
    signals = collect_margins(subject, models)
    if truth is None:
        truth = subject.retrained_models(min(models, ENOUGH_FOR_EQUIVALENCE))
    controls = ControlModels(done.case, done.parts, rt, cache)
    check = replace(check, training=subject.originals)
    settings: dict[str, Any] = {"recipe_check": check, "robustness": robustness}
    one = audit_one_model(done, truth, AuditTier.REFERENCE, rt, controls, memory, **settings)
    by = () if localizer is None else (localizer.words,)
    told = (f"the mask was found anew on each original, by {words}" for words in by)
    own = [f for f in one.findings if f.verdict not in _OPEN]
    judged = judge_method(subject, signals, done, controls, own=own, recipe=one.recipe)
    table, found = judged.table, judged.findings
    facts = AuditFacts(
        found, table.rows, AuditTier.STRONG, len(truth), one.cost, table.models, one.recipe
    )
    return one.model_copy(
        update={
            "tier": AuditTier.STRONG,
            "verdict": found[0].verdict,
            "reason": found[0].reason,
            "answers": judged.answers,
            "remarks": strong_remarks(table),
            "next_steps": next_steps(facts),
            "summary": summary_rows(
                one.rows, found, one.cost, table.rows, table.arm("memory"), one.recipe
            ),
            "findings": found,
            "limits": (*strong_limits(table), *recipe_limits(one.recipe)),
            "warnings": (*table.warnings, *told, *one.warnings),
            "provenance": one.provenance.model_copy(update={"design": table.design}),
            "strong": _summary_of(table, subject.name, asked.train, time.perf_counter() - start),
        }
    )


def _summary_of(table: StrongResults, signals: str, trained: int, seconds: float) -> StrongSummary:
    return StrongSummary(
        models=table.models,
        distinct=table.distinct,
        rows=table.rows,
        exposure=table.exposure,
        arms=table.arms,
        placebo=table.placebo,
        laws=table.laws,
        degrees=table.degrees,
        strata=table.strata,
        detectable=None if math.isnan(table.detectable) else table.detectable,
        signals=signals,
        trained_models=trained,
        seconds=seconds,
    )


_OPEN = {Verdict.INCONCLUSIVE, Verdict.MATCHES, Verdict.MEMORY_GONE}
"""What a few oracles leave open about one model; the ensembles answer that."""


def _audited(
    done: object,
    original: object,
    case: object,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    rt: Runtime,
) -> Unlearned:
    """Return what is audited; a model of another tool is put into the same form."""
    if isinstance(done, nn.Module):
        return unlearned_outside(done, original, case, request, rt)
    if not isinstance(done, Unlearned):
        raise InputError(
            f"audit: expected what unlearn returned, got {type(done).__name__}; pass"
            " done = uk.unlearn(model, case, request, method), or a torch module with original=,"
            " case= and request="
        )
    if any(x is not None for x in (original, case, request)):
        raise InputError(
            "audit: original, case and request are known from what unlearn returned; leave them out"
        )
    return done


def _check_oracle_kind(oracle: object) -> None:
    if not isinstance(oracle, Oracles | None):
        raise InputError(
            f"audit: oracle: expected what uk.oracle returned, got {type(oracle).__name__}; pass"
            " oracle=uk.oracle(case, request), or uk.Oracles.from_models([...], request=request)"
        )


@dataclass(frozen=True)
class _ComparedOracles:
    """The oracles of an audit, their digests, and what is remembered of them."""

    oracles: Oracles
    names: tuple[str, ...]
    memory: AuditMemory

    @classmethod
    def of(cls, oracles: Oracles, memory: AuditMemory) -> _ComparedOracles:
        return cls(oracles, tuple(model_digest(m) for m in oracles.models), memory)


def _check_oracles(truth: _ComparedOracles, done: Unlearned, rt: Runtime) -> tuple[str, ...]:
    oracles, parts = truth.oracles, done.parts
    if oracles.case is not done.case or oracles.request != done.request:
        parts = oracles.case.partition(oracles.request)
    ours, theirs = done.parts.retain, parts.retain
    if ours is None or theirs is None or (ours is not theirs and ours.key() != theirs.key()):
        raise InputError(
            "oracle: trained for another request or other rows; make it from the audited case and"
            " request"
        )
    mine, its = done.case.training, oracles.case.training
    if mine is not None and its is not None and mine != its:
        raise InputError(
            "oracle: trained with another recipe or train_model than the original; make it from the"
            " audited case"
        )
    if dict(done.case.task.spec()) != dict(oracles.case.task.spec()):
        raise InputError("oracle: trained for another task; make it from the audited case")
    # What a method builds anew may be of another architecture; oracles are then of that one.
    rebuilt = bool(structural_difference(done.model, done.original))
    told: tuple[str, ...] = ()
    if oracles.outside:
        told = check_outside(oracles, truth.names, done.original, done.model)
    told += check_fresh(oracles, done.model if rebuilt else done.original, parts, rt)
    check_different(truth.names, "oracle")
    return told


def _oracle_models(
    truth: _ComparedOracles | None,
) -> tuple[dict[str, nn.Module], dict[str, dict[object, Any]]]:
    """Return the oracles by name, and what is known of each."""
    if truth is None:
        return {}, {}
    models = {f"oracle/{k}": m for k, m in enumerate(truth.oracles.models)}
    return models, {f"oracle/{k}": truth.memory.model(name) for k, name in enumerate(truth.names)}


def _known(
    done: Unlearned, truth: _ComparedOracles | None, evidence: Evidence
) -> dict[str, Reference] | None:
    """Return the known values of this original and these oracles; None where there are none.

    Untrained models, which some metrics draw, must come from one factory.
    """
    if truth is None or done.case.fresh is not truth.oracles.case.fresh:
        return None
    return truth.memory.table((model_digest(done.original), truth.names, evidence.context_key))


def _same(model: nn.Module, original: nn.Module, *, below_head: bool) -> bool:
    names = [n for n, _ in original.named_parameters()]
    head = names[-1].rpartition(".")[0] if below_head and names else None
    ours, theirs = dict(model.named_parameters()), dict(original.named_parameters())
    watched = [n for n in names if head is None or n.rpartition(".")[0] != head]
    if any(n not in ours or ours[n].shape != theirs[n].shape for n in names):
        return False
    return bool(watched) and all(
        torch.equal(ours[n].detach().cpu(), theirs[n].detach().cpu()) for n in watched
    )


def _asked(
    done: Unlearned, parts: Partition, rows: Sequence[MetricRow], evidence: Evidence
) -> RequestSummary:
    assert parts.forget is not None
    twins, nearest = duplicates_and_nearest(parts, evidence.rt)
    bad = done.case.manipulated
    known = None if bad is None else bad.known_share(parts.forget.rows)
    room = {r.metric: h for r in rows if (h := headroom(r)) is not None}
    return RequestSummary(
        case=done.case.name,
        task=done.case.task.name,
        request=describe_request(done.request, len(parts.forget)),
        forget=len(parts.forget),
        retain=None if parts.retain is None else len(parts.retain),
        labels=target_counts(parts.forget),
        duplicates=twins,
        nearest=nearest,
        headroom={k: None if v == float("inf") else v for k, v in room.items()},
        enough_headroom=(
            enough_headroom(rows) if evidence.oracles >= ENOUGH_FOR_INTERVALS else None
        ),
        difficulty=difficulty(evidence),
        tampered_rows=None if bad is None else len(bad.rows),
        known_share=known,
        target="rows" if known in {None, 1.0} else "concept",
    )


def _tampered_warnings(asked: RequestSummary) -> list[str]:
    if asked.tampered_rows is None or asked.known_share is None or asked.known_share == 1:
        return []
    named = round(asked.known_share * asked.tampered_rows)
    return [
        f"the request names {named} of {asked.tampered_rows} rows that"
        " were tampered with: a model retrained without them still learns the others, so"
        " matching it corrects nothing; judge by accuracy_corrected, accuracy_elsewhere and"
        " attack_success"
    ]


def _headroom_warnings(rows: Sequence[MetricRow], count: int) -> list[str]:
    if count < ENOUGH_FOR_INTERVALS:
        return []
    answers = [h for r in rows if r.role in ANSWERS and (h := headroom(r)) is not None]
    if answers and max(answers) < HEADROOM:
        return [
            "almost no headroom: the original's accuracy or error is within"
            f" {HEADROOM:g} standard deviations of retrained models, so accuracy cannot tell"
            " methods apart on this forget set; only distances to retraining and attacks can"
        ]
    return []


def _spent(done: Unlearned, oracles: Oracles | None, parts: Partition) -> CostComparison:
    recipe = None if done.case.train_model else done.case.recipe
    rows = None if recipe is None or parts.retain is None else recipe.epochs * len(parts.retain)
    seconds, together = None, 1
    if oracles is not None and not oracles.outside:
        seconds = sum(r.seconds for r in oracles.runs) / len(oracles)
        together = max(r.together for r in oracles.runs)
    outside = isinstance(done.method, OutsideMethod)
    counted = done.cost.work > 0 or not (outside or done.case.train_model)
    return CostComparison(
        forward=done.cost.forward if counted else None,
        backward=done.cost.backward if counted else None,
        seconds=None if outside else done.seconds,
        peak_bytes=done.cost.peak_bytes,
        retrain_forward=rows,
        retrain_backward=rows,
        retrain_seconds=seconds,
        retrain_together=together,
        ratio=None if not rows or not counted else done.cost.work / (3 * rows),
        backward_ratio=None if not rows or not counted else done.cost.backward / rows,
    )
