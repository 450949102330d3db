"""The two answers: is the memory of the records gone, and is the model like a retrained one?"""

from __future__ import annotations

from collections.abc import Sequence

from unlearnkit.auditing.placebo_models import PlaceboControl
from unlearnkit.auditing.strong.arm_comparison import MEMORY_MARGIN
from unlearnkit.auditing.strong.results_table import StrongResults
from unlearnkit.auditing.verdicts_memory import ROWS, estimate_words
from unlearnkit.report.schema import Answer, ArmComparison, Finding, Verdict, as_sentence

_UNTESTED = "Not tested: there was no retrained model."


def strong_answers(found: Sequence[Finding], table: StrongResults) -> tuple[Answer, Answer]:
    """Return both answers of a strong audit.

    Args:
        found: Its findings.
        table: Its table.

    Returns:
        On memory, and on likeness.
    """
    return _memory(found, table), _likeness(found, table)


def _memory(found: Sequence[Finding], table: StrongResults) -> Answer:
    by = {f.verdict: f for f in reversed(found)}
    memory, power = table.arm("memory"), ""
    if memory is not None:
        power = _power(memory, "placebo")
    if Verdict.LEAKS in by:
        return _answer("memory", "no", f"No. {as_sentence(by[Verdict.LEAKS].reason)}", power)
    if Verdict.OVER_FORGOT in by:
        text = f"Gone, and more than gone. {as_sentence(by[Verdict.OVER_FORGOT].reason)}"
        return _answer("memory", "no", text, power)
    if memory is None:
        why = table.placebo or "no placebo control was run"
        return _answer("memory", "not shown", f"Not shown. {as_sentence(why)}", "")
    if Verdict.MEMORY_GONE in by:
        text = f"Yes, within limits. {as_sentence(by[Verdict.MEMORY_GONE].reason)}"
        return _answer("memory", "yes", text, power)
    opened = next(f for f in found if f.verdict is Verdict.INCONCLUSIVE and f.rows == ROWS)
    return _answer("memory", "not shown", f"Not shown. {as_sentence(opened.reason)}", power)


def _likeness(found: Sequence[Finding], table: StrongResults) -> Answer:
    like, signature = table.arm("likeness"), table.arm("signature")
    assert like is not None
    power = _power(like, "retrained")
    if any(f.verdict is Verdict.MATCHES for f in found):
        text = "Yes, within limits: equivalence is shown on every compared metric."
        return _answer("likeness", "yes", text, power)
    size = f"U-LiRA AUC {estimate_words(like.auc)}"
    if like.shift.value is not None:
        size += f", mean shift of margins {like.shift.value:+.2f} standard deviations"
    row = table.row("permutation_p")
    p = None if row is None else row.estimate.value
    if not _differs(found, like):
        return _answer("likeness", "not shown", f"Not shown. {size}.", power)
    text = f"No. Unlearned against retrained models: {size}, p = {p or 0.0:.3g}."
    if signature is not None and signature.shift.value is not None:
        text += (
            f" Of that, the signature of the algorithm: {signature.shift.value:+.2f} standard"
            f" deviations, U-LiRA AUC {estimate_words(signature.auc)}."
        )
    return _answer("likeness", "no", text, power)


def _differs(found: Sequence[Finding], like: ArmComparison) -> bool:
    """Return whether unlearned models are distinguished from retrained ones, or did damage."""
    exposed = (like.familiar or 0) + (like.strange or 0)
    return exposed > 0 or any(f.verdict in _DIFFERENT for f in found)


def single_model_answers(
    found: Sequence[Finding], placebo: PlaceboControl | str, *, retrained: bool
) -> tuple[Answer, Answer]:
    """Return both answers of an audit of one model.

    Args:
        found: Its findings.
        placebo: The comparison with placebo models, or why there is none.
        retrained: Whether it was compared with retrained models.

    Returns:
        On memory, and on likeness.
    """
    by = {f.verdict: f for f in reversed(found)}
    power = ""
    if not isinstance(placebo, str):
        arm = placebo.memory
        power = f"{_power(arm, f'{placebo.models} placebo')} Single records were not tested."
    if Verdict.LEAKS in by:
        memory = _answer("memory", "no", f"No. {as_sentence(by[Verdict.LEAKS].reason)}", power)
    elif Verdict.OVER_FORGOT in by:
        text = f"Gone, and more than gone. {as_sentence(by[Verdict.OVER_FORGOT].reason)}"
        memory = _answer("memory", "no", text, power)
    else:
        why = (
            placebo
            if isinstance(placebo, str)
            else f"{placebo.models} placebo models show no memory, and single records were not"
            f" tested: membership AUC {estimate_words(placebo.memory.auc)}, placebo models"
            f" {placebo.memory.auc_floor or 0.5:.3f}"
        )
        text = f"Not shown. {as_sentence(why)}"
        memory = _answer("memory", "not shown", text, power)
    if not retrained:
        return memory, _answer("likeness", "not tested", _UNTESTED, "")
    differing = [f for f in found if f.verdict in _DIFFERENT]
    if differing:
        # What was said of memory is not said again, where there is anything else to say.
        last = max(differing, key=lambda f: f.verdict in _SIGNATURE)
        return memory, _answer("likeness", "no", f"No. {as_sentence(last.reason)}", "")
    if Verdict.MATCHES in by:
        text = f"Yes, within limits. {as_sentence(by[Verdict.MATCHES].reason)}"
        return memory, _answer("likeness", "yes", text, "Single records were not tested.")
    opened = next((f for f in found if f.verdict is Verdict.INCONCLUSIVE), found[0])
    return memory, _answer("likeness", "not shown", f"Not shown. {as_sentence(opened.reason)}", "")


_SIGNATURE = {Verdict.DISTINGUISHABLE, Verdict.DAMAGED}

_DIFFERENT = {Verdict.DISTINGUISHABLE, Verdict.DAMAGED, Verdict.LEAKS, Verdict.OVER_FORGOT}


def _answer(question: str, answer: str, sentence: str, power: str) -> Answer:
    return Answer.model_validate(
        {"question": question, "answer": answer, "sentence": sentence, "power": power}
    )


def _power(arm: ArmComparison, against: str) -> str:
    if arm.detectable is None:
        return "So few models see no shift of any size reliably."
    margin = f"; margin of the AUC {MEMORY_MARGIN:g}" if against == "placebo" else ""
    return (
        f"Detectable with 80 % power: a mean shift of {arm.detectable:.2f} standard deviations of"
        f" {against} models{margin}."
    )
