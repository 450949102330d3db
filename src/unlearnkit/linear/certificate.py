"""Certificate of a removal: what is guaranteed, under which assumptions, and what it cost."""

from typing import Literal

from pydantic import Field

from unlearnkit.core.checked import Checked, FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.linear.gaussian_accounting import Accounting
from unlearnkit.linear.noise import NoiseSource

Evidence = Literal["exact", "certified", "approximate"]
"""What kind of evidence a certificate is."""


class RemovalBudget(Checked):
    """The guarantee that each release must keep, and the noise that pays for it."""

    epsilon: float = Field(gt=0)
    """Largest log-ratio of probabilities; smaller is stronger."""

    delta: float = Field(gt=0, lt=1)
    """Probability with which the ratio may be exceeded."""

    sigma: float = Field(gt=0)
    """Standard deviation of the noise: of the tilt in the objective, or of the released weights."""

    perturbation: Literal["objective", "output"]
    """Where the noise enters: once into the training objective (Guo et al.), or into the weights at
    each release (Sekhari et al.)."""

    noise: NoiseSource
    """``system`` for entropy of the operating system, or a number: a recorded seed."""

    row_norm: float = Field(1.0, gt=0)
    """Largest Euclidean norm of a row, the intercept's column of ones included."""

    rows_outside: Literal["refuse", "rescale"] = "refuse"
    """What to do with longer rows: an error, or scaled down to that norm, at prediction too."""

    accounting: Accounting = "analytic"
    """Exact trade-off of Gaussians, or the formula of Guo et al."""

    charge: Literal["bound", "uniform", "measured"] = "bound"
    """What is charged: the data-dependent bound of the residual; a bound that holds for all draws
    of the noise, so that serving a request does not depend on it (looser; ``newton_removal``
    alone); or the residual itself, which needs the rows."""


class Certificate(FrozenModel):
    """What is known of the model after a request, and on which assumptions that rests."""

    evidence: Evidence
    """``exact``: equal to retraining up to rounding; ``certified``: (epsilon, delta)-close to
    retraining; ``approximate``: close by a bound, without a guarantee."""

    guarantee: str
    """The guarantee in one sentence."""

    assumptions: tuple[str, ...]
    """All that the guarantee rests on."""

    method: str
    """Removal algorithm."""

    rows: int
    """Training rows removed so far."""

    corrected_labels: int
    """Rows whose labels were changed so far."""

    features: tuple[int, ...]
    """Columns removed so far."""

    requests: int
    """Requests and repairs since the last fit."""

    gradient_residual: float
    """Bound on the gradient residual norm of the model on the data that stay."""

    measured_residual: float | None
    """The gradient residual norm itself, if the rows are at hand and it was computed."""

    distance: float | None
    """Bound on the Euclidean distance of the noiseless weights from the retrained ones; None where
    the penalty leaves a direction free or is not smooth."""

    budget: float | None
    """Largest residual that the noise hides; None without a budget."""

    budget_spent: float
    """Part of the budget that is spent: the bound above, or the measured residual if charged."""

    budget_left: float | None
    """What is left of the budget."""

    epsilon: float | None
    """Epsilon of this release at the budget's delta; None without a budget."""

    epsilon_sequence: float | None
    """Epsilon of all releases together at that delta, by composition of Gaussians; None where the
    noise is not drawn anew for each release."""

    delta: float | None
    """Delta of the budget."""

    noise: NoiseSource | None
    """Where the noise came from."""

    alignment: float | None
    """Norm of the removed rows' summed gradient over that of as many rows drawn at random: about 1
    for a random draw, more for rows that pull the same way; None where not a row request."""

    notes: tuple[str, ...] = ()
    """What a reader should know of this request."""

    def as_statement(self) -> EvidenceStatement:
        """Return the certificate for a report: guarantee, assumptions and numbers.

        Returns:
            The statement, exact or certified.

        Raises:
            InputError: If the certificate guarantees nothing.
        """
        if self.evidence == "approximate":
            raise InputError(
                "certificate: its evidence is approximate, which guarantees no likeness to"
                " retraining; audit without it, or fit the model with a budget"
            )
        done = ", ".join(
            f"{count} {what}{'' if count == 1 else 's'}"
            for count, what in (
                (self.rows, "row"),
                (self.corrected_labels, "label"),
                (len(self.features), "feature"),
                (self.requests, "request"),
            )
            if count
        )
        noise = "" if self.noise is None else ", noise from the system's entropy"
        if isinstance(self.noise, int):
            noise = f", noise from the recorded seed {self.noise}"
        return EvidenceStatement(
            kind=self.evidence,
            statement=self.guarantee,
            assumptions=self.assumptions,
            source=f"{self.method}: {done or 'no request'}{noise}",
            numbers={
                "epsilon": self.epsilon,
                "delta": self.delta,
                "epsilon of all releases": self.epsilon_sequence,
                "budget": self.budget,
                "budget spent": self.budget_spent,
                "budget left": self.budget_left,
                "gradient residual, bound": self.gradient_residual,
                "gradient residual, measured": self.measured_residual,
                "distance from retrained weights, bound": self.distance,
                "alignment of the removed rows": self.alignment,
            },
            notes=self.notes,
        )
