"""Linear network: a fitted linear model as a torch module, for audits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from unlearnkit.core.case import Case
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.linear.estimators import RemovableMultinomialRegression
from unlearnkit.linear.losses import (
    LogisticLoss,
    Loss,
    MultinomialLoss,
    PoissonLoss,
    SmoothHingeLoss,
    SquaredLoss,
)
from unlearnkit.tasks.classification import Classification

if TYPE_CHECKING:
    from unlearnkit.linear.removable_model import RemovableModel


class LinearNetwork(nn.Module):
    """A linear layer in float64, with rows scaled down to a norm where the model does so.

    Args:
        features: Columns of a row.
        outputs: Scores of a row.
        longest: Largest norm of a row; longer ones are scaled down. No limit when None.
        link: ``identity``, or ``exponential`` for predicted rates.
    """

    def __init__(
        self, features: int, outputs: int, *, longest: float | None = None, link: str = "identity"
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(features, outputs, dtype=torch.float64)
        self.longest, self.link = longest, link

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or predictions ``(B, K)``, of rows ``(B, D)``."""
        if self.longest is not None:
            norm = x.norm(dim=1, keepdim=True)
            x = x * torch.where(norm > self.longest, self.longest / norm, torch.ones_like(norm))
        out: Tensor = self.layer(x)
        return out.exp() if self.link == "exponential" else out


KNOWN = (LogisticLoss, MultinomialLoss, SmoothHingeLoss, SquaredLoss)
"""Losses whose scores are logits or predictions."""


def _link(loss: Loss) -> str:
    if isinstance(loss, PoissonLoss):
        return "exponential"
    if not isinstance(loss, KNOWN):
        raise UnsupportedError(
            f"linear_network: the link of {type(loss).__name__} is not known; write the module"
            " yourself, from coef_ and intercept_"
        )
    return "identity"


def linear_case(
    make: Callable[[int], RemovableModel],
    *,
    train: tuple[ArrayLike, ArrayLike],
    test: tuple[ArrayLike, ArrayLike] | None = None,
    name: str = "case",
) -> Case:
    """Return a case whose originals and oracles are linear models, fitted by their own solver.

    ``uk.oracle`` then fits one a seed without the rows of the request, each with noise of its own,
    and ``uk.audit`` compares the released model with them.

    Args:
        make: From a seed to an unfitted linear model; a budget's ``noise`` should be that seed.
        train: The rows of the fit ``(N, D)``, and targets ``(N,)``; classes from 0.
        test: Rows and targets that it never saw.
        name: What to call the case in reports.

    Returns:
        The case.
    """
    first = make(0)
    rows, targets = (np.asarray(part) for part in train)
    classifier = is_classifier(first)
    classes = int(targets.max()) + 1 if classifier else 0
    outputs = classes if isinstance(first, RemovableMultinomialRegression) else 1

    def fresh() -> nn.Module:
        return LinearNetwork(
            rows.shape[1], outputs, longest=first._longest_row(), link=_link(first._loss())
        )

    def fit(network: nn.Module, data: Any, seed: int) -> nn.Module:
        x, y = (np.asarray(part) for part in data)
        fitted = make(seed).fit(x, y if classifier else y.ravel())
        network.load_state_dict(linear_network(fitted).state_dict())
        return network

    return Case(
        train=(rows, targets),
        test=test if test is None else tuple(np.asarray(part) for part in test),
        task=Classification(max(classes, 2)) if classifier else "regression",
        fresh=fresh,
        train_model=fit,
        version=f"{type(first).__name__} {first.get_params()}",
        name=name,
    )


def linear_network(model: RemovableModel) -> LinearNetwork:
    """Return the released weights of a fitted linear model as a torch module.

    Its outputs are those of a classifier's logits in the order of ``classes_`` (one logit for two
    classes), or a regressor's predictions. ``uk.audit`` takes it with the model's certificate.

    Args:
        model: Fitted; stays as it is.

    Returns:
        The module, in eval mode, float64. A loss of the user's own, whose link is not known, is
        refused.
    """
    check_is_fitted(model)
    link = _link(model._loss())
    weights = torch.from_numpy(model._released).clone()
    weights[:, list(model._state.dropped_columns)] = 0.0
    width = weights.shape[1] - int(model.fit_intercept)
    network = LinearNetwork(
        width,
        len(weights),
        longest=model._longest_row(),
        link=link,
    )
    with torch.no_grad():
        network.layer.weight.copy_(weights[:, :width])
        network.layer.bias.zero_()
        if model.fit_intercept:
            network.layer.bias.copy_(weights[:, width])
    return network.eval()
