"""Fitted linear model: trains, predicts, certifies, and keeps its state on disk."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.linear.certificate import Certificate, RemovalBudget
from unlearnkit.linear.design_matrix import (
    data_digest,
    design_matrix,
    erase_rows,
    row_norms,
    without_columns,
)
from unlearnkit.linear.guarantee import Terms, certify, check_terms
from unlearnkit.linear.losses import Array, Loss, Matrix
from unlearnkit.linear.noise import gaussian_noise
from unlearnkit.linear.regularized_risk import MOST_DENSE, Risk
from unlearnkit.linear.removal import STEPS
from unlearnkit.linear.removal_state import NeedsRetrain, RemovalState, first_state
from unlearnkit.linear.risk_minimizer import minimize_risk, subgradient_norm
from unlearnkit.linear.state_file import read_state, write_state

RemovalMethod = Literal["newton_removal", "newton_step", "infinitesimal_jackknife"]


class FitInputError(InputError, ValueError):
    """Data or a setting that a model cannot be fitted with; scikit-learn reads a ``ValueError``."""


class FittedModel(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What all removable linear models share.

    Minimises ``sum_i s_i loss(w x_i, y_i) + alpha / 2 ((1 - l1_ratio) ||w||^2) + alpha l1_ratio
    ||w||_1``; retraining on fewer rows keeps ``alpha``, as scikit-learn's ``Ridge(alpha)`` and
    ``LogisticRegression(C=1 / alpha)`` do.

    Args:
        alpha: Strength of the penalty, at least 0; a budget needs more than 0.
        l1_ratio: Share of the absolute penalty: 0 is L2 alone, 1 is L1 alone (elastic net).
        fit_intercept: Whether to add a column of ones.
        penalize_intercept: Whether its weight has the squared penalty too; a budget needs that.
        method: ``newton_removal`` reads the rows that stay at each request; ``newton_step`` and
            ``infinitesimal_jackknife`` use stored factors of ``P^2`` numbers, P parameters, and
            cost ``O(P^2)`` for each row.
        budget: The guarantee to keep, and its noise; None trains without noise.
        keep_data: Keep a copy of the training data in the model, removed rows overwritten with
            zeros. Without it row and label requests bring the rows along, and others need
            ``attach``.
        tol: Gradient residual norm, relative to that of zero weights, from which ``fit`` warns.
        max_iter: Most iterations of the solver.

    Source: Guo et al., ICML 2020, arXiv:1911.03030; Sekhari et al., NeurIPS 2021,
    arXiv:2103.03279; Suriyakumar and Wilson, NeurIPS 2022, arXiv:2209.12269; Warnecke et al.,
    NDSS 2023, arXiv:2108.11577.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        penalize_intercept: bool = False,
        method: RemovalMethod = "newton_removal",
        budget: RemovalBudget | None = None,
        keep_data: bool = True,
        tol: float = 1e-8,
        max_iter: int = 200,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.penalize_intercept = penalize_intercept
        self.method = method
        self.budget = budget
        self.keep_data = keep_data
        self.tol = tol
        self.max_iter = max_iter

    # What a kind of model decides.

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _learn_targets(self, y: Array) -> Array:
        """Return targets as the loss reads them, and keep what that needs, such as classes."""
        raise NotImplementedError

    def _encode(self, labels: Sequence[Any]) -> Array:
        """Return new labels as the loss reads them; refuse what is none."""
        raise NotImplementedError

    def _outputs(self) -> int:
        return 1

    def _flat(self) -> bool:
        """Return whether ``coef_`` has one dimension, as with regressors."""
        return False

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags of the estimator: sparse input is fine."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # Fit and predict.

    def fit(
        self,
        X: Matrix,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train on some rows, with fresh noise if there is a budget.

        ``FitInputError``, a ``ValueError``, says what is wrong with data or settings;
        ``UnsupportedError`` that no certificate exists for this loss or penalty.

        Args:
            X: Rows ``(N, D)``, dense or sparse.
            y: Labels or targets ``(N,)``.
            sample_weight: Weight of each row ``(N,)``, at least 0; ones if None.

        Returns:
            The model itself.
        """
        self._check_settings()
        x, targets, weights = self._validated(X, y, sample_weight)
        self._fits = 0
        self._digest = data_digest(x, targets, weights)
        return self._train(x, targets, weights)

    def _validated(self, X: Matrix, y: Any, given: ArrayLike | None) -> tuple[Any, Any, Any]:
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=np.float64, y_numeric=self._flat()
        )
        targets = self._learn_targets(y)
        weights = np.ones(len(targets)) if given is None else np.array(given, dtype=np.float64)
        if weights.ndim == 0:
            weights = np.full(len(targets), float(weights))
        if weights.shape != (len(targets),) or not (weights >= 0).all():
            raise FitInputError(
                f"fit: sample_weight must be {len(targets)} numbers of at least 0, got shape"
                f" {weights.shape}"
            )
        if not weights.any():
            raise FitInputError("fit: every sample_weight is zero; give some rows a weight above 0")
        return self._with_intercept(X, check=True), targets, weights

    def _check_settings(self) -> None:
        if not self.alpha >= 0 or not 0 <= self.l1_ratio <= 1:
            raise FitInputError(
                "fit: alpha must be at least 0 and l1_ratio between 0 and 1, got"
                f" {self.alpha!r} and {self.l1_ratio!r}"
            )
        if self.method not in STEPS:
            raise FitInputError(f"fit: method must be one of {', '.join(STEPS)}")
        self._smallest_ridge = float(self._penalties(2)[0].min())
        self._context: tuple[str, ...] = getattr(self, "_context", ())
        free = self.fit_intercept and not self.penalize_intercept
        check_terms(self._terms(), intercept_is_free=free)

    def _train(self, x: Matrix, y: Array, weights: Array) -> Self:
        outputs = self._outputs()
        ridge, lasso = self._penalties(x.shape[1])
        tilt = np.zeros((outputs, x.shape[1]))
        b = self.budget
        if b is not None and b.perturbation == "objective":
            tilt = b.sigma * gaussian_noise(b.noise, f"tilt/{self._fits}", tilt.shape)
        risk = Risk(x, y, weights, self._loss(), outputs, ridge, lasso, tilt)
        self._check_size(risk)
        self._risk: Risk | None = risk
        done = minimize_risk(risk, np.zeros_like(tilt), steps=self.max_iter)
        scale = 1 + float(np.linalg.norm(risk.gradient(np.zeros_like(tilt))))
        if not done.residual <= self.tol * scale:
            _warn_not_exact(done.residual)
        self.n_iter_ = done.iterations
        state = first_state(
            risk,
            done.w,
            done.residual,
            factors=self._stores_factors(),
            row_norm=None if b is None else b.row_norm,
        )
        self._refuse_if_spent(state)
        if not self.keep_data:
            self._risk = _without_rows(risk)
        return self._release(state)

    def _penalties(self, width: int) -> tuple[Array, Array]:
        """Return the squared and the absolute penalty of each column."""
        ridge = np.full(width, float(self.alpha) * (1 - self.l1_ratio))
        lasso = np.full(width, float(self.alpha) * self.l1_ratio)
        if self.fit_intercept:
            lasso[-1] = 0.0
            ridge[-1] = float(self.alpha) if self.penalize_intercept else 0.0
        return ridge, lasso

    def _stores_factors(self) -> bool:
        return self.method != "newton_removal" and self.l1_ratio == 0

    def _check_size(self, risk: Risk) -> None:
        if risk.size > MOST_DENSE and (self._stores_factors() or self.l1_ratio > 0):
            raise UnsupportedError(
                f"fit: {self.method} would store {risk.size:,}^2 numbers, at most"
                f" {MOST_DENSE:,}^2 are allowed; choose method='newton_removal' and l1_ratio=0"
            )

    def _terms(self) -> Terms:
        return Terms(
            method=self.method,
            loss=self._loss(),
            smallest_ridge=self._smallest_ridge,
            smooth=self.l1_ratio == 0 or self.alpha == 0,
            budget=self.budget,
            context=self._context,
        )

    def _release(self, state: RemovalState) -> Self:
        """Publish the weights of a state, with noise if the budget puts it there."""
        w = state.w
        b = self.budget
        if b is not None and b.perturbation == "output":
            use = f"release/{self._fits}/{state.releases}"
            w = w + b.sigma * gaussian_noise(b.noise, use, w.shape)
        self._state = replace(state, releases=state.releases + 1)
        self._publish(w)
        return self

    def _refuse_if_spent(self, state: RemovalState) -> None:
        limit = self._terms().limit
        if limit is not None and state.budget_spent > limit:
            raise NeedsRetrain(
                f"budget: the gradient residual would be {state.budget_spent:.4g}, and the noise"
                f" hides at most {limit:.4g}; nothing has changed: call retrain with the same"
                " request, which draws fresh noise, or unlearn with repair=True"
            )

    def _publish(self, w: Array) -> None:
        self._released = w
        coef = w[:, :-1] if self.fit_intercept else w
        intercept = w[:, -1] if self.fit_intercept else np.zeros(len(w))
        self.coef_ = coef[0].copy() if self._flat() else coef.copy()
        self.intercept_ = float(intercept[0]) if self._flat() else intercept.copy()

    def _with_intercept(self, X: Matrix, *, check: bool) -> Matrix:
        """Return a copy of rows as the risk reads them, inside the norm bound of a budget."""
        b, longest = self.budget, self._longest_row()
        if b is not None and check and longest is None:
            room = self._room(b)
            lengths = row_norms(X)
            outside = int((lengths > room * (1 + 1e-12)).sum())
            if outside:
                raise FitInputError(
                    f"fit: {outside} rows are longer than {room:.4g}, what the budget's row_norm of"
                    f" {b.row_norm:g} leaves to the features; the longest has"
                    f" {lengths.max():.4g}; scale the data, raise row_norm, or choose"
                    " rows_outside='rescale'"
                )
        return design_matrix(X, intercept=self.fit_intercept, longest=longest)

    def _room(self, budget: RemovalBudget) -> float:
        """Return the largest norm of a row's features that the budget leaves."""
        return float(np.sqrt(max(budget.row_norm**2 - float(self.fit_intercept), 0.0)))

    def _longest_row(self) -> float | None:
        """Return the norm that longer rows are scaled down to; None where none are scaled."""
        b = self.budget
        if b is None or b.rows_outside != "rescale":
            return None
        return self._room(b) or None

    def _scores(self, X: Matrix) -> Array:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        x = self._with_intercept(X, check=False)
        w = self._released
        if self._state.dropped_columns:
            w = w.copy()
            w[:, list(self._state.dropped_columns)] = 0.0
        out: Array = np.asarray(x @ w.T)
        return out

    # Accounts.

    def _data(self, what: str) -> Risk:
        risk = self._risk
        if risk is None or not len(risk.y):
            raise InputError(
                f"unlearn: this request ({what}) reads the training rows, which the model does not"
                " have; call attach with the data of the fit first"
            )
        return risk

    def certificate(self, *, alignment: float | None = None, measure: bool = False) -> Certificate:
        """Return the certificate of the model as it is.

        Args:
            alignment: Of the last row request; ``unlearn`` fills it in.
            measure: Whether to measure the gradient residual norm, which reads all rows.

        Returns:
            The certificate.
        """
        check_is_fitted(self)
        measured = self.gradient_residual_norm() if measure else None
        return certify(self._terms(), self._state, alignment=alignment, measured=measured)

    def gradient_residual_norm(self) -> float:
        """Return the gradient residual norm, noise included, on the data that stay; 0 is exact.

        With an absolute penalty it is the norm of the smallest subgradient.
        """
        check_is_fitted(self)
        risk = self._data("residual")
        return subgradient_norm(risk, self._state.w, risk.gradient(self._state.w))

    # State on disk.

    def save(self, folder: str | Path) -> Path:
        """Write the state into a folder, whole or not at all: safetensors and a JSON file.

        It holds the weights without noise, the noise and the stored factors, but no training row:
        keep it private.

        Args:
            folder: Where; made if absent.

        Returns:
            The folder.
        """
        check_is_fitted(self)
        extra = {
            "fits": self._fits,
            "n_iter": self.n_iter_,
            "data": self._digest,
            "n_features_in": self.n_features_in_,
            "feature_names_in": [str(n) for n in getattr(self, "feature_names_in_", [])] or None,
            "classes": np.asarray(self.classes_).tolist() if hasattr(self, "classes_") else None,
        }
        return write_state(Path(folder), self._identity(), self._state, self._released, extra)

    def load(self, folder: str | Path) -> Self:
        """Take over the state that a model with the same settings has saved; refuse any other.

        Args:
            folder: Where ``save`` wrote.

        Returns:
            The model itself, without training data: see ``attach``.
        """
        state, released, extra = read_state(Path(folder), self._identity())
        self._fits, self._digest = int(extra["fits"]), str(extra["data"])
        self.n_iter_ = int(extra["n_iter"])
        self.n_features_in_ = int(extra["n_features_in"])
        if extra["feature_names_in"]:
            self.feature_names_in_ = np.array(extra["feature_names_in"], dtype=object)
        if extra["classes"] is not None:
            self.classes_ = np.array(extra["classes"])
        ridge, lasso = self._penalties(state.w.shape[1])
        self._smallest_ridge = float(ridge.min())
        self._context = getattr(self, "_context", ())
        none = np.empty((0, len(ridge)))
        self._risk = Risk(
            none, none[:, 0], none[:, 0], self._loss(), len(state.w), ridge, lasso, state.tilt
        )
        self._state = state
        self._publish(released)
        return self

    def attach(
        self,
        X: Matrix,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Give a loaded model its training data back, for requests that read the rows.

        Args:
            X: The rows of the fit, as they were then; contents of removed rows do not matter only
                if the model never had them, so give the same.
            y: The labels of the fit.
            sample_weight: The weights of the fit.

        Returns:
            The model itself.

        Raises:
            InputError: If they are not the data of the fit.
        """
        check_is_fitted(self)
        x, targets, weights = clone(self)._validated(X, y, sample_weight)
        if data_digest(x, targets, weights) != self._digest:
            raise InputError(
                "attach: these are not the data that the model was fitted on; give the same rows,"
                " labels and weights in the same order"
            )
        assert self._risk is not None
        state = self._state
        x = without_columns(x, state.dropped_columns)
        for row, target in state.new_labels.items():
            targets[row] = target
        gone = np.flatnonzero(state.removed_rows)
        weights[gone] = 0.0
        erase_rows(x, gone)
        self._risk = replace(self._risk, x=x, y=targets, weights=weights)
        return self

    def _identity(self) -> dict[str, str]:
        """Return what a state must have been saved by: class and settings."""
        return {"class": type(self).__name__} | {
            k: repr(v) for k, v in sorted(self.get_params(deep=False).items()) if k != "keep_data"
        }


def _without_rows(risk: Risk) -> Risk:
    return replace(risk, x=np.empty((0, len(risk.ridge))), y=np.empty(0), weights=np.empty(0))


def _warn_not_exact(residual: float) -> None:
    warnings.warn(
        f"fit: the solver stopped at a gradient residual norm of {residual:.3g}; raise max_iter or"
        " alpha, or scale the data",
        ConvergenceWarning,
        stacklevel=4,
    )
