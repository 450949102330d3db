"""Numbers of a report as values: the lines of its tables, and what ensembles show."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Light = Literal["good", "bad", "unclear", "none"]


class Value(BaseModel):
    """Frozen, and without fields that nobody knows."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        # An infinite divergence or margin survives the trip through JSON.
        ser_json_inf_nan="strings",
    )


class Estimate(Value):
    """A number with its uncertainty; None where it is undefined, and then the note says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    """How the 95 % interval was made: Clopper-Pearson, DeLong, normal, none."""

    examples: int = 0
    """Rows behind the number."""

    note: str = ""


class OracleValue(Value):
    """The same metric, with each oracle in the place of the unlearned model."""

    mean: float | None
    sd: float | None
    """Standard deviation over oracles; None for fewer than two."""

    values: tuple[float | None, ...]


class Row(Value):
    """One line of the table."""

    metric: str
    family: str
    goal: str
    """``high``, ``low``, ``as the oracle`` or ``value``."""

    ideal: float | None
    """The best value: a constant of the metric, or the oracle's mean."""

    unit: str
    path: Literal["exact", "compat"]
    section: int
    """Where it stands in the order of the audit, 1 to 10."""

    estimate: Estimate
    original: Estimate | None
    """The same metric with the original model in the seat."""

    oracle: OracleValue | None
    gap: float | None
    """Estimate minus the oracles' mean."""

    gap_low: float | None = None
    gap_high: float | None = None
    z: float | None
    """Gap in oracle standard deviations; None for fewer than three oracles."""

    floor: float | None = None
    """For distances to the oracle: the oracle-oracle distance."""

    closed: float | None = None
    """For distances to the oracle: the share of the original's distance that was closed."""

    light: Light
    models: int
    """How many oracles stand behind the comparison."""

    doc: str
    role: str = "other"
    """Which question of the audit it answers: ``knowledge``, ``generalization``, ``utility``,
    ``attack``, ``distance`` or ``other``."""


class Sample(Value):
    """Margins of one model on one split, thinned for drawing."""

    who: str
    split: str
    values: tuple[float, ...]


class Exposure(Value):
    """What the models of a strong audit say about one forgotten row."""

    row: int
    """Its number in the training set."""

    epsilon: float | None
    """Lower bound of the distance from retraining, corrected for the number of rows; nats."""

    accuracy: float | None
    """Of the attack that tells unlearned models from retrained ones by this row; 0.5 is chance."""

    shift: float | None
    """Mean margin of unlearned models minus that of retrained ones, in the latter's deviations."""


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
    """The same with the second set of retrained models in the seat."""

    klom: float | None
    """Median."""

    klom_floor: float | None
    exposed: int | None
    """Rows with a corrected bound above 0."""


class Strong(Value):
    """What ensembles of models show: of the method on this request, not of one model."""

    models: int
    """N: of originals, of unlearned models, of retrained ones, and of a second set of those."""

    distinct: int
    """How many of the unlearned models differ from each other."""

    rows: tuple[Row, ...]
    """In each, ``oracle`` is the second set of retrained models in the unlearned ones' seat."""

    exposure: tuple[Exposure, ...]
    """Every forgotten row, the most exposed first."""

    laws: tuple[Sample, ...]
    """Margins of the most exposed rows over models; ``split`` names the row."""

    degrees: tuple[Sample, ...] = ()
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
    def exposed(self) -> tuple[Exposure, ...]:
        """Return the rows with a bound above 0."""
        return tuple(e for e in self.exposure if e.epsilon)

    def row(self, metric: str) -> Row | None:
        """Return the row of a metric; None where there is none."""
        return next((r for r in self.rows if r.metric == metric), None)
