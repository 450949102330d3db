"""What an audit found, as values: everything that the text, the JSON and the page show."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import read_text
from unlearnkit.report.ensemble_schema import ArmComparison as ArmComparison
from unlearnkit.report.ensemble_schema import RecordComparison as RecordComparison
from unlearnkit.report.ensemble_schema import RowExposure as RowExposure
from unlearnkit.report.ensemble_schema import Stratum as Stratum
from unlearnkit.report.ensemble_schema import StrongSummary as StrongSummary
from unlearnkit.report.row_schema import Estimate as Estimate
from unlearnkit.report.row_schema import MarginSample as MarginSample
from unlearnkit.report.row_schema import MetricRow as MetricRow
from unlearnkit.report.row_schema import OracleValue as OracleValue
from unlearnkit.report.row_schema import Value as Value
from unlearnkit.store import write_bytes

_MOST = 256 * 2**20
"""Most bytes of a report that is read."""

Design = Literal["FULL", "REUSE"]


class Verdict(StrEnum):
    """What may be said, in the order of precedence: the headline is the first that holds."""

    LEAKS = "LEAKS"
    OVER_FORGOT = "OVER-FORGOT"
    DISTINGUISHABLE = "DISTINGUISHABLE"
    DAMAGED = "DAMAGED"
    INCONCLUSIVE = "INCONCLUSIVE"
    MATCHES = "MATCHES RETRAINING WITHIN LIMITS"
    MEMORY_GONE = "MEMORY GONE WITHIN LIMITS"


class Finding(Value):
    """A verdict that holds, and why."""

    verdict: Verdict
    reason: str
    """One sentence with the numbers that it rests on."""

    rows: tuple[str, ...] = ()
    """Ids of the table rows that it rests on."""


class Answer(Value):
    """The answer to one of the two questions of an audit."""

    question: Literal["memory", "likeness"]
    """Is the memory of the records gone? Is the model like a retrained one?"""

    answer: Literal["yes", "no", "not shown", "not tested"]
    sentence: str
    """The answer with its numbers."""

    power: str
    """What the test behind it could have seen; empty where nothing was tested."""


class Roc(Value):
    """The margin attack's curve: true positives over false positives."""

    who: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    auc: float
    negatives: int


class ClassAccuracy(Value):
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


class CostComparison(Value):
    """What unlearning cost, compared with retraining."""

    forward: int
    backward: int
    seconds: float
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


class Difficulty(Value):
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


class LayerShare(Value):
    """How much of one layer a mask let move."""

    name: str
    """Empty for parameters that stand in no layer."""

    scalars: int
    chosen: int


class MaskSummary(Value):
    """What a mask let move; all else has kept every bit."""

    criterion: str
    budget: float
    """Share of the trainable scalars that was asked for."""

    granularity: str
    seed: int
    layers: tuple[LayerShare, ...]
    """In the model's order."""


class RequestSummary(Value):
    """What was asked, and how hard it is."""

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
    tampered: int | None = None
    """Training rows that somebody tampered with; None where nothing is known of such."""

    known: float | None = None
    """Share of them that the request names."""

    target: Literal["rows", "concept"] = "rows"
    """Removing rows is judged against retraining; removing a concept may need another target."""


class Provenance(Value):
    """Where the numbers come from."""

    version: str
    torch: str
    device: str
    precision: str
    made: str
    """UTC, ISO 8601."""

    design: Design
    """FULL: every unlearned model from its own original. REUSE: one original."""

    method: str
    settings: dict[str, object]
    method_seed: int
    oracle_seeds: tuple[int, ...]
    numerics: int
    original: str
    """Digest of the original model's weights."""

    unlearned: str
    """Digest of the unlearned model's weights."""

    training_data: str = ""
    """Digest of the training data, as in the record of a run."""

    request: str = ""
    """Digest of the positions of the removed rows, as in the record of a run."""

    removed_rows: tuple[int, ...] | None = None
    """Positions of the removed rows in the training data; None where nobody asked for them."""

    notes: tuple[str, ...] = ()


class SummaryRow(Value):
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


class NextStep(Value):
    """What to do after a verdict."""

    action: str
    """One plain sentence."""

    seconds: float | None = None
    """About how long it takes, where this audit has measured what it needs."""


class Report(Value):
    """What an audit found: verdict, next steps, summary, the full table and all behind it."""

    schema_version: Literal[2] = 2
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

    asked: RequestSummary
    rows: tuple[MetricRow, ...]
    margins: tuple[MarginSample, ...]
    rocs: tuple[Roc, ...]
    classes: tuple[ClassAccuracy, ...]
    spent: CostComparison
    localized: MaskSummary | None = None
    """None where every weight might move."""

    provenance: Provenance
    limits: tuple[str, ...]
    """What this audit cannot show."""

    warnings: tuple[str, ...] = ()
    strong: StrongSummary | None = None
    """What ensembles show; of the strong tier alone."""

    @property
    def sentence(self) -> str:
        """Return verdict, reason and remarks in one text."""
        return " ".join([f"{self.verdict}: {end_sentence(self.reason)}", *self.remarks])

    def row(self, metric: str) -> MetricRow:
        """Return the table's row of a metric.

        Args:
            metric: The metric's id.

        Returns:
            The row.

        Raises:
            InputError: If the report has none.
        """
        for r in self.rows:
            if r.metric == metric:
                return r
        raise InputError(
            f"report: no row {metric!r}; there are: {', '.join(r.metric for r in self.rows)}"
        )

    def __str__(self) -> str:
        from unlearnkit.report.render_text import render_brief  # it imports this module

        return render_brief(self)

    def full(self) -> str:
        """Return all that the report says as text; ``str`` gives verdict, next step, summary."""
        from unlearnkit.report.render_text import render_text  # it imports this module

        return render_text(self)

    def save(self, path: str | Path) -> Path:
        """Write the report as a page (``.html``), as data (``.json``) or as text (``.txt``).

        Args:
            path: Where; the ending says the form. The file appears whole or not at all.

        Returns:
            The path; another ending, or a place that cannot be written, is an ``InputError``.
        """
        path = Path(path)
        return write_bytes(path, self.content(path))

    def content(self, path: Path) -> bytes:
        """Return what ``save`` writes to a path.

        Args:
            path: Its ending says the form.

        Returns:
            The content of the file.

        Raises:
            InputError: If the ending is another.
        """
        if path.suffix == ".json":
            return self.model_dump_json(indent=1).encode()
        if path.suffix == ".txt":
            return f"{self.full()}\n".encode()
        if path.suffix == ".html":
            from unlearnkit.report.render_html import render_page  # needs the extra

            return render_page(self).encode()
        raise InputError(f"report: ends in .html, .json or .txt, got {path.name!r}")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that was saved as JSON.

        Args:
            path: The file.

        Returns:
            The report.

        Raises:
            InputError: If the file is not there or is no report.
        """
        text = read_text(Path(path), "report", most=_MOST)
        try:
            return cls.model_validate_json(text)
        except ValidationError as e:
            if any(x["loc"] == ("schema_version",) for x in e.errors()):
                raise InputError(
                    f"report: {str(path)!r} was written by another version of unlearnkit; audit the"
                    " run again: unlearnkit audit FOLDER"
                ) from None
            raise InputError(
                f"report: {str(path)!r} is no report: {e.error_count()} fields are wrong"
            ) from None


def end_sentence(text: str) -> str:
    """Return text that ends in a full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
