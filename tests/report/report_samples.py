"""Reports as an audit would write them, made from seeded margins of three kinds of model."""

import math

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.report.report import Report
from unlearnkit.report.schema import (
    Answer,
    ArmComparison,
    ClassAccuracy,
    CostComparison,
    Estimate,
    Finding,
    LayerShare,
    MarginSample,
    MaskSummary,
    MetricRow,
    NextStep,
    OracleValue,
    Provenance,
    RequestSummary,
    Roc,
    RowExposure,
    Stratum,
    StrongSummary,
    SummaryRow,
    Verdict,
)

SCRIPT = "<script>alert('π & co')</script>"


def row(metric, value, original, oracles=(), **more):
    """One line of the table, with what follows from its numbers filled in."""
    known = [o for o in oracles if o is not None]
    mean = float(np.mean(known)) if known else None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    gap = None if mean is None or value is None else value - mean
    defaults = {
        "metric": metric,
        "family": "behaviour",
        "goal": "match retraining",
        "ideal": mean,
        "unit": "fraction",
        "path": "exact",
        "section": 8,
        "estimate": Estimate(value=value),
        "original": None if original is None else Estimate(value=original),
        "oracle": OracleValue(mean=mean, sd=sd, values=tuple(oracles)) if oracles else None,
        "gap": gap,
        "z": gap / sd if gap is not None and sd and len(known) > 2 else None,
        "judgement": "not judged",
        "models": len(known),
        "doc": "Share of rows whose answer is right.",
    }
    return MetricRow(**{**defaults, **more})


def interval(value, low, high, method="Clopper-Pearson", examples=147, note=""):
    return Estimate(value=value, low=low, high=high, method=method, examples=examples, note=note)


def margins(seed=0, oracles=3):
    rng = np.random.default_rng(seed)
    centres = {"original": (7.5, 6.6), "unlearned": (-1.5, 6.2)}
    centres |= {f"oracle/{k}": (1.2 + 0.3 * k, 6.4) for k in range(oracles)}
    out = []
    for who, (forget, held) in centres.items():
        out.append(
            MarginSample(who=who, split="forget", values=tuple(rng.normal(forget, 2.2, 147)))
        )
        out.append(
            MarginSample(who=who, split="held_out", values=tuple(rng.normal(held, 2.6, 400)))
        )
    return tuple(out)


def rocs(samples, times=5):
    """Curves of the margin attack, by scikit-learn."""
    out = []
    for who in sorted({s.who for s in samples}):
        forget, held = (
            next(s.values for s in samples if s.who == who and s.split == split)
            for split in ("forget", "held_out")
        )
        held = np.concatenate([np.asarray(held) + 0.01 * i for i in range(times)])
        scores = np.concatenate([forget, held])
        truth = np.concatenate([np.ones(len(forget)), np.zeros(len(held))])
        fpr, tpr, _ = roc_curve(truth, scores)
        auc = roc_auc_score(truth, scores)
        out.append(
            Roc(who=who, fpr=tuple(fpr), tpr=tuple(tpr), auc=float(auc), negatives=len(held))
        )
    return tuple(out)


