"""Linear probe: a removable linear model on top of a frozen deep feature extractor."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from unlearnkit.core.errors import InputError
from unlearnkit.linear.certificate import Certificate
from unlearnkit.linear.losses import Array
from unlearnkit.linear.removable_model import RemovableModel

CONTEXT = {
    "other data": "the feature extractor was trained without any row of this data set",
    "differential privacy": "the feature extractor was trained with differential privacy, whose"
    " epsilon and delta add to those of this certificate",
    "these rows": "the feature extractor was trained on these rows, too: nothing is said of what it"
    " has kept of them",
}
"""What the training of an extractor adds to the assumptions."""


class LinearProbe:
    """A removable linear model on the features of a frozen network.

    Rows and labels are unlearned in the linear model alone; what the network has kept of a row is
    not touched, which the certificate says.

    Args:
        extractor: Network from inputs to features ``(B, D)``; run in eval mode, never changed.
        head: A removable linear model, unfitted.
        extractor_data: What the extractor was trained on. With ``these rows`` a budget is refused.
        batch_size: Rows that go through the network at once.
    """

    def __init__(
        self,
        extractor: nn.Module,
        head: RemovableModel,
        *,
        extractor_data: Literal["other data", "differential privacy", "these rows"],
        batch_size: int = 256,
    ) -> None:
        if extractor_data not in CONTEXT:
            raise InputError(
                f"LinearProbe: extractor_data must be one of {', '.join(CONTEXT)}, got"
                f" {extractor_data!r}"
            )
        if extractor_data == "these rows" and head.budget is not None:
            raise InputError(
                "LinearProbe: no certificate holds for an extractor that was trained on these rows;"
                " train one on other data, or set budget=None"
            )
        self.extractor, self.head, self.batch_size = extractor, head, batch_size
        self.extractor_data = extractor_data

    def features(self, x: Tensor) -> Array:
        """Return the features of inputs ``(N, ...)``, float64 ``(N, D)``."""
        modes = {m: m.training for m in self.extractor.modules()}
        try:
            self.extractor.eval()
            with torch.inference_mode():
                parts = [
                    self.extractor(part).double().cpu() for part in torch.split(x, self.batch_size)
                ]
        finally:
            for module, training in modes.items():
                module.training = training
        out: Array = torch.cat(parts).flatten(1).numpy()
        return out

    def fit(self, x: Tensor, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the linear model on the features of inputs ``(N, ...)``."""
        self.head._context = (CONTEXT[self.extractor_data],)
        self.head.fit(self.features(x), np.asarray(y), sample_weight)
        return self

    def predict(self, x: Tensor) -> Any:
        """Return the predictions ``(N,)``."""
        return self.head.predict(self.features(x))

    def score(self, x: Tensor, y: ArrayLike) -> float:
        """Return the head's score: accuracy, or R squared for regressors."""
        return float(self.head.score(self.features(x), np.asarray(y)))

    def unlearn(self, **request: Any) -> Certificate:
        """Unlearn rows or labels in the linear model; see its ``unlearn``.

        Args:
            **request: As the linear model takes it, but for ``features``: inputs of the network
                are no columns of the linear model.

        Returns:
            The certificate.

        Raises:
            InputError: If features are named.
        """
        if request.get("features") is not None:
            raise InputError(
                "LinearProbe: inputs of the network are no columns of the linear model; name rows"
                " or labels"
            )
        return self.head.unlearn(**request)
