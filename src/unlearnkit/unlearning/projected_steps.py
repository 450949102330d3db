"""Projection: gradient steps of any method, held where retained inputs are."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from unlearnkit.core.auto_method import Auto
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.method import Method
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.gradient_projection import (
    GradientProjection,
    LayerProjection,
    RetainedSubspace,
    retained_moments,
    retained_projections,
)
from unlearnkit.localize.method_masks import check_held, localizer_of_method


def check_projectable(how: Method, *, masked: bool) -> None:
    """Refuse a projection for a method that cannot keep to it.

    Args:
        how: The method.
        masked: Whether the run has a mask.

    Raises:
        UnsupportedError: If the method is ``auto``, takes no gradient steps, returns another model,
            or chooses by itself what may move.
        InputError: If there is a mask as well.
    """
    if isinstance(how, Auto):
        raise UnsupportedError(
            "auto: chooses among methods without a projection; name a method to use it with"
        )
    if masked:
        raise InputError(
            "projection: moves whole rows of a weight, which a mask would cut; give one of the two"
        )
    check_held(how, not how.info.replaces, "projection")
    if not how.info.gradient_steps:
        why = "takes no gradient steps"
    elif any(isinstance(v, RetainedSubspace) for v in vars(how).values()):
        why = "has a projection of its own, held"
    elif localizer_of_method(how) is not None:
        why = "chooses a mask by itself, which would cut what is projected"
    else:
        return
    raise UnsupportedError(
        f"{how.id} {why}, so its steps cannot be projected; use a method that trains the model,"
        " such as gradient_ascent"
    )


def project_steps(
    rt: Runtime,
    work: nn.Module,
    original: nn.Module,
    model: nn.Module,
    case: Case,
    split: Partition,
    how: RetainedSubspace,
) -> Runtime:
    """Return the same run, in which weights move outside what retained inputs span.

    The moments are those that the case has kept, without the forget rows; else they are measured on
    the retained rows; where these are not at hand, on the validation rows, which should then be of
    classes that stay.

    Args:
        rt: The run; its meter counts the measuring.
        work: The model that will be trained.
        original: A frozen copy of it.
        model: The trained model as it was given, which kept moments belong to.
        case: Gives kept moments and the task.
        split: The forget set and the retain set.
        how: How much is held.

    Returns:
        The run. Kept moments of another model or of other rows are refused, and what holds nothing
        or everything; and a case with neither kept moments, retained rows nor validation rows.
    """
    kept = case.input_moments
    if kept is not None:
        check_moments(case, model)
    unseen = None if case.validation is None else View.all(split.as_used(case.validation))
    moments = retained_moments(
        kept, original, split.forget, split.retain, case.task, rt, "projection", unseen
    )
    held = retained_projections(work, moments, how, rt)
    _check_held(held, how)
    some = [one for one in held if one.basis is not None]
    rt.note(
        f"projection {how.words}: {sum(one.rank for one in held):,} of"
        f" {sum(one.width for one in held):,} input directions are held, {len(some)} of"
        f" {len(held)} weights may move outside them; all else is frozen"
    )
    return replace(rt, holds=(*rt.holds, GradientProjection(work, held)))


def check_moments(case: Case, model: nn.Module) -> None:
    """Refuse a case's input moments that are of another model, or of other rows than its own.

    Args:
        case: Has input moments; its training rows, where it has them, are compared by digest.
        model: The trained model.
    """
    kept = case.input_moments
    assert kept is not None
    kept.check_model(model)
    if case.train is not None:
        kept.check_rows(View.all(case.train))


def _check_held(held: list[LayerProjection], how: RetainedSubspace) -> None:
    if all(one.basis is None for one in held):
        raise InputError(
            f"projection: {how.words} holds every direction of every weight, so nothing can move;"
            " lower its threshold"
            if held
            else "projection: the model has no weight whose inputs can be measured (linear,"
            " convolution, embedding, attention), so nothing can move"
        )
    if not any(one.rank for one in held):
        raise InputError(
            f"projection: {how.words} holds no direction of any weight, so it would change nothing;"
            " raise its threshold, or count the directions that reach it"
        )
