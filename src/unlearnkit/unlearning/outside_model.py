"""A model that another tool unlearned, checked and put into the form of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.outside_method import OutsideMethod
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.unlearning.run_method import Unlearned, check_outputs, reading_copy

NOTE = (
    "the model was unlearned outside unlearnkit: its method, settings and cost are not known here"
)


def unlearned_outside(
    model: nn.Module,
    original: object,
    case: object,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    rt: Runtime,
) -> Unlearned:
    """Return a model that another tool unlearned as what ``unlearn`` returns.

    Args:
        model: The unlearned model.
        original: The model before; of the same case.
        case: What the original was trained on.
        request: What was to be forgotten; None for a case made from parts.
        rt: Where the models are tried on a few rows.

    Returns:
        Both models, copied, with the circumstances; the cost is not known.

    Raises:
        InputError: If original or case are missing, or models do not fit the case.
    """
    if not isinstance(case, Case):
        raise InputError(
            "audit: a model by itself needs its circumstances; pass case=uk.Case(...),"
            " original=model_before, request=uk.Rows(...)"
        )
    if not isinstance(original, nn.Module):
        raise InputError(
            "audit: original: pass the model before unlearning, a torch module, got"
            f" {type(original).__name__}"
        )
    if model is original:
        raise InputError(
            "audit: model and original are one object; keep a copy from before unlearning:"
            " copy.deepcopy(model)"
        )
    asked = None if request is None else parse_request(request)
    split, quiet = case.partition(asked), rt.fork(rt.seed)
    copies = []
    for name, given in (("model", model), ("original", original)):
        try:
            copies.append(reading_copy(given, case, split, quiet))
            check_outputs(copies[-1], split, case, quiet)
        except InputError as e:
            raise InputError(f"audit: {name}: {e}") from None
    for copied, p in zip(copies[0].parameters(), model.parameters(), strict=True):
        copied.requires_grad_(p.requires_grad)
    return Unlearned(
        model=copies[0],
        original=copies[1],
        case=case,
        request=asked,
        method=OutsideMethod(),
        seed=0,
        seconds=0.0,
        cost=Cost(),
        notes=(NOTE, *quiet.notes),
    )
