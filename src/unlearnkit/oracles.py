"""Models trained from scratch: the original, and the oracles that never saw the forget rows."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.cache import Cache
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.digest import NUMERICS, architecture_digest, model_digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.train.ensemble import Member, fit_each, fit_together, pays
from unlearnkit.unlearning import check_weights, fresh_model

_Start = tuple[nn.Module, dict[str, Any]]

FIRST = 1000
"""Seed of the first oracle, where a count is given."""

LOCKED = 256
"""Entries of the cache that one process makes at a time; each holds a file open."""


@dataclass(frozen=True)
class Trained:
    """A model trained from scratch, and what that took."""

    model: nn.Module
    seed: int
    cost: Cost
    seconds: float
    cached: bool
    """Whether it was trained before and only loaded now."""

    together: int = 1
    """Models that were trained at once: ``seconds`` is a share of what all of them took."""

    found: dict[Hashable, object] = field(default_factory=dict, compare=False, repr=False)
    """What audits have found out about the model: a further one need not find it out again."""


@dataclass(frozen=True)
class Oracle:
    """Models retrained without the forget rows, one a seed, in order."""

    case: Case
    request: ForgetRequest | None
    runs: tuple[Trained, ...]
    beside: dict[Hashable, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    """What audits have found about an original and these models, by original and circumstances."""

    @property
    def models(self) -> list[nn.Module]:
        """Return the models."""
        return [r.model for r in self.runs]

    def __len__(self) -> int:
        return len(self.runs)


def train_original(
    case: Case, *, seed: int = 0, rt: Runtime | None = None, cache: Cache | None = None
) -> Trained:
    """Return the original: a model trained from scratch on the whole training set.

    Args:
        case: Rows, model factory, recipe.
        seed: Of initial weights and order.
        rt: Where to train; its own seed plays no part.
        cache: Where trained weights are kept.

    Returns:
        The model, from the cache if it is there.

    """
    return _trained(case, _whole(case), seed, rt or Runtime(), cache or Cache(), "original")


def train_originals(
    case: Case,
    *,
    seeds: int | Iterable[int],
    rt: Runtime | None = None,
    cache: Cache | None = None,
    ray: str | None = None,
) -> tuple[Trained, ...]:
    """Return several originals: models trained from scratch on the whole training set.

    As with ``oracle``, each is kept as soon as it is trained, under the key of ``train_original``,
    and small models are trained together.

    Args:
        case: Rows, model factory, recipe.
        seeds: How many, or which ones. Seeds 0, 1, … when a count is given.
        rt: Where to train; its own seed plays no part.
        cache: Where trained weights are kept.
        ray: As in ``oracle``.

    Returns:
        The models, one a seed, in order.
    """
    wanted = _wanted(seeds, 0, "original")
    return _many(case, _whole(case), wanted, rt or Runtime(), cache or Cache(), "original", ray)


def oracle(
    case: Case,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    *,
    seeds: int | Iterable[int] = 5,
    rt: Runtime | None = None,
    cache: Cache | None = None,
    ray: str | None = None,
) -> Oracle:
    """Return models trained from scratch on the rows that stay, one a seed.

    Every model is kept as soon as it is trained: an interrupted call goes on where it stopped.
    Small models of several seeds are trained together, a few times sooner. A model that was
    trained with others and one that was trained alone are kept under one key: they start, draw and
    step alike, and differ by the rounding of float32 alone, as between two machines.

    Args:
        case: Rows, model factory, recipe.
        request: What the models never see.
        seeds: How many, or which ones. Seeds 1000, 1001, … when a count is given, so that no oracle
            shares its initial weights with an original of a small seed.
        rt: Where to train; its own seed plays no part.
        cache: Where trained weights are kept; by this process alone.
        ray: Address of a Ray cluster that trains several seeds, a processor a chunk of them;
            ``local`` starts one for this call. They are trained here when None.

    Returns:
        The oracles.
    """
    wanted = _wanted(seeds)
    asked = None if request is None else parse_request(request)
    retain = _kept(case, asked)
    runs = _many(case, retain, wanted, rt or Runtime(), cache or Cache(), "oracle", ray)
    return Oracle(case, asked, runs)


def original_key(case: Case, seed: int, rt: Runtime) -> dict[str, Any]:
    """Return the cache key of an original: every input of its training, by content.

    Args:
        case: Rows, model factory, recipe.
        seed: Of initial weights and order.
        rt: Where it would be trained.

    Returns:
        The key under which ``train_original`` keeps it.
    """
    return _start(case, _whole(case), seed, rt, "original")[1]


def oracle_keys(
    case: Case, request: ForgetRequest | None, seeds: int | Iterable[int], rt: Runtime
) -> list[dict[str, Any]]:
    """Return the cache keys of oracles, one a seed.

    Args:
        case: Rows, model factory, recipe.
        request: What the models never see.
        seeds: As in ``oracle``.
        rt: Where they would be trained.

    Returns:
        The keys under which ``oracle`` keeps them.
    """
    retain = _kept(case, request)
    return [_start(case, retain, seed, rt, "oracle")[1] for seed in _wanted(seeds)]


def check_fresh(oracles: Iterable[nn.Module], original: nn.Module) -> None:
    """Refuse an oracle that is not one: it shares weights with the original.

    A retrained model starts elsewhere, so that practically no scalar of it equals the original's.
    Published code has called a model retrained whose last layer alone was reset. Parameters that
    never train, and tensors whose every value is one constant (biases and scales at their initial
    value), say nothing and are left out.

    Args:
        oracles: Models said to be retrained.
        original: The model that was trained on everything.

    Raises:
        InputError: If more than a hundredth of an oracle's trainable scalars equal the original's.
    """
    theirs = dict(original.named_parameters())
    frozen = {n for n, p in theirs.items() if not p.requires_grad}
    for k, model in enumerate(oracles):
        same = total = 0
        for name, p in model.named_parameters():
            ref = theirs.get(name)
            if ref is None or ref.shape != p.shape:
                raise InputError(
                    f"oracle {k}: {name} does not fit the original; give one architecture"
                )
            if name in frozen and not p.requires_grad:
                continue
            if bool((ref == ref.flatten()[0]).all()) and p.numel() > 1:
                continue
            same += int((p.detach().cpu() == ref.detach().cpu()).sum())
            total += p.numel()
        if total and same > 0.01 * total:
            raise InputError(
                f"oracle {k}: contaminated, {same} of {total} trainable weights equal the"
                " original's; train it from a fresh model"
            )


def _whole(case: Case) -> View:
    if case.train is None:
        raise UnsupportedError("train: the case has no whole training set")
    return _labelled(View.all(case.train), "train")


def _kept(case: Case, request: ForgetRequest | None) -> View:
    retain = case.partition(request).retain
    if retain is None:
        raise UnsupportedError("oracle: the case has no rows that stay; retraining is not possible")
    return _labelled(retain, "oracle")


def _labelled(view: View, who: str) -> View:
    if not view.labelled:
        raise UnsupportedError(
            f"{who}: the rows have no targets, so no model can be trained on them; give pairs (x,"
            " y), or audit without oracles"
        )
    return view


def _wanted(seeds: int | Iterable[int], first: int = FIRST, what: str = "oracle") -> list[int]:
    wanted = [first + i for i in range(seeds)] if isinstance(seeds, int) else list(seeds)
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"{what}: seeds must be different and at least one, got {wanted}")
    return wanted


def _many(
    case: Case,
    view: View,
    seeds: Sequence[int],
    rt: Runtime,
    cache: Cache,
    what: str,
    ray: str | None,
) -> tuple[Trained, ...]:
    """Return models of several seeds, in order; those that are missing are trained first."""
    new = _train_together(case, view, seeds, rt, cache, what, ray) if len(seeds) > 1 else set()
    runs = []
    for i, seed in enumerate(seeds):
        rt.reporter.progress(f"{what}s", i, len(seeds))
        one = _trained(case, view, seed, rt, cache, what)
        runs.append(replace(one, cached=one.cached and seed not in new))
    rt.reporter.progress(f"{what}s", len(seeds), len(seeds))
    return tuple(runs)


def _start(
    case: Case, view: View, seed: int, rt: Runtime, what: str
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the untrained model, and the content address of what it becomes."""
    if case.recipe is None:
        raise UnsupportedError(f"{what}: the case has no recipe; give Case(recipe=Recipe(...))")
    start = fresh_model(case, rt.fork(seed), "train/init")
    key = {
        "kind": what,
        "numerics": NUMERICS,
        "recipe": case.recipe.model_dump(),
        "init": model_digest(start),
        "architecture": architecture_digest(start),
        "rows": view.key(),
        "task": dict(case.task.spec()),
        "device": rt.device.type,
        "precision": rt.precision,
        "seed": seed,
    }
    return start, key


