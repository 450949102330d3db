"""What ensembles of models show in a strong audit, as values."""

from __future__ import annotations

from typing import Literal

from unlearnkit.report.row_schema import Estimate, MarginSample, MetricRow, Value
from unlearnkit.stats.oracle_gap import Judgement


class RecordComparison(Value):
    """How two arms of models differ on one row of the forget set."""

    epsilon: float | None
    """Lower bound of their distance, corrected for the number of rows; nats."""

    accuracy: float | None
    """Of the attack that tells them apart by this row; 0.5 is chance."""

    shift: float | None
    """Mean margin of the first minus that of the second, in deviations of the second."""


class RowExposure(RecordComparison):
    """What a strong audit says about one row of the forget set; itself: unlearned, retrained."""

    row: int
    """Its number in the training set."""

    memory: RecordComparison | None = None
    """Unlearned against placebo models; None without a placebo arm."""

    signature: RecordComparison | None = None
    """Placebo against retrained models."""


class ArmComparison(Value):
    """How two arms of models of a strong audit differ on the forget set."""

    name: Literal["memory", "signature", "likeness"]
    """Memory: unlearned against placebo models, which went through the same method and never saw
    the forget set. Signature: placebo against retrained. Likeness: unlearned against retrained."""

    auc: Estimate
    """Of U-LiRA: 0.5 = alike."""

    auc_floor: float | None
    """Of two equal sets of retrained models."""

    auc_original: float | None
    """Of originals against retrained models: what doing nothing gives."""

    judgement: Judgement
    """Of the AUC, compared with 0.5, the value of equal sets."""

    klom: float | None
    """Median over the records."""

    klom_floor: float | None
    shift: Estimate
    """Mean shift of margins, in deviations of the second arm; above 0 the first knows them
    better."""

    attack: Estimate | None
    """Difference in AUC of the membership attack against never-seen rows; of the signature,
    between placebo models and the retrained models that they were made from."""

    accuracy: Estimate
    """By how much fewer errors the first arm makes on the forget set."""

    accuracy_margin: float | None
    """Largest such difference that counts as none."""

    p: float | None
    """Of the permutation test."""

    records: int
    """Rows of the forget set."""

    familiar: int | None
    """Records exposed after correction that the first arm knows better."""

    strange: int | None
    """Records exposed after correction that it knows worse."""

    worst: float | None
    """Largest corrected bound on epsilon, nats."""

    detectable: float | None
    """Smallest mean shift that the permutation test sees with 80 % power, in deviations."""

    note: str = ""
    """Why numbers are missing."""


class Stratum(Value):
    """What the models of a strong audit show on a third of the forgotten rows."""

    by: str
    """What the rows are ordered by: ``memorisation``, ``difficulty`` or ``entanglement``."""

    part: str
    """``low``, ``middle`` or ``high``."""

    examples: int
    level: float
    """Mean over its rows: what having had a row adds to its probability, or takes from its error;
    what is missing in retrained models' probability, or their error; distance of features from the
    middle."""

    auc: Estimate
    """Of U-LiRA on these rows."""

    auc_floor: float | None
    """The same with the second set of retrained models in their place."""

    klom: float | None
    """Median."""

    klom_floor: float | None
    exposed: int | None
    """Rows with a corrected bound above 0."""


class StrongSummary(Value):
    """What ensembles of models show: of the method on this request, not of one model."""

    models: int
    """N: of originals, of unlearned models, of retrained ones, and of a second set of those."""

    distinct: int
    """How many of the unlearned models differ from each other."""

    rows: tuple[MetricRow, ...]
    """In each, ``oracle`` is the second set of retrained models in place of the unlearned ones."""

    exposure: tuple[RowExposure, ...]
    """Every forgotten row, the most exposed first."""

    arms: tuple[ArmComparison, ...] = ()
    """Memory, signature and likeness; likeness alone where there is no placebo arm."""

    placebo: str = ""
    """Why there is no placebo arm, or what holds of it."""

    laws: tuple[MarginSample, ...]
    """Margins of the most exposed rows over models; ``split`` names the row."""

    degrees: tuple[MarginSample, ...] = ()
    """How far each forgotten row still is on the way to the originals, mean over models: of these
    themselves, of the unlearned models and of the second set of retrained ones."""

    strata: tuple[Stratum, ...] = ()
    """Thirds of the forgotten rows."""

    detectable: float | None
    """Smallest shift that the audit sees with 80 % power, in deviations of retrained models."""

    signals: str
    """Digest of all that the margins depend on; also the name of their folder in the cache."""

    trained: int
    """Models that had to be trained for this audit."""

    seconds: float
    """What training, unlearning and looking took in this call."""

    @property
    def exposed(self) -> tuple[RowExposure, ...]:
        """Return the rows with a bound above 0: of memory, or of likeness without a placebo arm."""
        return tuple(e for e in self.exposure if (e if e.memory is None else e.memory).epsilon)

    def arm(self, name: str) -> ArmComparison | None:
        """Return the comparison of that name; None where there is none."""
        return next((a for a in self.arms if a.name == name), None)

    def row(self, metric: str) -> MetricRow | None:
        """Return the row of a metric; None where there is none."""
        return next((r for r in self.rows if r.metric == metric), None)