def full(**changes):
    """A reference audit: every verdict, every light, undefined values, a long name, infinity."""
    js = {"unit": "nats", "section": 2, "floor": 0.0017, "family": "divergence"}
    rows = (
        row(
            "js_forget", 0.0412, 0.5127, (0.0016, 0.0019, 0.0017), **js,
            gap_closed=0.9227, judgement="different", gap_low=0.0341, gap_high=0.0449,
            doc="Jensen-Shannon divergence from the oracle, on the forgotten rows.\n\n"
            "``JS(p, q) = KL(p | m) / 2 + KL(q | m) / 2`` with m the mean of both; 0 for equal\n"
            "outputs, ``ln 2`` for outputs that share nothing.\n\nArgs:\n    e: Evidence.",
        ),
        row(
            "kl_forget", math.inf, 2.31, (0.0021, 0.0024, 0.0018), **js, judgement="different",
            z=None, doc="Kullback-Leibler divergence of this model from the oracle.",
        ),
        row(
            "agreement_forget", 0.8912, 0.0204, (0.9932, 0.9864, 0.9932),
            section=2, family="divergence", floor=0.991, gap_closed=0.897, judgement="not shown",
            doc="Share of rows on which this model and the oracle give the same answer.",
        ),
        row(
            "margin_auc", 0.031, 0.612, (0.084, 0.072, 0.091), section=4, family="membership",
            estimate=interval(0.031, 0.018, 0.049, "DeLong", 2147),
            gap_low=-0.068, gap_high=-0.035, judgement="different",
            doc="How well the margin tells forgotten rows from never-seen rows: area under the\n"
            "curve. 0.5 is guessing; far below leaks as well.",
        ),
        row(
            "margin_tpr_at_fpr_0.001", None, None, (None, None, None), section=4,
            family="membership",
            estimate=Estimate(
                value=None, note="2,000 never-seen rows are too few; 10,000 are needed"
            ),
            doc="Share of forgotten rows found at a false-positive rate of 0.1 %.",
        ),
        row(
            "svm_mia_efficacy", 1.0, 0.0136, (0.9796, 0.9728, 0.9864), section=4,
            family="membership", path="compat", goal="descriptive",
            doc="Share of forgotten rows that an SVM calls non-member, as published.",
        ),
        row(
            "accuracy_forget", 0.0, 1.0, (0.0, 0.0, 0.0), estimate=interval(0.0, 0.0, 0.0248),
            judgement="equivalent", gap_low=-0.0, gap_high=0.0248,
        ),
        row(
            "accuracy_of_predictions_on_retained_rows_with_a_very_long_name", 0.9312, 1.0,
            (0.9992, 0.9992, 1.0), estimate=interval(0.9312, 0.916, 0.9445, examples=1290),
            goal="high", judgement="different", gap_low=-0.0834, gap_high=-0.0549,
        ),
        row(
            "accuracy_test", 0.9012, 0.9691, (0.9722, 0.966, 0.9691),
            estimate=interval(0.9012, 0.8636, 0.9313, examples=324), goal="high",
            judgement="not shown", gap_low=-0.1055, gap_high=-0.0378,
        ),
        row(
            "edit_size", 3.271, 0.0, (), section=8, unit="", goal="descriptive", family="weights",
            doc="Euclidean distance between new and old weights.",
        ),
        row(
            "cost_ratio", 0.0312, None, (), section=9, unit="", goal="low", family="cost",
            judgement="equivalent", doc="Work of unlearning over the work of retraining.",
        ),
        row(
            "tow", 0.8391, 0.0123, (0.9931, 0.9893, 0.9915), section=10, family="composite",
            floor=0.993, judgement="not shown",
            doc="Tug of war: product of one minus each accuracy gap.",
        ),
    )  # fmt: skip
    samples = margins()
    base = {
        "tier": AuditTier.REFERENCE,
        "verdict": Verdict.OVER_FORGOT,
        "reason": "the model knows the forget set worse than retrained models do: margin auc 0.031 "
        "[0.018, 0.049], retrained 0.082, gap -0.051 [-0.068, -0.035]",
        "remarks": (
            "Membership attack on the forget set: AUC 0.031 [0.018, 0.049]; retrained models 0.082;"
            " 0.5 = no leak.",
            "Minimum detectable difference in attack AUC: 0.027.",
            "This is evidence, not proof of deletion.",
        ),
        "next_steps": (NextStep(action="Weaken the method: fewer epochs.", seconds=42.0),),
        "summary": (
            SummaryRow(
                name="Accuracy, forget set",
                metric="accuracy_forget",
                model=0.0,
                low=0.0,
                high=0.0248,
                original=1.0,
                retrained=0.0,
                judgement="as retrained",
            ),
            SummaryRow(
                name="Membership attack AUC",
                metric="margin_auc",
                model=0.031,
                low=0.018,
                high=0.049,
                original=0.612,
                retrained=0.0823,
                judgement="over-forgot",
            ),
            SummaryRow(
                name="Cost (retraining = 1)",
                metric="",
                model=0.0332,
                retrained=1.0,
                judgement="cheaper",
            ),
        ),
        "findings": (
            Finding(
                verdict=Verdict.OVER_FORGOT,
                reason="Forgotten rows look worse than rows that were never seen: AUC gap -0.051 "
                "[-0.068, -0.035], beyond the margin of 0.02.",
                rows=("margin_auc", "js_forget"),
            ),
            Finding(
                verdict=Verdict.DAMAGED,
                reason="Accuracy on retained rows fell by 0.068 [0.055, 0.083]; the margin is "
                "0.01.",
                rows=("accuracy_of_predictions_on_retained_rows_with_a_very_long_name",),
            ),
            Finding(
                verdict=Verdict.INCONCLUSIVE,
                reason="The interval of the test accuracy's gap straddles its margin.",
                rows=("accuracy_test", "a_row_that_is_not_there"),
            ),
        ),
        "request_summary": RequestSummary(
            case="digits",
            task="classification",
            request="forget class 3",
            forget=147,
            retain=1290,
            labels={"3": 147},
            duplicates=0,
            nearest=0.4871,
            headroom={"accuracy_forget": 311.2, "js_forget": 204.5, "margin_auc": 54.1},
            enough_headroom=True,
        ),
        "rows": rows,
        "margins": samples,
        "rocs": rocs(samples),
        "classes": tuple(
            ClassAccuracy(
                label=k,
                forgotten=k == 3,
                examples=30 + k,
                original=0.97 + 0.003 * k,
                unlearned=0.0 if k == 3 else 0.88 + 0.01 * k,
                oracle=0.0 if k == 3 else 0.96 + 0.003 * k,
                forget_examples=147 if k == 3 else 0,
                forget_original=1.0 if k == 3 else None,
                forget_unlearned=0.0 if k == 3 else None,
                forget_oracle=0.0 if k == 3 else None,
            )
            for k in range(10)
        ),
        "cost": CostComparison(
            forward=5120,
            backward=1290,
            seconds=0.84,
            peak_bytes=48_234_496,
            retrain_forward=77_400,
            retrain_backward=77_400,
            retrain_seconds=14.2,
            ratio=0.0332,
            backward_ratio=0.0167,
        ),
        "provenance": Provenance(
            version="0.1.0",
            torch="2.13.0",
            device="cpu",
            precision="float32",
            time="2026-11-21T02:00:00Z",
            design="REUSE",
            method="neggrad_plus",
            settings={"balance": 0.1, "epochs": 2, "norm": "frozen", "layers": None},
            method_seed=0,
            oracle_seeds=(0, 1, 2),
            numerics=1,
            original="sha256:7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069",
            unlearned="sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            notes=("REUSE with a method that draws no random numbers: one point, not a sample.",),
        ),
        "limits": (
            "It sees averages; a few records may still be exposed, and only the strong tier would "
            "see them.",
            "It tests against three oracles; a difference smaller than 0.027 in AUC stays unseen.",
            "It does not test whether forgotten data return when the model is trained further.",
        ),
        "warnings": ("Headroom of accuracy_test is below 3 deviations; its row says little.",),
    }
    return Report(**{**base, **changes})