def _train_together(
    case: Case,
    view: View,
    seeds: Sequence[int],
    rt: Runtime,
    cache: Cache,
    what: str,
    ray: str | None,
) -> set[int]:
    """Train those of several models that are missing, if that pays; return their seeds."""
    first = FIRST if what == "oracle" else 0

    def member(seed: int, model: nn.Module) -> Member:
        return Member(model, view, rt.fork(seed), f"{what} {seed}", place=seed - first)

    starts = [_start(case, view, seed, rt, what) for seed in seeds]
    if all(key in cache for _, key in starts):
        return set()
    recipe = case.recipe
    assert recipe is not None
    # Asked of all seeds, not of the missing ones: an interrupted call ends at the same bits.
    if ray is None and not pays(member(seeds[0], starts[0][0]), case.task, recipe):
        return set()
    new: set[int] = set()
    for start in range(0, len(seeds), LOCKED):
        few = seeds[start : start + LOCKED]
        part_starts = starts[start : start + LOCKED]

        def make(
            lacking: list[int], few: Sequence[int] = few, starts: Sequence[_Start] = part_starts
        ) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]:
            at = {few[i]: i for i in lacking}
            clock = time.perf_counter()
            members = [member(few[i], starts[i][0]) for i in lacking]
            for part in fit_together(members, case.task, recipe, ray=ray):
                seconds = (time.perf_counter() - clock) / len(part)
                for m in part:
                    _check_trained(m.model, what)
                    tensors = dict(m.model.state_dict())
                    yield at[m.rt.seed], tensors, _facts(m.rt.cost, seconds, len(part))
                clock = time.perf_counter()

        new |= {few[i] for i in cache.fill([key for _, key in part_starts], make)}
    return new


