"""The models behind a strong audit, and how they become signals.

FULL design: N originals of N seeds, each unlearned once; N oracles; N more oracles, which are
measured as if they were unlearned, to show what every number is when nothing is wrong: its floor;
and what the method makes of these, the placebo arm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from unlearnkit.auditing.request_summary import row_bytes
from unlearnkit.auditing.splits import choose
from unlearnkit.auditing.strong.ensemble_size import LEAST
from unlearnkit.auditing.strong.margin_store import (
    MarginMatrix,
    MarginStore,
    Membership,
    ModelId,
    ModelRecord,
)
from unlearnkit.auditing.strong.placebo import (
    PLACEBO,
    PlaceboRefusal,
    run_placebo,
    without_moments,
)
from unlearnkit.cache import Cache
from unlearnkit.contamination import check_fresh
from unlearnkit.core.auto_method import Auto
from unlearnkit.core.cache_folder import SIGNALS
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import Batch, View
from unlearnkit.core.digest import MEASURES, source_code
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.evidence import Split
from unlearnkit.core.inference import map_rows, run_in_parts
from unlearnkit.core.method import Method
from unlearnkit.core.module_state import on_device
from unlearnkit.core.outside_method import OutsideMethod
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.request_inference import infer_request
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import predicts_numbers
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.localize.localizer import Localizer
from unlearnkit.oracles import (
    FIRST,
    Oracles,
    ScratchTraining,
    TrainedModel,
    training_of_oracles,
    training_of_originals,
)
from unlearnkit.unlearning.requirements import check_needs
from unlearnkit.unlearning.run_method import fresh_model, run_method

FLOOR = 101_000
"""Seed of the first oracle of the second set."""

MOST = FIRST
"""Models of each kind; more would share seeds with the oracles."""

LEAST_RETAINED = 250
"""Retained rows that are looked at, where the forget rows are fewer."""

TRAINED = ("original", "oracle", "floor")
"""Kinds of models that are trained from scratch."""

BLOCK, MEMORY = 64, 2**30
"""Most models, and most bytes of models, that are held at once."""


@dataclass(frozen=True)
class StrongAuditSpec:
    """What a strong audit is about: a case, a request, a method; where it runs and keeps."""

    case: Case
    request: ForgetRequest | None
    method: Method
    rt: Runtime
    cache: Cache
    localizer: Localizer | None = None
    """How it is found, on each original, what may move; all may when None."""

    ray: str | None = None
    """Address of a Ray cluster that trains the models from scratch."""

    projection: RetainedSubspace | None = None
    """What is held on each original; nothing when None."""

    parts: Partition = field(kw_only=True, compare=False, repr=False)
    """The forget set and the retain set."""

    @cached_property
    def originals(self) -> ScratchTraining:
        """How originals are trained, with their keys."""
        return training_of_originals(self.case, self.rt)

    @cached_property
    def oracles(self) -> ScratchTraining:
        """How oracles are trained, with their keys."""
        return training_of_oracles(self.case, self.parts, self.rt)

    def training(self, who: str) -> ScratchTraining:
        """Return how the models of a kind are trained."""
        return self.originals if who == "original" else self.oracles

    def retrained_models(self, models: int) -> Oracles:
        """Return the first oracles."""
        runs = self.oracles.models(self.seeds("oracle", models), self.cache, self.ray)
        return Oracles(self.case, self.request, runs)

    def seeds(self, who: str, models: int) -> list[int]:
        """Return the seeds of the models of a kind."""
        first = {"oracle": FIRST, "floor": FLOOR}.get(who, 0)
        return list(range(first, first + models))

    @cached_property
    def views(self) -> dict[str, View]:
        """The examples by section: the same whatever the run's own seed is."""
        return _views(self)

    @cached_property
    def file(self) -> MarginStore:
        """Where the signals of these examples are kept."""
        return _file(self)

    @property
    def name(self) -> str:
        """Return the digest of all that the signals depend on, under which they are kept."""
        return self.file.folder.name


