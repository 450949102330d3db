"""Judgement of a method by ensembles: table, verdicts and both answers.

The one path from signals to verdicts: of the strong tier of ``audit``, and of the experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from unlearnkit.auditing.audit_evidence import evidence_of
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.label_noise import LabelNoise
from unlearnkit.auditing.memory_and_likeness import strong_answers
from unlearnkit.auditing.recipe_marks import mark_findings, under_recipe
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.strong.margin_store import MarginMatrix
from unlearnkit.auditing.strong.mask_transfer import distance_to_feature_mean
from unlearnkit.auditing.strong.placebo import reads_request
from unlearnkit.auditing.strong.results_table import StrongResults, strong_table
from unlearnkit.auditing.strong.train_ensembles import StrongAuditSpec
from unlearnkit.auditing.verdicts_strong import strong_findings
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import Answer, Finding
from unlearnkit.unlearning.run_method import Unlearned


@dataclass(frozen=True)
class MethodJudgement:
    """What N models of each kind say of a method."""

    table: StrongResults
    findings: tuple[Finding, ...]
    """Every verdict that holds, headline first."""

    answers: tuple[Answer, ...]
    """On memory, then on likeness."""


def judge_method(
    subject: StrongAuditSpec,
    signals: MarginMatrix,
    done: Unlearned,
    controls: ControlModels,
    *,
    own: Sequence[Finding] = (),
    recipe: RecipeCheck | None = None,
) -> MethodJudgement:
    """Return table, verdicts and answers of a strong audit.

    Args:
        subject: What the signals are of.
        signals: Of its models, as ``collect_margins`` returns them.
        done: One run of the method: gives the rows that are looked at, and their features.
        controls: Measure whether labels of the retain set are noisy, where a verdict depends on it.
        own: What the model at hand shows by itself, next to a few retrained ones.
        recipe: Whether the recipe gives models like the original; None where there was no check.

    Returns:
        The judgement.
    """
    rt = subject.rt
    table = strong_table(
        signals,
        rt,
        apart=distance_to_feature_mean(done, rt),
        reads_request=reads_request(subject.method, subject.localizer),
    )
    noise = partial(_label_noise, done, controls, rt)
    found = mark_findings(strong_findings(table, own, recipe, noise), recipe)
    return MethodJudgement(table, found, under_recipe(strong_answers(found, table), recipe))


def _label_noise(done: Unlearned, controls: ControlModels, rt: Runtime) -> LabelNoise:
    views = choose(done.case, done.parts, rt, infer_request(done.request, done.parts)).views
    return controls.label_noise(evidence_of(done, views, rt))