def hostile():
    """Names that are markup, control the terminal, run right to left or never end."""
    report = full()
    asked = report.request_summary.model_copy(
        update={
            "case": SCRIPT + "\x1b[31mrot\x1b[0m",
            "request": 'forget "naïve" <b>生徒</b> \u202e\u05d9\u05d9\u05d3\u05d9\u05e9 & '
            + "ä" * 120,
            "labels": {f"Straße {k} <i>": 1 + k for k in range(30)},
            "duplicates": 3,
            "enough_headroom": False,
            "target": "concept",
        }
    )
    spans = [
        r.model_copy(update={"doc": f"Doc with {SCRIPT} and ``code<{SCRIPT}>``.", "unit": "<u>"})
        for r in report.rows
    ]
    odd = row(
        "mean_error", -3.2e7, 1.5e7, (2.5e7, 1.25e7, 1.0e7), judgement="not shown", unit="<u>",
        estimate=interval(-3.2e7, -4.44e7, 2.22e7, note=SCRIPT), gap_low=-7.1e7, gap_high=-2.5e7,
    )  # fmt: skip
    return report.model_copy(
        update={
            "request_summary": asked,
            "rows": (*spans, odd),
            "reason": SCRIPT,
            "warnings": (SCRIPT,),
        }
    )


def bare():
    """A fast audit of a regression: no oracle, no curve, no margins, no classes."""
    report = full()
    lines = tuple(
        row(name, value, original, (), unit="target units", judgement="not judged", doc=doc)
        for name, value, original, doc in (
            ("error_forget", 52.31, 44.87, "Mean absolute error on the forgotten rows."),
            ("error_test", 51.2, 50.9, "Mean absolute error on the test rows."),
        )
    )
    return report.model_copy(
        update={
            "tier": AuditTier.FAST,
            "verdict": Verdict.INCONCLUSIVE,
            "reason": "Fast tests passed. They cannot detect single memorised records",
            "remarks": ("This is evidence, not proof of deletion.",),
            "next_steps": (),
            "summary": (),
            "findings": (
                Finding(verdict=Verdict.INCONCLUSIVE, reason="The fast tier found nothing."),
            ),
            "request_summary": report.request_summary.model_copy(
                update={
                    "case": "diabetes",
                    "task": "regression",
                    "request": "forget 44 rows",
                    "retain": None,
                    "labels": {},
                    "duplicates": None,
                    "nearest": None,
                    "headroom": {},
                    "enough_headroom": None,
                }
            ),
            "rows": lines,
            "margins": (),
            "rocs": (),
            "classes": (),
            "warnings": (),
            "limits": (),
            "cost": CostComparison(
                forward=0, backward=0, seconds=0.0, peak_bytes=0, retrain_forward=None,
                retrain_backward=None, retrain_seconds=None, ratio=None, backward_ratio=None,
            ),
            "provenance": report.provenance.model_copy(
                update={"settings": {}, "oracle_seeds": (), "notes": ()}
            ),
        }
    )  # fmt: skip


