"""Linear and generalised linear models that can unlearn, with a certificate."""

import importlib
from typing import TYPE_CHECKING

from unlearnkit.linear.certificate import Certificate as Certificate
from unlearnkit.linear.certificate import RemovalBudget as RemovalBudget
from unlearnkit.linear.estimators import RemovableGLM as RemovableGLM
from unlearnkit.linear.estimators import RemovableLogisticRegression as RemovableLogisticRegression
from unlearnkit.linear.estimators import (
    RemovableMultinomialRegression as RemovableMultinomialRegression,
)
from unlearnkit.linear.estimators import RemovablePoissonRegressor as RemovablePoissonRegressor
from unlearnkit.linear.estimators import RemovableRidge as RemovableRidge
from unlearnkit.linear.estimators import RemovableSmoothHinge as RemovableSmoothHinge
from unlearnkit.linear.losses import Loss as Loss
from unlearnkit.linear.removal_state import NeedsRetrain as NeedsRetrain

if TYPE_CHECKING:
    from unlearnkit.linear.linear_probe import LinearProbe as LinearProbe
    from unlearnkit.linear.torch_export import linear_case as linear_case
    from unlearnkit.linear.torch_export import linear_network as linear_network

_NEED_TORCH = {
    "LinearProbe": "linear_probe",
    "linear_case": "torch_export",
    "linear_network": "torch_export",
}


def __getattr__(name: str) -> object:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
