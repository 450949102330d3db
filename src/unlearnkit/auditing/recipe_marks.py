"""Recipe marks: what a recipe mismatch changes in findings, answers and limits."""

from __future__ import annotations

from collections.abc import Iterable

from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.report.schema import Answer, Finding, Verdict, as_sentence

MARK = "under a recipe that does not reproduce the model"
"""What every finding of an audit says whose recipe check found a mismatch."""


def mark_findings(found: Iterable[Finding], recipe: RecipeCheck | None) -> tuple[Finding, ...]:
    """Return findings; after a mismatch each but INCONCLUSIVE says under which recipe it stands.

    Args:
        found: Of an audit, headline first. None of them passes where there is a mismatch.
        recipe: The recipe check; None where there was none.

    Returns:
        As many findings, in the same order.
    """
    if recipe is None or recipe.outcome != "mismatch":
        return tuple(found)
    return tuple(
        f
        if f.verdict is Verdict.INCONCLUSIVE or f.reason.endswith(MARK)
        else f.model_copy(update={"reason": f"{f.reason}; {MARK}"})
        for f in found
    )


def under_recipe(answers: Iterable[Answer], recipe: RecipeCheck | None) -> tuple[Answer, ...]:
    """Return the answers of an audit; after a mismatch none is yes, and each says so.

    Args:
        answers: On memory and on likeness.
        recipe: The recipe check; None where there was none.

    Returns:
        As many answers.
    """
    if recipe is None or recipe.outcome != "mismatch":
        return tuple(answers)
    return tuple(map(_marked, answers))


def _marked(a: Answer) -> Answer:
    if a.answer == "yes":
        text = f"Not shown, {MARK}. {a.sentence}"
        return a.model_copy(update={"answer": "not shown", "sentence": text})
    if MARK in a.sentence:  # it quotes a finding
        return a
    return a.model_copy(update={"sentence": f"{a.sentence.rstrip('.')}; {MARK}."})


def recipe_limits(recipe: RecipeCheck | None) -> tuple[str, ...]:
    """Return what the recipe check left open; nothing where it came to an end, or was not due."""
    if recipe is None or recipe.outcome in {"reproduced", "mismatch"}:
        return ()
    return (as_sentence(recipe.sentence),)
