"""Blended attribution: models of random subsets, and the model's own last layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.datamodel import DatamodelAttribution
from unlearnkit.attribution.linear_head import LinearHeadAttribution
from unlearnkit.attribution.predicted_shift import PredictedShift
from unlearnkit.attribution.shift_quality import shift_quality
from unlearnkit.cache import Cache
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.data import View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange


class BlendedAttribution(FrozenModel):
    """The mean of a datamodel's shift and a linear head's, which err in different ways.

    A datamodel has the right size and noise of its own; a refitted last layer has no such noise,
    and is too small by one factor, because features do not move. The factor is the slope of the
    datamodel's shift on the head's, over all outputs: the noise leaves it alone.
    """

    kind: Literal["blended"] = "blended"
    """From both."""

    datamodel: DatamodelAttribution = DatamodelAttribution()
    """The models of subsets."""

    head: LinearHeadAttribution = LinearHeadAttribution()
    """The last layer."""

    weight: Annotated[float, SearchRange(0, 1)] = Field(0.5, ge=0, le=1)
    """Share of the head's shift: 0 is the datamodel alone."""

    def predict(
        self, subject: AttributedModel, read: View, rt: Runtime, cache: Cache
    ) -> PredictedShift:
        """Return the weighted mean of both shifts, the head's enlarged to the datamodel's size.

        Args:
            subject: The model, its rows, and how models are trained.
            read: The N rows.
            rt: Where to compute.
            cache: Where outputs of models are kept.

        Returns:
            The shift of this model's outputs; its quality is the datamodel's.
        """
        wide = self.datamodel.predict(subject, read, rt, cache)
        own = self.head.predict(subject, read, rt, cache)
        same = shift_quality(own.shift.expand(2, -1, -1), wide.shift.expand(2, -1, -1))
        factor = same.slope if same.slope > 0 else 0.0
        return replace(
            wide,
            shift=(1 - self.weight) * wide.shift + self.weight * factor * own.shift,
            source=f"{wide.source} with {own.source}",
            model=model_digest(subject.model),
            notes=(
                f"the datamodel and the last layer agree with a correlation of"
                f" {same.correlation:.2f}; the last layer's shift is multiplied by {factor:.3g}",
            ),
        )
