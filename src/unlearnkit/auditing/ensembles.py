"""The models behind a strong audit: what they cost, and how they become signals.

FULL design: N originals of N seeds, each unlearned once; N oracles; and N more oracles, which take
the unlearned models' seat to show what every number is when nothing is wrong: its floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from unlearnkit.auditing.splits import choose
from unlearnkit.cache import Cache
from unlearnkit.core.auto import Auto
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import Batch, View
from unlearnkit.core.digest import MEASURES
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.evidence import Split, rowwise, run
from unlearnkit.core.method import Method
from unlearnkit.core.request import ForgetRequest
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.oracles import (
    FIRST,
    Trained,
    check_fresh,
    oracle,
    oracle_keys,
    original_key,
    train_originals,
)
from unlearnkit.signals import Code, Member, Row, Signals, SignalsFile
from unlearnkit.train.loop import fit
from unlearnkit.unlearning import check_needs, fresh_model, unlearn

FLOOR = 101_000
"""Seed of the first oracle of the second set."""

LEAST, MOST = 4, FIRST
"""Models of each kind: fewer say nothing at all; more would share seeds with the oracles."""

LEAST_RETAINED = 250
"""Retained rows that are looked at, where the forget rows are fewer."""

BLOCK, MEMORY = 64, 2**30
"""Most models, and most bytes of models, that are held at once."""


@dataclass(frozen=True)
class Subject:
    """What a strong audit is about: a case, a request, a method; where it runs and keeps."""

    case: Case
    request: ForgetRequest | None
    method: Method
    rt: Runtime
    cache: Cache

    def seeds(self, who: str, models: int) -> list[int]:
        """Return the seeds of the models of a kind."""
        first = {"oracle": FIRST, "floor": FLOOR}.get(who, 0)
        return list(range(first, first + models))


@dataclass(frozen=True)
class Plan:
    """What a strong audit has yet to do, counted before it starts."""

    models: int
    """N: of each of the four kinds."""

    train: int
    """Models that have to be trained."""

    kept: int
    """Models that were trained before, or whose signals are kept."""

    unlearn: int
    """Models that have to be unlearned."""

    rows: int
    """Rows that the trainings put through a model, forward and backward."""

    seconds: float
    """About how long it takes; trainings one after another, at the speed found just now."""

    def __str__(self) -> str:
        if not self.train and not self.unlearn:
            return f"strong audit of {self.models} models a kind: all of them are kept"
        return (
            f"strong audit of {self.models} models a kind: {self.train} to train"
            f" ({self.kept} are kept), {self.unlearn} to unlearn; {self.rows:,} rows forward and"
            f" backward, at most about {_duration(self.seconds)} on this machine; it may be"
            " stopped at any time, and goes on where it stopped"
        )


def plan(subject: Subject, models: int, *, unlearn_seconds: float = 0.0) -> Plan:
    """Return what a strong audit would have to do now; nothing but a few steps is trained.

    Args:
        subject: What it is about.
        models: N.
        unlearn_seconds: What one unlearning is known to take.

    Returns:
        The plan.
    """
    views = _views(subject)
    done = set(_file(subject, views).members())
    keys = _keys(subject, models)
    lacking: list[str] = []
    found: list[float] = []
    for who, sub in keys.items():
        seen = [Member(w, seed) for w in _needs(who) for seed in subject.seeds(who, models)]
        open_seeds = {m.seed for m in seen if m not in done}
        for seed, key in sub.items():
            facts = subject.cache.facts(key)
            if facts is not None:
                found.append(float(facts["seconds"]))
            elif seed in open_seeds:
                lacking.append(who)
    recipe = subject.case.recipe
    assert recipe is not None
    parts = subject.case.partition(subject.request)
    whole, stay = len(subject.case.train or ()), len(parts.retain or ())
    rows = sum(recipe.epochs * (whole if who == "original" else stay) for who in lacking)
    each = sum(found) / len(found) if found else _timed(subject) if lacking else 0.0
    todo = sum(Member("unlearned", s) not in done for s in subject.seeds("original", models))
    return Plan(
        models=models,
        train=len(lacking),
        kept=3 * models - len(lacking),
        unlearn=todo,
        rows=rows,
        seconds=each * len(lacking) + todo * unlearn_seconds,
    )


def gather(subject: Subject, models: int) -> Signals:
    """Return the signals of N models of each kind; what is kept is neither trained nor run again.

    Every model is kept as soon as it is trained, every row of signals as soon as it is known, so
    that an interrupted call goes on where it stopped and ends at the same bits.

    Args:
        subject: What they are of.
        models: N.

    Returns:
        Kinds ``oracle``, ``floor``, ``original`` and ``unlearned``; sections ``forget``,
        ``retain``, ``held_out``, ``population`` and ``test``, as far as the case has them.
    """
    views = _views(subject)
    file = _file(subject, views)
    with file.held():
        done = set(file.members())
        for who in ("original", "oracle", "floor"):
            wanted = subject.seeds(who, models)
            for seeds in _blocks(subject, wanted):
                open_seeds = [
                    s for s in seeds if any(Member(w, s) not in done for w in _needs(who))
                ]
                if open_seeds:
                    _block(subject, views, file, done, who, open_seeds)
        everything = file.read()
    return everything.first(models)


def look(subject: Subject, models: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """Return what any models say about the examples of a subject.

    Args:
        subject: Gives the examples.
        models: Some models of its case.

    Returns:
        Margins and errors ``(models, E)``.
    """
    views = _views(subject)
    rows = [_measured(subject, m, views, Member("", i)) for i, m in enumerate(models)]
    return torch.stack([r.margins for r in rows]), torch.stack([r.errors for r in rows])


def name_of(subject: Subject) -> str:
    """Return the digest of all that the signals depend on, under which they are kept."""
    return _file(subject, _views(subject)).folder.name


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
    case: Case, request: ForgetRequest | None, method: Method, rt: Runtime, cache: Cache
) -> Subject:
    """Return a subject that can be audited; refuse what cannot be trained and unlearned N times.

    Args:
        case: With its whole training set, its model factory and its recipe.
        request: What goes.
        method: How; one method with its settings.
        rt: Where to run.
        cache: Where models and signals are kept.

    Returns:
        The subject.

    Raises:
        UnsupportedError: If the case cannot train models anew, or the method is ``auto``.
    """
    if isinstance(method, Auto):
        raise UnsupportedError("strong: auto chooses anew each time; audit the method it chose")
    if case.train is None or case.recipe is None or case.fresh is None:
        raise UnsupportedError(
            "strong: N models are trained from scratch; the case must have the whole training set,"
            " a model factory and a recipe"
        )
    parts = case.partition(request)
    if parts.forget is None or parts.retain is None or not parts.forget.labelled:
        raise UnsupportedError("strong: forget and retained rows with targets are needed")
    check_needs(method, case, parts)
    return Subject(case, request, method, rt, cache)


def _needs(who: str) -> tuple[str, ...]:
    """Return the kinds of signals that a trained model gives."""
    return ("original", "unlearned") if who == "original" else (who,)


def _block(
    subject: Subject,
    views: dict[str, View],
    file: SignalsFile,
    done: set[Member],
    who: str,
    seeds: Sequence[int],
) -> None:
    """Train what is missing of a block, and append the signals: those that cost least, at once."""
    waiting: list[Row] = []
    runs = _trained(subject, who, seeds)
    for i, one in enumerate(runs):
        for kind in _needs(who):
            member = Member(kind, one.seed)
            if member in done:
                continue
            model = _unlearned(subject, one) if kind == "unlearned" else one.model
            waiting.append(_measured(subject, model, views, member))
        if who == "original" or one is runs[-1]:
            file.append(waiting)
            waiting = []
        subject.rt.reporter.progress(f"signals of {who}s", i + 1, len(runs))


def _trained(subject: Subject, who: str, seeds: Sequence[int]) -> tuple[Trained, ...]:
    case, rt, cache = subject.case, subject.rt, subject.cache
    if who == "original":
        return train_originals(case, seeds=seeds, rt=rt, cache=cache)
    runs = oracle(case, subject.request, seeds=seeds, rt=rt, cache=cache).runs
    reference = train_originals(case, seeds=[0], rt=rt, cache=cache)[0].model
    check_fresh([r.model for r in runs], reference)
    return runs


def _unlearned(subject: Subject, one: Trained) -> nn.Module:
    quiet = Runtime(subject.rt.device, subject.rt.precision, one.seed, Cost())
    try:
        done = unlearn(one.model, subject.case, subject.request, subject.method, quiet)
    except DivergedError as e:
        raise DivergedError(
            f"strong: unlearning original {one.seed} failed ({e}); a method that fails on one of"
            " its originals cannot be qualified with these settings"
        ) from None
    return done.model


def _measured(subject: Subject, model: nn.Module, views: dict[str, View], member: Member) -> Row:
    """Return what a model says about all examples."""
    task, rt = subject.case.task, subject.rt.fork(0)
    model = model.to(rt.device)
    margins: list[Tensor] = []
    errors: list[Tensor] = []
    for view in views.values():
        out, y, places = run(model, view, task, rt), view.y, torch.arange(len(view))
        for fn, into in ((task.margin, margins), (task.errors, errors)):
            into.append(rowwise(partial(_of_row, fn), out, y, places))
    return Row(member, torch.cat(margins), _codes(member.who, views), torch.cat(errors))


def _of_row(fn: Callable[[Tensor, Batch], Tensor], out: Tensor, y: Tensor, place: Tensor) -> Tensor:
    return fn(out, Batch(torch.empty(len(place), 0), y, place))


def _codes(kind: str, views: dict[str, View]) -> Tensor:
    went = {"original": Code.IN, "unlearned": Code.UNLEARNED}.get(kind, Code.OUT)
    stayed = Code.RETAINED if kind == "unlearned" else Code.IN
    code = {"forget": went, "retain": stayed}
    return torch.cat(
        [
            torch.full((len(v),), int(code.get(name, Code.OUT)), dtype=torch.uint8)
            for name, v in views.items()
        ]
    )


def _views(subject: Subject) -> dict[str, View]:
    """Return the examples by section: the same whatever the run's own seed is."""
    case = subject.case
    parts: Partition = case.partition(subject.request)
    assert parts.forget is not None
    assert parts.retain is not None
    draw = Runtime(seed=0)
    splits = choose(case, parts, draw, even=True).views
    views = {
        "forget": parts.forget,
        "retain": parts.retain.sample(
            max(len(parts.forget), LEAST_RETAINED), draw, "strong/retain"
        ),
    }
    held, test = splits.get(Split.HELD_OUT), splits.get(Split.TEST)
    if held is not None and held.labelled:
        views["held_out"] = held
    if test is not None and test.labelled:
        apart = test
        if held is not None and held.data is test.data:
            apart = test.pick(~torch.isin(test.rows, held.rows))
        if len(apart):
            views["population"] = apart
        views["test"] = test
    return views