def _check_trained(model: nn.Module, what: str) -> None:
    try:
        check_weights(model, what)
    except InputError as e:
        raise DivergedError(f"{what}: diverged ({e}); use a smaller learning rate") from None


def _facts(cost: Cost, seconds: float, together: int = 1) -> dict[str, Any]:
    """Return what a training took; ``together`` models shared its time."""
    return {
        "forward": cost.forward,
        "backward": cost.backward,
        "seconds": seconds,
        "together": together,
    }


def _trained(case: Case, view: View, seed: int, rt: Runtime, cache: Cache, what: str) -> Trained:
    start, key = _start(case, view, seed, rt, what)
    run = rt.fork(seed)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        assert case.recipe is not None
        clock = time.perf_counter()
        fit_each([Member(start, view, run, f"{what} {seed}")], case.task, case.recipe)
        _check_trained(start, what)
        seconds = time.perf_counter() - clock
        return dict(start.state_dict()), _facts(run.cost, seconds)

    kept = cache.get(key, make)
    if kept.hit:
        with torch.no_grad():
            start.load_state_dict(kept.tensors)
    facts = kept.facts
    cost = Cost(int(facts["forward"]), int(facts["backward"]))
    together = int(facts.get("together", 1))
    return Trained(start, seed, cost, float(facts["seconds"]), kept.hit, together)
