"""The contract of a metric, and the list of all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from unlearnkit.core.audit_terms import AuditTier, ReportSection
from unlearnkit.core.errors import InputError, NoTargetsError, UnlearnkitError
from unlearnkit.core.evidence import Evidence, ModelRole, Split

if TYPE_CHECKING:
    from torch import Tensor


class Goal(StrEnum):
    """Which value is good."""

    HIGH = "high"
    LOW = "low"
    ORACLE = "match retraining"
    VALUE = "descriptive"
    """No value is good by itself."""


class MetricRole(StrEnum):
    """Which question of an audit a metric answers; verdicts and warnings go by it."""

    KNOWLEDGE = "knowledge"
    """How well the forget rows themselves are answered."""

    GENERALIZATION = "generalization"
    """How well never-seen rows like the forget rows are answered."""

    UTILITY = "utility"
    """How well rows are answered that have nothing to do with the request."""

    ATTACK = "attack"
    """Whether membership of the forget rows can be inferred."""

    DISTANCE = "distance"
    """How far outputs lie from those of retrained models."""

    OTHER = "other"


ANSWERS = frozenset({MetricRole.KNOWLEDGE, MetricRole.GENERALIZATION, MetricRole.UTILITY})
"""Roles of the metrics that say how well rows are answered."""


@dataclass(frozen=True)
class Score:
    """A number and where it comes from. Undefined is nan with a note, never a default."""

    value: float
    rows: Tensor | None = None
    """One value a row whose mean is the number; intervals are made from it in one place."""

    note: str = ""
    """What a reader must know: why it is undefined, what limits it."""

    interval: tuple[float, float] | None = None
    """A 95 % interval, where the metric itself knows a better one than rows give."""

    method: str = ""
    """How that interval was made."""


@dataclass(frozen=True)
class Metric:
    """A function from evidence to a score, with what people must know to read it."""

    id: str
    fn: Callable[..., Score]
    goal: Goal
    low: float
    high: float
    unit: str
    tier: AuditTier
    """The cheapest audit in which it can run."""

    section: ReportSection
    """Where it stands in the report."""

    family: str
    doc: str
    ideal: float | None = None
    reads: frozenset[ModelRole] = frozenset({ModelRole.UNLEARNED})
    splits: frozenset[Split] = frozenset()
    tasks: frozenset[str] | None = None
    """Tasks that it serves; None for all."""

    path: Literal["exact", "compat"] = "exact"
    """``compat`` replays published code with its errors, for comparison with old tables only."""

    models: bool = False
    """Whether it needs the models themselves, not only their outputs."""

    margin: float | None = None
    """Largest difference from the oracle that counts as none; two oracle deviations, and at least a
    hundredth, when None."""

    role: MetricRole = MetricRole.OTHER
    higher_is_better: bool | None = None
    """Whether rows are answered better at larger values; None where it does not say how well rows
    are answered."""

    applies: Callable[[Evidence], bool] | None = None
    """Whether it says anything of these models; None where it does of all."""

    @property
    def of_evidence(self) -> bool:
        """Return whether it is a function of one model's evidence, that ``metric(e)`` computes."""
        return self.tier != AuditTier.STRONG and self.fn is not measured_by_audit

    @property
    def distance(self) -> bool:
        """Return whether it is a distance to the oracles: zero, or one, is as near as can be."""
        return ModelRole.ORACLE in self.reads and self.goal in {Goal.LOW, Goal.HIGH}

    def serves(self, e: Evidence) -> bool:
        """Return whether the evidence has what the metric reads."""
        return (
            self.of_evidence
            and (self.tasks is None or e.task.name in self.tasks)
            and (e.has_models or not self.models)
            and all(e.has(who) for who in self.reads)
            and all(split in e.views for split in self.splits)
            and (self.applies is None or self.applies(e))
        )

    def __call__(self, e: Evidence) -> Score:
        """Return the score of the model in the role of the unlearned one.

        It is nan with a note where a model, rows of a split or their targets are missing.

        Raises:
            InputError: If it is not a function of one model's evidence.
        """
        if not self.of_evidence:
            raise InputError(
                f"metric {self.id}: it is no function of one model's evidence;"
                " read it in the report of an audit"
            )
        missing = [f"no {who} model" for who in ModelRole if who in self.reads and not e.has(who)]
        missing += [
            f"no {split} rows"
            for split in Split
            if split in self.splits and (split not in e.views or not len(e.views[split]))
        ]
        if missing:
            return Score(float("nan"), note=", ".join(missing))
        try:
            return self.fn(e)
        except NoTargetsError:
            return Score(float("nan"), note="needs targets, which these rows do not have")


METRICS: dict[str, Metric] = {}
F = TypeVar("F", bound=Callable[..., Score])