def collect_margins(subject: StrongAuditSpec, models: int) -> MarginMatrix:
    """Return the signals of N models of each kind; what is kept is neither trained nor run again.

    Every model is kept as soon as it is trained, every row of signals as soon as it is known, so
    that an interrupted call goes on where it stopped and ends at the same bits.

    Args:
        subject: What they are of.
        models: N.

    Returns:
        Kinds ``oracle``, ``floor``, ``original``, ``unlearned`` and ``placebo``; sections
        ``forget``, ``retain``, ``held_out``, ``population`` and ``test``, as far as the case has
        them. Without ``placebo``, and with the reason, where the method does not run on models that
        never saw the forget set.
    """
    file = subject.file
    have = set(file.members())
    everyone = [
        ModelId(kind, s)
        for who in TRAINED
        for s in subject.seeds(who, models)
        for kind in kinds_of(who)
    ]
    if have.issuperset(everyone):  # serves from a folder that cannot be written, too
        return file.read().first(models)
    refused = ""
    with file.lock():
        done = set(file.members())
        for who in TRAINED:
            wanted = subject.seeds(who, models)
            for seeds in _blocks(subject, wanted):
                kinds = [w for w in kinds_of(who) if not (refused and w == PLACEBO)]
                open_seeds = [s for s in seeds if any(ModelId(w, s) not in done for w in kinds)]
                if open_seeds:
                    refused = _block(subject, done, who, open_seeds) or refused
        everything = file.read()
    if refused:
        everything = everything.without(PLACEBO, left_out=refused)
    return everything.first(models)


