"""Report schema: every value that text, JSON and page show."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence_statement import EvidenceStatement
from unlearnkit.report.recipe_outcome import RecipeCheck
from unlearnkit.stats.oracle_gap import Judgement

Design = Literal["FULL", "REUSE"]


class Estimate(FrozenModel):
    """A number with its uncertainty; None where it is undefined, and then the note says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    """How the 95 % interval was made: Clopper-Pearson, DeLong, normal, none."""

    examples: int = 0
    """Rows behind the number."""

    note: str = ""


class OracleValue(FrozenModel):
    """The same metric of each retrained model."""

    mean: float | None
    sd: float | None
    """Standard deviation over oracles; None for fewer than two."""

    values: tuple[float | None, ...]


class MetricRow(FrozenModel):
    """One line of the table."""

    metric: str
    family: str
    goal: str
    """``high``, ``low``, ``match retraining`` or ``descriptive``."""

    ideal: float | None
    """The best value: a constant of the metric, or the oracle's mean."""

    unit: str
    path: Literal["exact", "compat"]
    section: int
    """Where it stands in the order of the audit, 1 to 10."""

    estimate: Estimate
    original: Estimate | None
    """The same metric of the original model."""

    oracle: OracleValue | None
    gap: float | None
    """Estimate minus the oracles' mean."""

    gap_low: float | None = None
    gap_high: float | None = None
    z: float | None
    """Gap in oracle standard deviations; None for fewer than three oracles."""

    floor: float | None = None
    """For distances to the oracle: the oracle-oracle distance."""

    gap_closed: float | None = None
    """For distances to the oracle: the share of the original's distance that was closed."""

    margin: float | None = None
    """Largest gap that counts as none; None where the gap is not judged."""

    judgement: Judgement
    """Of the gap to the oracles."""

    models: int
    """How many oracles stand behind the comparison."""

    doc: str
    role: str = "other"
    """Which question of the audit it answers: ``knowledge``, ``generalization``, ``utility``,
    ``attack``, ``distance`` or ``other``."""


class MarginSample(FrozenModel):
    """Margins of one model on one split, thinned for drawing."""

    who: str
    split: str
    values: tuple[float, ...]


class RecordComparison(FrozenModel):
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


class ArmComparison(FrozenModel):
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
    """Difference in AUC of the membership attack against never-seen rows; of memory alone."""

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


class Stratum(FrozenModel):
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
    """The same for the second set of retrained models."""

    klom: float | None
    """Median."""

    klom_floor: float | None
    exposed_rows: int | None
    """Rows with a corrected bound above 0."""


class StrongSummary(FrozenModel):
    """What ensembles of models show: of the method on this request, not of one model."""

    models: int
    """N: of originals, of unlearned models, of retrained ones, and of a second set of those."""

    distinct: int
    """How many of the unlearned models differ from each other."""

    rows: tuple[MetricRow, ...]
    """In each, ``oracle`` is the second set of retrained models."""

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

    trained_models: int
    """Models that had to be trained for this audit."""

    seconds: float
    """What training, unlearning and looking took in this call."""

    @property
    def exposed_rows(self) -> tuple[RowExposure, ...]:
        """Return the rows with a bound above 0: of memory, or of likeness without a placebo arm."""
        return tuple(e for e in self.exposure if (e if e.memory is None else e.memory).epsilon)

    def arm(self, name: str) -> ArmComparison | None:
        """Return the comparison of that name; None where there is none."""
        return next((a for a in self.arms if a.name == name), None)

    def row(self, metric: str) -> MetricRow | None:
        """Return the row of a metric; None where there is none."""
        return next((r for r in self.rows if r.metric == metric), None)


class Verdict(StrEnum):
    """What may be said, in the order of precedence: the headline is the first that holds."""

    LEAKS = "LEAKS"
    OVER_FORGOT = "OVER-FORGOT"
    DISTINGUISHABLE = "DISTINGUISHABLE"
    DAMAGED = "DAMAGED"
    INCONCLUSIVE = "INCONCLUSIVE"
    MATCHES = "MATCHES RETRAINING WITHIN LIMITS"
    MEMORY_GONE = "MEMORY GONE WITHIN LIMITS"


