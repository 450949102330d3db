"""What control models show beside retrained ones, on every bundled request.

    python -m experiments fast_audit

Writes ``docs/results/fast_audit.md``: the attack's AUC of a retrained model and of the control
model, the loss of accuracy (or gain of error) on test rows that retraining brings and that the two
control models predict, and whether the fast audit accuses the retrained model.
"""

from pathlib import Path

from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.control_models import CONTROL_SHARE, ControlModels
from unlearnkit.auditing.splits import choose
from unlearnkit.cache import Cache
from unlearnkit.cases.registry import bundled_requests
from unlearnkit.catalog import cases
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import oracle, train_original
from unlearnkit.report.schema import Verdict
from unlearnkit.stats.roc import auc
from unlearnkit.unlearning.run_method import run_method

OUT = Path("docs/results/fast_audit.md")
ACCUSATIONS = {Verdict.LEAKS, Verdict.OVER_FORGOT, Verdict.DAMAGED}


def attack(e: Evidence) -> float:
    """Return the AUC of margins, forget rows against never-seen rows."""
    return auc(*(e.margins(ModelRole.UNLEARNED, s) for s in (Split.FORGET, Split.HELD_OUT)))


def error(e: Evidence) -> float:
    """Return the mean error on test rows."""
    return float(e.errors(ModelRole.UNLEARNED, Split.TEST).mean())


def line(case_id: str, name: str) -> str:
    """Return the table's line of one request."""
    problem, rt = cases()[case_id].ask(name), Runtime()
    case, request = problem.case, problem.request
    parts = case.partition(request)
    views = choose(case, parts, rt, infer_request(request, parts)).views

    def evidence(model: object) -> Evidence:
        return Evidence({"unlearned": model}, views, case.task, rt)

    original = train_original(case).model
    retrained = evidence(oracle(case, request, seeds=1).models[0])
    controls = ControlModels(case, request, rt, Cache())
    without, both = (
        controls.without_forget_set(retrained),
        controls.with_forget_set(retrained),
    )
    report = audit(run_method(original, case, request, "retrain"), tier="fast")
    accused = ", ".join({str(f.verdict) for f in report.findings} & set(map(str, ACCUSATIONS)))
    held = Split.HELD_OUT in views
    cells = [
        case_id,
        name,
        f"{attack(retrained):.3f}" if held else "",
        f"{attack(without):.3f}" if held else "",
        f"{error(retrained) - error(evidence(original)):+.3f}",
        f"{error(without) - error(both):+.3f}",
        accused or "nothing",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the table."""
    lines = [
        "# Control models of the fast audit",
        "",
        "Written by `python -m experiments fast_audit`. A control is trained for"
        f" {CONTROL_SHARE:.0%} of the training. AUC: margin attack, forget set against"
        " never-seen rows. Change of the"
        " test error: of retraining, and of the control without the forget set less the control"
        " with it. The last column is what the fast audit accuses a retrained model of.",
        "",
        "| case | request | AUC, retrained | AUC, control | change of error, retrained"
        " | change of error, controls | accused of |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [line(*pair) for pair in bundled_requests(cases())]
    OUT.write_text("\n".join([*lines, ""]), encoding="utf-8")
