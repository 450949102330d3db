"""Guarantee of a model: evidence, sentence and assumptions, from its settings and its state."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.linear.certificate import Certificate, Evidence, RemovalBudget
from unlearnkit.linear.gaussian_accounting import gaussian_epsilon, shift_of
from unlearnkit.linear.losses import Loss, SquaredLoss
from unlearnkit.linear.removal_state import RemovalState

NOT_RANDOM = 2.0
"""Alignment from which a note says that the removed rows are no random draw."""

ALWAYS = (
    "retrained means: the same loss, penalty and settings, on the data that stay",
    "settings such as alpha were not chosen with the removed data; a search that would now choose"
    " others is not covered",
    "rounding of float64 arithmetic is not part of the bounds",
)
CERTIFIED = (
    "the loss is convex and alpha is above 0",
    "requests do not depend on models that were released before",
    "the bound is computed from the data: how much is left and when retraining is due may reveal"
    " something of them",
    "noise is a floating-point approximation of a Gaussian",
    "the state file and the weights without noise stay private",
)
NOISY_CHARGE = (
    "the charge depends on the noise through the weights: if the budget runs out for some draws of"
    " the noise only, probabilities change by as much as those draws weigh; charge='uniform' or"
    " noise in the output avoid that",
)
OBJECTIVE = (
    "the gradient residual counts as a shift that does not depend on the noise, as in the proof of"
    " Guo et al. (2020), Theorem 3",
    "the guarantee is for one release; whoever compares models from before and after a request"
    " learns more",
)
OUTPUT = ("the guarantee compares releases that all carry noise, also those without any request",)


@dataclass(frozen=True)
class Terms:
    """What decides the guarantee, apart from the state."""

    method: str
    """Removal algorithm."""

    loss: Loss
    """Loss of a row."""

    smallest_ridge: float
    """Smallest squared penalty of a column: strong convexity of the objective."""

    smooth: bool
    """Whether there is no absolute penalty."""

    budget: RemovalBudget | None
    """The guarantee to keep; None for none."""

    context: tuple[str, ...] = ()
    """More assumptions, such as on a feature extractor."""

    @property
    def limit(self) -> float | None:
        """Largest gradient residual norm that the noise hides; None without a budget."""
        b = self.budget
        if b is None:
            return None
        shift = shift_of(b.sigma, b.epsilon, b.delta, b.accounting)
        return shift if b.perturbation == "objective" else shift * self.smallest_ridge

    def epsilon(self, residuals: Sequence[float]) -> float | None:
        """Return epsilon of releases with these residuals and noise of their own each."""
        b = self.budget
        if b is None or self.limit is None:
            return None
        scale = b.sigma * (1.0 if b.perturbation == "objective" else self.smallest_ridge)
        ratio = float(np.linalg.norm(np.asarray(residuals, dtype=float))) / scale
        if b.accounting == "classical":
            return ratio / shift_of(1.0, 1.0, b.delta, b.accounting)
        return gaussian_epsilon(ratio, b.delta)


def check_terms(terms: Terms, *, intercept_is_free: bool) -> None:
    """Refuse a budget where no certificate is possible.

    Args:
        terms: Settings of the model.
        intercept_is_free: Whether there is an intercept without penalty.

    Raises:
        UnsupportedError: If the loss is not convex, the penalty not smooth, or no uniform bound
            exists.
        InputError: If alpha is 0, or the intercept has no penalty.
    """
    if terms.budget is None:
        return
    if not terms.loss.convex:
        raise UnsupportedError(
            f"budget: {type(terms.loss).__name__} is not convex, so that a small gradient does not"
            " mean that the model is close to a retrained one; choose a convex loss, or budget=None"
        )
    if not terms.smooth:
        raise UnsupportedError(
            "budget: no certificate is known for an absolute penalty; set l1_ratio=0, or"
            " budget=None"
        )
    if intercept_is_free:
        raise InputError(
            "budget: the certificate needs a penalty in every direction; set"
            " penalize_intercept=True or fit_intercept=False"
        )
    if terms.budget.charge == "uniform" and terms.method != "newton_removal":
        raise InputError(
            f"budget: charge='uniform' bounds steps of newton_removal, got {terms.method}; choose"
            " charge='bound'"
        )
    if terms.budget.charge == "uniform" and terms.loss.slope_bound() == float("inf"):
        raise UnsupportedError(
            f"budget: {type(terms.loss).__name__} has no bounded slope, which charge='uniform'"
            " needs; choose charge='bound'"
        )
    if not terms.smallest_ridge > 0:
        raise InputError(
            "budget: the certificate needs a strongly convex objective, got alpha 0; set alpha"
            " above 0"
        )


def certify(
    terms: Terms,
    state: RemovalState,
    *,
    alignment: float | None = None,
    measured: float | None = None,
) -> Certificate:
    """Return the certificate of the present model.

    Args:
        terms: Settings that decide the guarantee.
        state: After the last request.
        alignment: Of the rows that the last request removed.
        measured: Gradient residual norm on the data that stay, if it was computed.

    Returns:
        The certificate.
    """
    b, limit = terms.budget, terms.limit
    evidence = _evidence(terms)
    per_release = b is not None and b.perturbation == "output"
    strong = terms.smooth and terms.smallest_ridge > 0 and terms.loss.convex
    return Certificate(
        evidence=evidence,
        guarantee=_sentence(terms, evidence),
        assumptions=_assumptions(terms, evidence),
        method=terms.method,
        rows=int(state.removed_rows.sum()),
        corrected_labels=len(state.new_labels),
        features=state.dropped_columns,
        requests=len(state.history),
        gradient_residual=state.budget_spent if terms.smooth else float("inf"),
        measured_residual=measured,
        distance=state.budget_spent / terms.smallest_ridge if strong else None,
        budget=limit,
        budget_spent=state.budget_spent,
        budget_left=None if limit is None else limit - state.budget_spent,
        epsilon=terms.epsilon([state.budget_spent]),
        epsilon_sequence=terms.epsilon(state.history or [state.budget_spent])
        if per_release
        else None,
        delta=None if b is None else b.delta,
        noise=None if b is None else b.noise,
        alignment=alignment,
        notes=_notes(alignment),
    )


def _evidence(terms: Terms) -> Evidence:
    newton = terms.method != "infinitesimal_jackknife"
    if isinstance(terms.loss, SquaredLoss) and terms.smooth and newton:
        return "exact"
    return "approximate" if terms.budget is None else "certified"


def _sentence(terms: Terms, evidence: Evidence) -> str:
    b = terms.budget
    if evidence == "exact":
        said = "the weights without noise are those of the retrained model, up to rounding"
        return said if b is None else f"{said}; noise as for epsilon {b.epsilon:g}, {b.delta:g}"
    if b is not None:
        return (
            f"for every set of models, its probability under this model and under a retrained one"
            f" differ by at most a factor exp({b.epsilon:g}) and {b.delta:g} ((epsilon,"
            " delta)-certified removal)"
        )
    if not terms.smooth:
        return "none: a proximal Newton step towards the retrained model"
    return (
        "none of indistinguishability: a step towards the retrained model with a bounded residual"
    )


def _assumptions(terms: Terms, evidence: Evidence) -> tuple[str, ...]:
    said = list(ALWAYS)
    b = terms.budget
    if b is not None:
        said += CERTIFIED
        said += OBJECTIVE if b.perturbation == "objective" else OUTPUT
        if b.perturbation == "objective" and b.charge != "uniform":
            said += NOISY_CHARGE
        said.append(f"no row is longer than {b.row_norm:g}, which fit checked")
        if b.noise != "system":
            said.append("nobody who sees the model knows the recorded seed of the noise")
        if b.charge == "measured":
            said.append("the residual that is charged was measured on the data, not bounded")
    if evidence == "approximate" and not terms.smooth:
        said.append("the support of the weights may differ from the retrained model's")
    return (*said, *terms.context)


def _notes(alignment: float | None) -> tuple[str, ...]:
    if alignment is None or alignment < NOT_RANDOM:
        return ()
    return (
        f"the removed rows are no random draw: their gradients sum to {alignment:.1f} times the"
        " norm that as many random rows have; the residual grows with its square; repair() takes"
        " it down",
    )
