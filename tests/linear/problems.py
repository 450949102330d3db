"""Small made data sets for linear models, and what a model is after retraining."""

import numpy as np
import scipy.sparse as sp

from unlearnkit.linear import (
    RemovableLogisticRegression,
    RemovableMultinomialRegression,
    RemovablePoissonRegressor,
    RemovableRidge,
    RemovableSmoothHinge,
)

METHODS = ("newton_removal", "newton_step", "infinitesimal_jackknife")
KINDS = {
    "logistic": RemovableLogisticRegression,
    "multinomial": RemovableMultinomialRegression,
    "ridge": RemovableRidge,
    "hinge": RemovableSmoothHinge,
    "poisson": RemovablePoissonRegressor,
}


def made(kind, rows=300, width=6, seed=0):
    """Return rows of at most unit norm, and targets of a kind of model."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1.0)
    z = x @ rng.normal(size=width) * 3
    if kind == "ridge":
        return x, z + rng.normal(size=rows)
    if kind == "poisson":
        return x, rng.poisson(np.exp(z / 3)).astype(float)
    if kind == "multinomial":
        return x, (x @ rng.normal(size=(width, 3)) * 3 + rng.gumbel(size=(rows, 3))).argmax(1)
    return x, (z + rng.logistic(size=rows) > 0).astype(int)


def model(kind, alpha=1.0, **settings):
    return KINDS[kind](alpha, **settings)


def weights(fitted):
    return np.concatenate([np.ravel(fitted.coef_), np.ravel(fitted.intercept_)])


def sparse(x):
    return sp.csr_array(x)
