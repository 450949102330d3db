"""Policy: when deletions run, how, and which verdicts are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_validator

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import read_yaml
from unlearnkit.core.method import format_validation_error
from unlearnkit.report.schema import Verdict

if TYPE_CHECKING:
    from unlearnkit.ledger.drift import Drift

FILE = "policy.yaml"


class BatchRule(FrozenModel):
    """When waiting requests are answered together."""

    at_least: int = Field(1, ge=1)
    """A batch begins when so many requests wait."""

    most: int = Field(1000, ge=1)
    """Requests of one batch."""

    longest_wait_days: float = Field(7.0, ge=0)
    """A batch begins when one request has waited so long, however few they are."""

    days_before_deadline: float = Field(7.0, ge=0)
    """A batch begins when a deadline is so near."""


class RetrainRule(FrozenModel):
    """When a batch is retrained whatever the other methods would do; each limit is off when None.

    Counted are batches since the model was last trained from scratch, so that small errors of
    hundreds of deletions one after another do not add up unseen.
    """

    batches: int | None = Field(None, ge=0)
    """Most batches that other methods answer one after another."""

    rows_share: float | None = Field(None, gt=0, le=1)
    """Most training rows that other methods remove one after another, as a share of all."""

    cost: float | None = Field(None, gt=0)
    """Most that other methods cost one after another, in retrainings."""

    test_error_rise: float | None = Field(None, ge=0)
    """Most by which the test error may rise, in the task's unit: 0.01 is one point of accuracy. A
    model beyond it is refused; the next method of the policy is tried, and retraining at last."""

    def due(self, before: Drift | None, rows: int, count: int) -> str:
        """Return why a batch must be retrained; empty where it need not.

        Args:
            before: The drift of the published model; None before the first batch.
            rows: Training rows of the batch.
            count: Training rows, those of the batch among them.

        Returns:
            The reason.
        """
        batches, removed, cost = (
            (0, 0, 0.0) if before is None else (before.batches, before.rows, before.cost)
        )
        since = "the original" if before is None else before.since
        share = (removed + rows) / (removed + count)
        if self.batches is not None and batches >= self.batches:
            return f"{batches} batches since {since}, the policy allows {self.batches}"
        if self.rows_share is not None and share > self.rows_share:
            return f"{share:.2%} of the rows since {since}, the policy allows {self.rows_share:.2%}"
        if self.cost is not None and cost >= self.cost:
            return f"cost {cost:.3g} since {since}, the policy allows {self.cost:.3g}"
        return ""

    def refuses(self, drift: Drift) -> str:
        """Return why a model is refused; empty where it is not."""
        rise, most = drift.test_error_rise, self.test_error_rise
        if rise is None or most is None or rise <= most:
            return ""
        return f"test error {rise:+.4f} since {drift.since}, the policy allows {most:+.4f}"


class Signer(FrozenModel):
    """Who signs certificates."""

    name: str = Field(min_length=1, max_length=200)
    """A role, such as ``data protection officer``; it stands in every certificate."""

    key: str = "signing.key"
    """The private key, Ed25519 in PEM; a path relative to the ledger."""


class CarrierPlaces(FrozenModel):
    """What may hold the data besides the ledger and the cache."""

    runs: tuple[str, ...] = ()
    """Folders that hold run folders; paths relative to the ledger."""

    checkpoints: tuple[str, ...] = ()
    """Weights or folders of weights; paths relative to the ledger."""

    mlflow: tuple[str, ...] = ()
    """Registered versions, such as ``models:/digits/3``."""

    adapters: tuple[str, ...] = ()
    """Adapters whose base is a model of this ledger."""

    others: tuple[str, ...] = ()
    """All else, in words, such as ``nightly backup of /srv``."""


class RegistryPlace(FrozenModel):
    """The registered model of MLflow that follows the ledger."""

    tracking_uri: str = ""
    """Such as ``https://mlflow.example`` or ``sqlite:////srv/mlflow.db``; what the variable
    MLFLOW_TRACKING_URI says when empty. No password: the policy is recorded for ever."""

    model: str = Field(pattern=r"^[^/@'`:]{1,200}$")
    """The name of the registered model."""

    alias: str = Field("champion", pattern=r"^[\w-]{1,200}$")
    """The alias that names the version in use."""

    experiment: str = "unlearnkit"
    """Whose runs hold the files; made where it is absent."""

    @field_validator("tracking_uri")
    @classmethod
    def _without_password(cls, uri: str) -> str:
        if re.match(r"[^/]+://[^/@]*:[^/@]*@", uri):
            raise ValueError("holds a password; leave it out, and set MLFLOW_TRACKING_URI")
        return uri


class LedgerPolicy(FrozenModel):
    """The rules of a ledger, from ``policy.yaml``."""

    signer: Signer
    tier: AuditTier = AuditTier.REFERENCE
    """Of the audit of every batch."""

    oracles: int = Field(5, ge=1)
    """Of tier reference: retrained models."""

    ensemble_size: int = Field(64, ge=4)
    """Of tier strong: models of each kind."""

    accept: tuple[Verdict, ...] = (Verdict.MATCHES, Verdict.MEMORY_GONE)
    """Verdicts with which a model is published."""

    accept_exact: tuple[Verdict, ...] = (
        Verdict.MATCHES, Verdict.MEMORY_GONE, Verdict.INCONCLUSIVE,
    )  # fmt: skip
    """Verdicts with which a retrained model is published: its evidence is not the audit alone."""

    methods: tuple[str, ...] = ("auto",)
    """Methods in the order in which they are tried."""

    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Hyper-parameters by method, where they are not the defaults."""

    retrain_at_end: bool = True
    """Whether the model is retrained where no method was accepted, whatever that costs."""

    max_cost: float = Field(2.0, gt=0, allow_inf_nan=False)
    """Most that the methods of a batch may cost, as a share of retraining; no further one is tried
    when it is spent. The retraining at the end is not counted."""

    retrain_when: RetrainRule = RetrainRule()
    """When a batch is retrained although other methods are named."""

    page: bool = True
    """Whether each report is drawn as a page, too, where the report extra is installed."""

    seed: int = Field(0, ge=0)
    device: str = "cpu"
    batch: BatchRule = BatchRule()
    answer_within_days: float = Field(30.0, gt=0)
    """Deadline of a request that names none, counted from its arrival."""

    notify: str = ""
    """Who must decide when a batch is rejected: a role or a mailbox."""

    carriers: CarrierPlaces = CarrierPlaces()

    registry: RegistryPlace | None = None
    """Where each published model is registered; nowhere when None."""

    @property
    def plan(self) -> tuple[str, ...]:
        """Return the methods to try in order, retraining at the end included."""
        wanted = self.retrain_at_end or self.retrain_when != RetrainRule()
        end = ("retrain",) if wanted and "retrain" not in self.methods else ()
        return (*self.methods, *end)

    def accepts(self, verdict: Verdict, *, exact: bool) -> bool:
        """Return whether a model with this verdict is published."""
        return verdict in (self.accept_exact if exact else self.accept)