class Finding(FrozenModel):
    """A verdict that holds, and why."""

    verdict: Verdict
    reason: str
    """One sentence with the numbers that it rests on."""

    rows: tuple[str, ...] = ()
    """Ids of the table rows that it rests on."""


class Answer(FrozenModel):
    """The answer to one of the two questions of an audit."""

    question: Literal["memory", "likeness"]
    """Is the memory of the records gone? Is the model like a retrained one?"""

    answer: Literal["yes", "no", "not shown", "not tested"]
    sentence: str
    """The answer with its numbers."""

    power: str
    """What the test behind it could have seen; empty where nothing was tested."""


class Roc(FrozenModel):
    """The margin attack's curve: true positives over false positives."""

    who: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    auc: float
    negatives: int


class ClassAccuracy(FrozenModel):
    """Accuracy of each model on one class."""

    label: int
    forgotten: bool
    examples: int
    """Test rows of the class."""

    original: float | None
    unlearned: float | None
    oracle: float | None
    forget_examples: int
    forget_original: float | None
    forget_unlearned: float | None
    forget_oracle: float | None


class CostComparison(FrozenModel):
    """What unlearning cost, compared with retraining."""

    forward: int | None
    backward: int | None
    """Rows; None where another tool, or a training loop of the user's own, did not count them."""

    seconds: float | None
    peak_bytes: int
    retrain_forward: int | None
    retrain_backward: int | None
    retrain_seconds: float | None
    retrain_together: int = 1
    """Retrained models that were trained at once: the seconds are a share of what all took."""

    ratio: float | None
    """Work (rows forward plus twice rows backward) over that of retraining."""

    backward_ratio: float | None
    """Rows backward over those of retraining."""


class Difficulty(FrozenModel):
    """How hard the forget rows are, by scores that cost little; None where undefined."""

    confidence: float | None = None
    """Mean probability that the original gives the labels of the forget rows: a proxy of
    memorisation, which is higher where this is lower."""

    confidence_retained: float | None = None
    """The same of retained rows."""

    memorised: float | None = None
    """Confidence of the original on the forget rows less that of the oracles: the leave-out
    estimate of memorisation, all forget rows left out at once."""

    entanglement: float | None = None
    """Spread of last-layer inputs within forget and retained rows over the spread between them."""

    flip: float | None = None
    """Median least disagree metric of the forget rows: the share of rows that the least change of
    the last layer moves that moves the row."""

    flip_retained: float | None = None
    """The same of retained rows."""

    harder: dict[str, float] = Field(default_factory=dict)
    """By proxy of memorisation (``curvature``, ``hold_out``, ``influence``), the share of pairs in
    which a forgotten row scores above a retained one: 0.5 where they are alike."""


class LayerShare(FrozenModel):
    """How much of one layer a mask let move."""

    name: str
    """Empty for parameters that stand in no layer."""

    scalars: int
    chosen: int


class MaskSummary(FrozenModel):
    """What a mask let move; all else has kept every bit."""

    criterion: str
    budget: float
    """Requested fraction of the trainable scalars."""

    granularity: str
    seed: int
    layers: tuple[LayerShare, ...]
    """In the model's order."""


class RequestSummary(FrozenModel):
    """The request, and how hard it is."""

    case: str
    task: str
    request: str
    """In words: ``forget class 3``."""

    forget: int
    retain: int | None
    labels: dict[str, int]
    """How many forget rows there are of each target; empty for real targets."""

    duplicates: int | None
    """Forget rows that also stand among the retained rows, inputs bit for bit."""

    nearest: float | None
    """Median distance from a forget row to the nearest retained row, in input units."""

    headroom: dict[str, float | None]
    """Metric by metric: gap between original and oracle, in oracle standard deviations."""

    enough_headroom: bool | None
    """Whether any gap is at least 3 oracle deviations; None without three oracles."""

    difficulty: Difficulty = Difficulty()
    tampered_rows: int | None = None
    """Training rows that somebody tampered with; None where nothing is known of such."""

    known_share: float | None = None
    """Share of them that the request names."""

    target: Literal["rows", "concept"] = "rows"
    """Removing rows is judged against retraining; removing a concept may need another target."""