def strong():
    """A strong audit: 70 exposed rows of 72, rows without a number, margins of two rows."""
    rng = np.random.default_rng(3)
    centres = {"original": 7.5, "unlearned": 1.0, "oracle": 4.0}
    rows = (
        row("permutation_p", 0.001, 0.001, (0.412,), section=2, judgement="different", goal="high"),
        row("epsilon_worst", 1.17, 1.21, (0.0,), section=3, judgement="different", unit="nats"),
        row(
            "ulira_auc",
            None,
            None,
            (None,),
            section=4,
            estimate=Estimate(value=None, note="fewer than 64 models of a kind"),
        ),
        row("ensemble_accuracy_retain", 0.996, 0.997, (0.9961,), gap_low=-0.001, gap_high=0.001),
    )
    exposure = tuple(
        RowExposure(
            row=1000 + i, epsilon=max(1.17 - i / 60, 0.0), accuracy=0.97 - i / 500, shift=-6.5
        )
        for i in range(72)
    )
    laws = tuple(
        MarginSample(
            who=who, split=f"row-{k}", values=tuple(rng.normal(centre + k / 1000, 0.8, 64))
        )
        for k in (1000, 1001)
        for who, centre in centres.items()
    )
    part = StrongSummary(
        models=64,
        distinct=64,
        rows=rows,
        exposure=exposure,
        laws=laws,
        arms=(
            arm("memory", 0.561, 0.17, 3),
            arm("signature", 0.998, -6.92, 137),
            arm("likeness", 0.997, -6.8, 134),
        ),
        placebo="the method reads neither forget rows nor classes",
        degrees=tuple(
            MarginSample(who=who, split="degree", values=tuple(rng.normal(centre, 0.1, 40)))
            for who, centre in (("original", 1.0), ("unlearned", 0.4), ("oracle", 0.0))
        ),
        strata=tuple(
            Stratum(
                by=by,
                part=part,
                examples=24,
                level=0.1 * k,
                auc=Estimate(value=0.5 + 0.1 * k, low=0.45 + 0.1 * k, high=0.55 + 0.1 * k),
                auc_floor=0.497,
                klom=1.25 + k,
                klom_floor=0.13,
                exposed_rows=10 * k,
            )
            for by in ("memorisation", "entanglement")
            for k, part in enumerate(("low", "middle", "high"))
        ),
        detectable=0.13,
        signals="ab" * 32,
        trained_models=192,
        seconds=81.2,
    )
    return full(tier=AuditTier.STRONG, strong=part, answers=answers())


def arm(name, auc, shift, exposed):
    """Two arms of 64 models on 143 records."""
    return ArmComparison(
        name=name,
        auc=Estimate(value=auc, low=auc - 0.01, high=min(auc + 0.01, 1.0)),
        auc_floor=0.502,
        auc_original=0.772,
        judgement="not shown",
        klom=4.29 if auc > 0.9 else 0.15,
        klom_floor=0.14,
        shift=Estimate(value=shift, low=shift - 0.06, high=shift + 0.06),
        attack=None,
        accuracy=Estimate(value=0.007),
        accuracy_margin=0.02,
        p=0.001,
        records=143,
        familiar=exposed,
        strange=0,
        worst=0.19,
        detectable=0.17,
    )


def answers():
    """Both answers, as long as they get."""
    return (
        Answer(
            question="memory",
            answer="no",
            sentence="No. Memory of the forget set remains: 3 of 143 records look too familiar.",
            power="Detectable with 80 % power: a mean shift of 0.17 standard deviations.",
        ),
        Answer(
            question="likeness",
            answer="no",
            sentence="No. " + "Unlearned against retrained models: U-LiRA AUC 0.997. " * 4,
            power="",
        ),
    )


def masked(layers=("stem", SCRIPT, "", "encoder.layers.11.self_attention.out_projection")):
    """A run under a mask, of layers with names that are long, empty or markup."""
    found = tuple(
        LayerShare(name=name, scalars=1000 * (k + 1), chosen=137 * k)
        for k, name in enumerate(layers)
    )
    mask = MaskSummary(
        criterion="weighted_grad", budget=0.3, granularity="channel", seed=0, layers=found
    )
    return bare().model_copy(update={"mask": mask})


SAMPLES = {"full": full, "hostile": hostile, "bare": bare, "masked": masked, "strong": strong}