TEMPLATE = """\
# The rules of this ledger. Every change is recorded at the next run.
signer:
  name: {signer}
  key: signing.key
tier: reference            # fast, reference or strong
oracles: 5                 # retrained models of a reference audit
methods: [auto]            # tried in order; retraining follows
retrain_at_end: true
retrain_when: {{}}           # such as {{batches: 50, rows_share: 0.05, test_error_rise: 0.01}}
max_cost: 2.0              # share of retraining, for all methods of a batch
accept: [MATCHES RETRAINING WITHIN LIMITS, MEMORY GONE WITHIN LIMITS]
accept_exact: [MATCHES RETRAINING WITHIN LIMITS, MEMORY GONE WITHIN LIMITS, INCONCLUSIVE]
answer_within_days: 30
batch: {{at_least: 1, most: 1000, longest_wait_days: 7, days_before_deadline: 7}}
notify: ""                 # who decides when a batch is rejected
carriers:                  # what else may hold the data
  runs: []
  checkpoints: []
  mlflow: []
  adapters: []
  others: []
registry: null   # {{tracking_uri: sqlite:////srv/mlflow.db, model: NAME, alias: champion}}
"""


def read_policy(ledger: Path) -> LedgerPolicy:
    """Return the policy of a ledger.

    Args:
        ledger: Its folder.

    Returns:
        The policy.

    Raises:
        InputError: If the file is missing, or a key or a value is wrong.
    """
    content = read_yaml(ledger / FILE, "policy", "signer, tier and accept")
    try:
        return LedgerPolicy.model_validate(content)
    except ValidationError as e:
        raise InputError(
            f"policy: {format_validation_error(e, LedgerPolicy)}; mend {FILE}"
        ) from None
