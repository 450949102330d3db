"""Placebo arm: the method, run on models that never saw the forget set.

Memory is what unlearned models show beyond it (Sekhari et al., NeurIPS 2021; Neel et al., ALT 2021:
the definitions of unlearning compare with the same algorithm on a model that never had the rows).
What it shows beyond retrained models is the signature of the algorithm.
"""

from __future__ import annotations

from torch import nn

from unlearnkit.core.border import first_line
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.method import Method, Need
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.unlearning.run_method import Unlearned, run_method

PLACEBO = "placebo"
"""Kind of these models: the second set of retrained models, each with the method's seed of the
unlearned model of its place, so that a method that ignores its model makes the same bits."""

CONSEQUENCE = (
    "so memory cannot be separated from the signature of the algorithm, and a difference from"
    " retrained models counts as memory"
)
"""What an audit without the placebo arm cannot say."""


class PlaceboRefusal(Exception):  # noqa: N818  # no error: the audit goes on without the arm
    """The method does not run on a model that never saw the forget set."""


def run_placebo(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | None,
    how: Method,
    rt: Runtime,
    *,
    mask: Mask | Localizer | None,
    projection: RetainedSubspace | None,
    parts: Partition,
) -> Unlearned:
    """Return what a method makes of a model that never saw the forget set; as ``run_method``.

    Input moments belong to the model at hand: where retained rows are, they are measured anew.

    Args:
        model: A retrained model.
        case: What it was trained on, but for the forget set.
        request: What the method must remove.
        how: The method.
        rt: Where to run.
        mask: What may move.
        projection: What is held.
        parts: The rows of the request.

    Returns:
        The result.

    Raises:
        PlaceboRefusal: If the method fails on such a model.
    """
    own = without_moments(case, parts)
    try:
        return run_method(
            model, own, request, how, rt, mask=mask, projection=projection, parts=parts
        )
    except Exception as e:  # the method's own code: the audit goes on without the arm
        raise PlaceboRefusal(first_line(e)) from e


def without_moments(case: Case, parts: Partition) -> Case:
    """Return a case for another model than its input moments are of: they are measured anew."""
    return case if parts.retain is None else case.replace(input_moments=None)


def reads_request(method: Method, localizer: Localizer | None = None) -> bool:
    """Return whether a method's result may depend on what is requested, given the retain set.

    A method that reads neither forget rows nor forgotten classes runs without a request as with
    one: its placebo without request is its placebo, bit for bit.

    Args:
        method: The method.
        localizer: How it is found what may move; all may when None.
    """
    read = method.info.needs | method.info.uses
    return localizer is not None or bool(read & {Need.FORGET, Need.CLASSES})


def left_out(why: str) -> str:
    """Return what a reader must know where the placebo arm is missing."""
    return (
        f"no placebo control: the method does not run on models that never saw the forget set"
        f" ({why}), {CONSEQUENCE}"
    )
