"""Back ends of attribution: the ways to predict a shift, behind one call."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.blended import BlendedAttribution
from unlearnkit.attribution.datamodel import DatamodelAttribution
from unlearnkit.attribution.influence import EkFacAttribution
from unlearnkit.attribution.leave_out_models import OracleAttribution
from unlearnkit.attribution.linear_head import LinearHeadAttribution
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.attribution.trak import TrakAttribution
from unlearnkit.cache import Cache
from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime

Attributor = Annotated[
    DatamodelAttribution
    | EkFacAttribution
    | TrakAttribution
    | LinearHeadAttribution
    | BlendedAttribution
    | OracleAttribution,
    Field(discriminator="kind"),
]
"""How a shift is predicted. Given by ``kind``."""

REQUESTS = (1, 10, 100)
"""Over how many requests a precomputation is spread, in notes."""


def predict_shift(
    subject: AttributedModel,
    how: Attributor,
    rt: Runtime,
    *,
    read: View | None = None,
    cache: Cache | None = None,
    who: str = "attribution",
) -> PredictedShift:
    """Return by how much retraining without the forget set moves each output.

    Args:
        subject: A trained model, its training rows, and which of them go.
        how: The back end with its settings.
        rt: Where to compute; gets the notes, and the precomputation on its meter.
        read: The N rows whose shift is predicted; all training rows when None.
        cache: Where what serves other requests is kept; the user's cache when None.
        who: Whose notes they are.

    Returns:
        The shift ``(N, K)`` with its quality.
    """
    found = how.predict(subject, subject.train if read is None else read, rt, cache or Cache())
    rt.cost.precomputation += found.work
    for note in (found.quality.sentence(), _spent(subject, found), *found.notes):
        if note:
            rt.note(f"{who}: {note}")
    return found


def _spent(subject: AttributedModel, found: PredictedShift) -> str:
    """Return what was precomputed, in retrainings, spread over several requests."""
    recipe, stay = subject.training, int((~subject.forget).sum())
    if not found.work or not isinstance(recipe, Recipe):
        return ""
    each = found.work / (3 * max(recipe.epochs, 1) * stay)
    spread = ", ".join(f"{each / k:.3g}" for k in REQUESTS)
    counts = ", ".join(map(str, REQUESTS[:-1]))
    return (
        f"precomputation of {found.source}: as much as {each:.3g} retrainings; it is kept in the"
        f" cache and serves every request on these rows ({spread} retrainings a request over"
        f" {counts} or {REQUESTS[-1]} requests); it is not part of the cost of this run"
    )
