"""Linear models that can unlearn, as scikit-learn estimators."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels

from unlearnkit.core.errors import InputError
from unlearnkit.linear.certificate import RemovalBudget
from unlearnkit.linear.fitted_model import FitInputError, RemovalMethod
from unlearnkit.linear.losses import (
    Array,
    LogisticLoss,
    Loss,
    Matrix,
    MultinomialLoss,
    PoissonLoss,
    SmoothHingeLoss,
    SquaredLoss,
)
from unlearnkit.linear.removable_model import RemovableModel


class _RemovableClassifier(ClassifierMixin, RemovableModel):  # type: ignore[misc]
    """Labels of any kind, numbered in order."""

    classes_: Any
    low, high = 0.0, 1.0
    """Targets of the first and second class, where there are two."""

    def _learn_targets(self, y: Any) -> Array:
        check_classification_targets(y)
        self.classes_ = unique_labels(y)
        if len(self.classes_) < 2:
            raise FitInputError(
                f"fit: one class only, {self.classes_[0]!r}; a classifier needs at least two"
                " classes"
            )
        if self._binary() and len(self.classes_) > 2:
            raise FitInputError(
                "Only binary classification is supported. The type of the target is multiclass:"
                f" {len(self.classes_)} classes; use RemovableMultinomialRegression"
            )
        return self._encode(y)

    def _binary(self) -> bool:
        return True

    def _encode(self, labels: Sequence[Any] | Array) -> Array:
        given = np.asarray(labels)
        known = {c: k for k, c in enumerate(self.classes_.tolist())}
        unknown = [v for v in given.tolist() if v not in known]
        if unknown:
            raise InputError(
                f"unlearn: label {unknown[0]!r} is no class of the model; there are:"
                f" {', '.join(repr(c) for c in known)}"
            )
        numbers = np.array([known[v] for v in given.tolist()], dtype=np.float64)
        return np.where(numbers > 0, self.high, self.low) if self._binary() else numbers

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: two classes, unless the loss takes more."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = not self._binary()
        return tags

    def decision_function(self, X: Matrix) -> Array:
        """Return the scores ``(N, C)``; with two classes that of the second alone ``(N,)``."""
        z = self._scores(X)
        if z.shape[1] == 2:
            return z[:, 1] - z[:, 0]
        return z[:, 0] if z.shape[1] == 1 else z

    def predict(self, X: Matrix) -> Any:
        """Return the likeliest class of each row ``(N,)``."""
        z = self._scores(X)
        at = (z[:, 0] > 0).astype(int) if z.shape[1] == 1 else z.argmax(axis=1)
        return self.classes_[at]


class RemovableLogisticRegression(_RemovableClassifier):
    """Logistic regression of two classes that can unlearn.

    With ``alpha = 1 / C`` and no budget it minimises what scikit-learn's ``LogisticRegression``
    does.
    """

    def _loss(self) -> Loss:
        return LogisticLoss()

    def predict_proba(self, X: Matrix) -> Array:
        """Return the probability of each class ``(N, 2)``."""
        p = expit(self._scores(X)[:, 0])
        return np.column_stack([1 - p, p])


class RemovableMultinomialRegression(_RemovableClassifier):
    """Multinomial logistic regression of any number of classes that can unlearn.

    One joint problem with a score for each class, so that a request has one Newton step and one
    bound.
    """

    def _loss(self) -> Loss:
        return MultinomialLoss()

    def _binary(self) -> bool:
        return False

    def _outputs(self) -> int:
        return len(self.classes_)

    def predict_proba(self, X: Matrix) -> Array:
        """Return the probability of each class ``(N, C)``."""
        out: Array = softmax(self._scores(X), axis=1)
        return out


class RemovableSmoothHinge(_RemovableClassifier):
    """Linear classifier of two classes with a smooth hinge loss that can unlearn.

    Args:
        smoothing: Width of the bend, in units of the score; small is close to the hinge.
    """

    low = -1.0

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        smoothing: float = 0.5,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        penalize_intercept: bool = False,
        method: RemovalMethod = "newton_removal",
        budget: RemovalBudget | None = None,
        keep_data: bool = True,
        tol: float = 1e-8,
        max_iter: int = 200,
    ) -> None:
        super().__init__(
            alpha,
            l1_ratio=l1_ratio,
            fit_intercept=fit_intercept,
            penalize_intercept=penalize_intercept,
            method=method,
            budget=budget,
            keep_data=keep_data,
            tol=tol,
            max_iter=max_iter,
        )
        self.smoothing = smoothing

    def _loss(self) -> Loss:
        if not self.smoothing > 0:
            raise FitInputError(f"fit: smoothing must be above 0, got {self.smoothing!r}")
        return SmoothHingeLoss(self.smoothing)


class _RemovableRegressor(RegressorMixin, RemovableModel):  # type: ignore[misc]
    """Real-valued targets."""

    def _flat(self) -> bool:
        return True

    def _learn_targets(self, y: Any) -> Array:
        return self._encode(y)

    def _encode(self, labels: Sequence[Any] | ArrayLike) -> Array:
        found = np.array(labels, dtype=np.float64)
        if not np.isfinite(found).all():
            raise FitInputError("targets must be finite numbers; leave such rows out")
        return found

    def predict(self, X: Matrix) -> Array:
        """Return the predicted target of each row ``(N,)``."""
        return self._scores(X)[:, 0]


class RemovableRidge(_RemovableRegressor):
    """Ridge regression that can unlearn: requests by a Newton step equal retraining.

    With the same ``alpha`` it minimises half of what scikit-learn's ``Ridge`` does.
    """

    def _loss(self) -> Loss:
        return SquaredLoss()


class RemovablePoissonRegressor(_RemovableRegressor):
    """Poisson regression with a log link that can unlearn.

    With ``alpha = N times`` that of scikit-learn's ``PoissonRegressor`` it minimises the same.
    """

    def _loss(self) -> Loss:
        return PoissonLoss()

    def _encode(self, labels: Sequence[Any] | ArrayLike) -> Array:
        found = super()._encode(labels)
        if (found < 0).any():
            raise FitInputError("targets of a Poisson model must be at least 0")
        return found

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags: counts are not negative."""
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags

    def predict(self, X: Matrix) -> Array:
        """Return the predicted mean count of each row ``(N,)``."""
        out: Array = np.exp(self._scores(X)[:, 0])
        return out


class RemovableGLM(_RemovableRegressor):
    """Linear model with a loss of your own that can unlearn.

    Args:
        loss: One score a row; says whether it is convex, and bounds its third derivative.
    """

    def __init__(
        self,
        loss: Loss,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        penalize_intercept: bool = False,
        method: RemovalMethod = "newton_removal",
        budget: RemovalBudget | None = None,
        keep_data: bool = True,
        tol: float = 1e-8,
        max_iter: int = 200,
    ) -> None:
        super().__init__(
            alpha,
            fit_intercept=fit_intercept,
            penalize_intercept=penalize_intercept,
            method=method,
            budget=budget,
            keep_data=keep_data,
            tol=tol,
            max_iter=max_iter,
        )
        self.loss = loss

    def _loss(self) -> Loss:
        return self.loss