class Provenance(FrozenModel):
    """Where the numbers come from."""

    version: str
    torch: str
    device: str
    precision: str
    time: str
    """UTC, ISO 8601."""

    design: Design
    """FULL: every unlearned model from its own original. REUSE: one original."""

    method: str
    settings: dict[str, object]
    method_seed: int
    oracle_seeds: tuple[int, ...]
    """Of models that were retrained here."""

    outside_oracles: tuple[str, ...] = ()
    """Digests of the weights of retrained models that came from outside."""

    training: str = ""
    """How models are trained from scratch, where it is no recipe: name and digest, or version, of
    the user's own loop."""

    numerics: int
    original: str
    """Digest of the original model's weights."""

    unlearned: str
    """Digest of the unlearned model's weights."""

    training_data: str = ""
    """Digest of the training data, as in the record of a run."""

    request: str = ""
    """Digest of the positions of the removed rows, as in the record of a run."""

    removed_rows: tuple[int | str, ...] | None = None
    """The removed rows, by key or position; None unless requested."""

    removed_by: Literal["position", "key"] = "position"
    """Whether rows are listed by their positions in the training data or by the user's keys."""

    notes: tuple[str, ...] = ()


class SummaryRow(FrozenModel):
    """One line of the summary."""

    name: str
    """In words: ``Accuracy, forget set``."""

    metric: str
    """Id of the row of the full table; empty where the number is no metric."""

    model: float | None
    low: float | None = None
    high: float | None = None
    """95 % interval of the number of this model."""

    original: float | None = None
    retrained: float | None = None
    judgement: str
    """In words: ``as retrained``, ``differs``, ``undecided``, ``leaks``, ``damaged``."""


class NextStep(FrozenModel):
    """What to do after a verdict."""

    action: str
    """One plain sentence."""

    seconds: float | None = None
    """About how long it takes, where this audit has measured what it needs."""


class ReportData(FrozenModel):
    """What an audit found: verdict, next steps, summary, the full table and all behind it."""

    schema_version: Literal[3] = 3
    """Version of this layout."""

    answers: tuple[Answer, ...] = ()
    """Is the memory of the records gone? Is the model like a retrained one?"""

    verdict: Verdict
    """The headline: the first of the findings."""

    reason: str
    """What the verdict rests on, in one sentence with its numbers."""

    remarks: tuple[str, ...] = ()
    """Sentences that follow the reason: the attack, and what was not tested."""

    next_steps: tuple[NextStep, ...] = ()
    summary: tuple[SummaryRow, ...] = Field((), max_length=8)
    tier: AuditTier
    findings: tuple[Finding, ...]
    """Every verdict that holds; the headline is the first."""

    request_summary: RequestSummary
    rows: tuple[MetricRow, ...]
    margins: tuple[MarginSample, ...]
    rocs: tuple[Roc, ...]
    classes: tuple[ClassAccuracy, ...]
    cost: CostComparison
    arms: tuple[ArmComparison, ...] = ()
    """Of a reference audit with a placebo control: memory and signature, of this one model."""

    mask: MaskSummary | None = None
    """None where every weight might move."""

    recipe: RecipeCheck | None = None
    """Whether the recipe gives models like the original; None in reports of earlier versions."""

    provenance: Provenance
    limits: tuple[str, ...]
    """What this audit cannot show."""

    evidence: tuple[EvidenceStatement, ...] = ()
    """What is known of the model by each kind of evidence: exact, certified, empirical, in this
    order. None decides another. Empty in reports of earlier versions."""

    warnings: tuple[str, ...] = ()
    strong: StrongSummary | None = None
    """What ensembles show; of the strong tier alone."""

    @property
    def sentence(self) -> str:
        """Return verdict, reason and remarks in one text."""
        return " ".join([f"{self.verdict}: {end_sentence(self.reason)}", *self.remarks])

    def row(self, metric: str) -> MetricRow:
        """Return the table's row of a metric; an unknown id is an error."""
        for r in self.rows:
            if r.metric == metric:
                return r
        raise InputError(
            f"report: no row {metric!r}; there are: {', '.join(r.metric for r in self.rows)}"
        )


def as_sentence(text: str) -> str:
    """Return text that begins with a capital and ends in a full stop."""
    return end_sentence(text[:1].upper() + text[1:])


def end_sentence(text: str) -> str:
    """Return text that ends in a full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