def look(subject: StrongAuditSpec, models: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """Return what any models say about the examples of a subject.

    Args:
        subject: Gives the examples.
        models: Some models of its case.

    Returns:
        Margins and errors ``(models, E)``.
    """
    rows = [_measured(subject, m, ModelId("", i)) for i, m in enumerate(models)]
    return torch.stack([r.margins for r in rows]), torch.stack([r.errors for r in rows])


def _views(subject: StrongAuditSpec) -> dict[str, View]:
    case, parts = subject.case, subject.parts
    assert parts.forget is not None
    assert parts.retain is not None
    draw = Runtime(seed=0)
    splits = choose(case, parts, draw, infer_request(subject.request, parts)).views
    views = {
        "forget": parts.forget,
        "retain": parts.retain.sample(
            max(len(parts.forget), LEAST_RETAINED), draw, "strong/retain"
        ),
    }
    held, test = splits.get(Split.HELD_OUT), splits.get(Split.TEST)
    if held is not None and held.labelled:
        held = _no_more(held, parts.forget, draw)
        views["held_out"] = held
    if test is not None and test.labelled:
        apart = test
        if held is not None and held.data is test.data:
            apart = test.pick(~torch.isin(test.rows, held.rows))
        if len(apart):
            views["population"] = apart
        views["test"] = test
    return views


def _no_more(held: View, forget: View, draw: Runtime) -> View:
    """Return no more held-out rows than there are forget rows, of each class where there are."""
    if len(held) <= len(forget):
        return held
    if forget.y.is_floating_point() or forget.y.ndim != 1:
        return held.sample(len(forget), draw, "strong/held out")
    rows = [
        (held.y == c).nonzero()[: int((forget.y == c).sum()), 0]
        for c in torch.unique(forget.y).tolist()
    ]
    return held.pick(torch.cat(rows).sort().values)


def _file(subject: StrongAuditSpec) -> MarginStore:
    views = subject.views
    key = {
        "original": subject.originals.key(0),
        "oracle": subject.oracles.key(FIRST),
        "method": subject.method.id,
        "settings": subject.method.model_dump(mode="json"),
        "measures": MEASURES,
        "code": source_code(type(subject.method)),
        "sections": {name: view.key() for name, view in views.items()},
    }
    if subject.localizer is not None:
        key["mask"] = subject.localizer.model_dump(mode="json")
    if subject.projection is not None:
        key["projection"] = subject.projection.model_dump(mode="json")
    columns = {name: view.rows for name, view in views.items()}
    return MarginStore(subject.cache.root / SIGNALS, key, columns, _targets(subject))


def _targets(subject: StrongAuditSpec) -> int:
    """Return how many numbers a row's target has; 0 where it is no number."""
    y = subject.views["forget"].y
    return y[0].numel() if predicts_numbers(subject.case.task, y) else 0


def kinds_of(who: str) -> tuple[str, ...]:
    """Return the kinds of signals that a trained model gives."""
    return {"original": ("original", "unlearned"), "floor": ("floor", PLACEBO)}.get(who, (who,))


def check_models(models: int) -> None:
    """Refuse a number of models that cannot be audited.

    Args:
        models: N.

    Raises:
        InputError: If there are too few, or more than there are seeds.
    """
    if not LEAST <= models <= MOST:
        raise InputError(f"models: must be {LEAST} to {MOST}, got {models}; 64 are the usual least")


def subject_of(
    case: Case,
    request: ForgetRequest | None,
    method: Method,
    rt: Runtime,
    cache: Cache,
    localizer: Localizer | None = None,
    ray: str | None = None,
    *,
    projection: RetainedSubspace | None = None,
    parts: Partition | None = None,
) -> StrongAuditSpec:
    """Return a subject that can be audited; refuse what cannot be trained and unlearned N times.

    Args:
        case: With its whole training set, its model factory and its recipe or ``train_model``.
        request: What goes.
        method: How; one method with its settings.
        rt: Where to run.
        cache: Where models and signals are kept.
        localizer: How it is found, on each original, what may move; all may when None.
        ray: Who trains models from scratch, as in ``oracle``.
        projection: What is held on each original; nothing when None.
        parts: The rows by the request, where the caller knows them.

    Returns:
        The subject.

    Raises:
        UnsupportedError: If the case cannot train models anew, or the method is ``auto``.
    """
    if isinstance(method, Auto):
        raise UnsupportedError("strong: auto chooses anew each time; audit the method it chose")
    if isinstance(method, OutsideMethod):
        raise UnsupportedError(
            "strong: another tool unlearned the model, so its method cannot be run on N originals;"
            " use tier reference, or write the tool as a method: unlearnkit.extend"
        )
    if case.train is None and case.parts is not None:
        raise UnsupportedError(
            "strong: forget and retained rows that are given as parts may not be all that the model"
            " was trained on, so originals cannot be trained again; give Case(train=...) and name"
            " rows"
        )
    if case.train is None or case.training is None or case.fresh is None:
        raise UnsupportedError(
            "strong: N models are trained from scratch; the case must have the whole training set,"
            " a model factory and a recipe or train_model"
        )
    parts = parts or case.partition(request)
    if parts.forget is None or parts.retain is None or not parts.forget.labelled:
        raise UnsupportedError("strong: forget and retained rows with targets are needed")
    check_needs(method, case, parts)
    subject = StrongAuditSpec(
        case, request, method, rt, cache, localizer, ray, projection, parts=parts
    )
    _check_apart(subject.views)
    return subject


def _check_apart(views: dict[str, View]) -> None:
    """Refuse never-seen rows that are also forget rows, inputs and targets bit for bit."""
    seen = set(row_bytes(views["forget"]))
    for name in ("held_out", "population"):
        twice = sum(row in seen for row in row_bytes(views[name])) if name in views else 0
        if twice:
            raise InputError(
                f"strong: {twice} {name.replace('_', '-')} rows are forget rows as well; leave"
                " rows that were trained on out of test and held-out rows"
            )


def _block(subject: StrongAuditSpec, done: set[ModelId], who: str, seeds: Sequence[int]) -> str:
    """Train what is missing of a block, and append the signals: those that cost least, at once.

    Returns:
        Why the method does not run on a model that never saw the forget set; empty where it does.
    """
    waiting: list[ModelRecord] = []
    runs = _trained(subject, who, seeds)
    refused = ""
    for i, one in enumerate(runs):
        for kind in kinds_of(who):
            member = ModelId(kind, one.seed)
            if member in done or (refused and kind == PLACEBO):
                continue
            try:
                model = one.model if kind == who else _unlearned(subject, one, kind)
            except PlaceboRefusal as e:
                refused = str(e)
                continue
            found = _measured(subject, model, member)
            if kind == PLACEBO and not bool(found.margins.isfinite().all()):
                refused = "the outputs of the result overflow"
                continue
            waiting.append(found)
        if len(kinds_of(who)) > 1 or one is runs[-1]:
            subject.file.append(waiting)
            waiting = []
        subject.rt.reporter.progress(f"signals of {who}s", i + 1, len(runs))
    return refused


def _trained(subject: StrongAuditSpec, who: str, seeds: Sequence[int]) -> tuple[TrainedModel, ...]:
    runs = subject.training(who).models(seeds, subject.cache, subject.ray)
    if who != "original":
        (reference,) = subject.originals.models([0], subject.cache)
        found = Oracles(subject.case, subject.request, runs)
        check_fresh(found, reference.model, subject.parts, subject.rt)
    return runs


def _unlearned(subject: StrongAuditSpec, one: TrainedModel, kind: str) -> nn.Module:
    """Return what the method makes of a model, with the seed of the model's place in its set."""
    request, how, parts = subject.request, subject.method, subject.parts
    case = without_moments(subject.case, parts)
    quiet = subject.rt.fork(one.seed - (FLOOR if kind == PLACEBO else 0), quiet=True)
    run = run_placebo if kind == PLACEBO else run_method
    try:
        return run(
            one.model, case, request, how, quiet, mask=subject.localizer,
            projection=subject.projection, parts=parts,
        ).model  # fmt: skip
    except DivergedError as e:
        raise DivergedError(
            f"strong: unlearning original {one.seed} failed ({e}); a method that fails on one of"
            " its originals cannot be qualified with these settings"
        ) from None


def _measured(subject: StrongAuditSpec, model: nn.Module, member: ModelId) -> ModelRecord:
    """Return what a model says about all examples."""
    task, rt = subject.case.task, subject.rt.fork(0)
    model = on_device(model, rt.device)
    margins: list[Tensor] = []
    errors: list[Tensor] = []
    residuals: list[Tensor] = []
    for view in subject.views.values():
        whole, places = view.y, torch.arange(len(view))
        for part, out in run_in_parts(model, view, task, rt):
            y = whole[part]
            for fn, into in ((task.margin, margins), (task.errors, errors)):
                into.append(map_rows(partial(_of_row, fn), out, y, places[part]))
            predicted = task.predictions(out.double())
            if predicted is not None:
                residuals.append(predicted - y.double().view_as(predicted))
    codes = _codes(member.who, subject.views)
    apart = torch.cat(residuals) if residuals else None
    return ModelRecord(member, torch.cat(margins), codes, torch.cat(errors), apart)


def _of_row(fn: Callable[[Tensor, Batch], Tensor], out: Tensor, y: Tensor, place: Tensor) -> Tensor:
    return fn(out, Batch.of_targets(y, place))


def _codes(kind: str, views: dict[str, View]) -> Tensor:
    went = {"original": Membership.IN, "unlearned": Membership.UNLEARNED}.get(kind, Membership.OUT)
    stayed = Membership.RETAINED if kind in {"unlearned", PLACEBO} else Membership.IN
    code = {"forget": went, "retain": stayed}
    return torch.cat(
        [
            torch.full((len(v),), int(code.get(name, Membership.OUT)), dtype=torch.uint8)
            for name, v in views.items()
        ]
    )


def _blocks(subject: StrongAuditSpec, seeds: Sequence[int]) -> list[Sequence[int]]:
    model = fresh_model(subject.case, subject.rt.fork(0))
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    wide = min(max(MEMORY // max(size, 1), 1), BLOCK)
    return [seeds[i : i + wide] for i in range(0, len(seeds), wide)]