def _file(subject: Subject, views: dict[str, View]) -> SignalsFile:
    case, rt = subject.case, subject.rt
    key = {
        "original": original_key(case, 0, rt),
        "oracle": oracle_keys(case, subject.request, [FIRST], rt)[0],
        "method": subject.method.id,
        "settings": subject.method.model_dump(mode="json"),
        "measures": MEASURES,
        "sections": {name: view.key() for name, view in views.items()},
    }
    columns = {name: view.rows for name, view in views.items()}
    return SignalsFile(subject.cache.root / "signals", key, columns)


def _keys(subject: Subject, models: int) -> dict[str, dict[int, dict[str, object]]]:
    case, rt = subject.case, subject.rt
    originals = subject.seeds("original", models)
    found = {"original": {s: original_key(case, s, rt) for s in originals}}
    for who in ("oracle", "floor"):
        seeds = subject.seeds(who, models)
        found[who] = dict(zip(seeds, oracle_keys(case, subject.request, seeds, rt), strict=True))
    return found


def _blocks(subject: Subject, seeds: Sequence[int]) -> list[Sequence[int]]:
    model = fresh_model(subject.case, subject.rt.fork(0))
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    wide = min(max(MEMORY // max(size, 1), 1), BLOCK)
    return [seeds[i : i + wide] for i in range(0, len(seeds), wide)]


def _timed(subject: Subject) -> float:
    """Return about how long a training takes, from a few steps of one."""
    case = subject.case
    assert case.train is not None
    assert case.recipe is not None
    rt = Runtime(subject.rt.device, subject.rt.precision, 0, Cost())
    view = View.all(case.train)
    few = view.pick(torch.arange(min(len(view), 4 * case.recipe.batch_size)))
    short = case.recipe.model_copy(update={"epochs": 1})
    spent = []
    for _ in range(2):
        model = fresh_model(case, rt.fork(0))
        start = time.perf_counter()
        fit(model, few, case.task, short, rt, stream="strong/timed")
        spent.append(time.perf_counter() - start)
    return min(spent) * case.recipe.epochs * len(view) / max(len(few), 1)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