def metric(
    goal: Goal,
    *,
    low: float,
    high: float,
    reads: Iterable[ModelRole] = (ModelRole.UNLEARNED,),
    splits: Iterable[Split] = (),
    each: Iterable[Split] = (),
    ideal: float | None = None,
    unit: str = "",
    tasks: Iterable[str] | None = None,
    tier: AuditTier = AuditTier.FAST,
    path: Literal["exact", "compat"] = "exact",
    models: bool = False,
    section: ReportSection = ReportSection.COMPOSITE,
    margin: float | None = None,
    role: MetricRole = MetricRole.OTHER,
    higher_is_better: bool | None = None,
    applies: Callable[[Evidence], bool] | None = None,
) -> Callable[[F], F]:
    """Return a decorator that puts a function on the list of metrics, under its name.

    Args:
        goal: Which value is good.
        low: Smallest possible value.
        high: Largest possible value.
        reads: Models that it reads.
        splits: Splits that it reads.
        each: Splits that each have a metric ``name_split``, computed by ``fn(evidence, split)``.
        ideal: The best value; None where it is not a number, such as that of retrained models.
        unit: Unit of the value: nats, bits, fraction, or the target's.
        tasks: Tasks that it serves; all when None.
        tier: The cheapest audit in which it can run.
        path: ``compat`` when it replays published code with its errors.
        models: Whether it needs the models themselves.
        section: Where it stands in the audit's order.
        margin: Largest difference from the oracle that counts as none; see ``Metric``.
        role: Which question of an audit it answers.
        higher_is_better: Needed where the role is knowledge, generalization or utility.
        applies: Whether it says anything of the models at hand; of all when None.
    """

    def add(fn: F) -> F:
        whole = Metric(
            id=fn.__name__,
            fn=fn,
            goal=goal,
            low=low,
            high=high,
            unit=unit,
            tier=tier,
            section=section,
            family=fn.__module__.rpartition(".")[2],
            doc=(fn.__doc__ or "").strip(),
            ideal=ideal,
            reads=frozenset(reads),
            splits=frozenset(splits),
            tasks=None if tasks is None else frozenset(tasks),
            path=path,
            models=models,
            margin=margin,
            role=role,
            higher_is_better=higher_is_better,
            applies=applies,
        )
        for one in _of_each_split(whole, tuple(each)):
            _put(one)
        return fn

    return add


def declare(
    name: str,
    goal: Goal,
    *,
    doc: str,
    low: float,
    high: float,
    unit: str,
    tier: AuditTier,
    section: ReportSection,
    family: str,
    fn: Callable[..., Score] | None = None,
    margin: float | None = None,
    role: MetricRole = MetricRole.OTHER,
    higher_is_better: bool | None = None,
) -> None:
    """Put a number that is no function of one model's evidence on the list of metrics.

    The keywords are the fields of ``Metric``. At tier strong ``fn`` takes the ensembles' scores
    (``auditing.strong.scores``) and which models to measure (``unlearned``, ``original`` or
    ``floor``); the score's rows are one value a model. It is None where audits compute the number
    themselves.
    """
    _put(
        Metric(
            id=name,
            fn=fn or measured_by_audit,
            goal=goal,
            low=low,
            high=high,
            unit=unit,
            tier=tier,
            section=section,
            family=family,
            doc=doc,
            margin=margin,
            role=role,
            higher_is_better=higher_is_better,
        )
    )


def _of_each_split(whole: Metric, each: tuple[Split, ...]) -> list[Metric]:
    """Return one metric, ``name_split``, for each split; the metric itself where there are none."""
    return [
        replace(
            whole,
            id=f"{whole.id}_{split}",
            fn=partial(whole.fn, split=split),
            splits=whole.splits | {split},
        )
        for split in each
    ] or [whole]


def measured_by_audit(*_: object) -> Score:
    """Stand for the function of a metric that audits compute themselves."""
    raise AssertionError("audits compute this number themselves")


def _put(new: Metric) -> None:
    if not new.doc:
        raise UnlearnkitError(f"metric {new.id}: say what it is in a docstring")
    if new.role in ANSWERS and new.higher_is_better is None:
        raise UnlearnkitError(
            f"metric {new.id}: role {new.role} needs higher_is_better; give True or False"
        )
    held = METRICS.get(new.id)
    if held is not None and _origin(held) != _origin(new):
        raise UnlearnkitError(
            f"metric {new.id}: {'.'.join(_origin(new))} has the name of {'.'.join(_origin(held))};"
            " give it another name"
        )
    METRICS[new.id] = new


def _origin(m: Metric) -> tuple[str, str]:
    """Return the module and the name of a metric's function."""
    fn = m.fn.func if isinstance(m.fn, partial) else m.fn
    return fn.__module__, getattr(fn, "__qualname__", type(fn).__qualname__)


def mean(rows: Tensor, note: str = "") -> Score:
    """Return the score that is the mean of its rows; nan with a note when there are none."""
    if not len(rows):
        return Score(float("nan"), rows, note or "no rows")
    value = rows.mean().item()
    if value != value and not note:
        note = f"{int(rows.isnan().sum())} of {len(rows)} rows are not numbers"
    return Score(value, rows, note)
