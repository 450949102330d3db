"""Models trained from scratch: the original, and the oracles that never saw the forget rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from unlearnkit.cache import Cache
from unlearnkit.core.border import border
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest, model_digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.module_state import structural_difference
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.row_sets import pack_rows
from unlearnkit.core.runtime import Cost, Runtime, check_seed
from unlearnkit.core.train_function import TrainFunction
from unlearnkit.core.training import Training, training_key
from unlearnkit.train.ensemble import EnsembleMember, fit_each, fit_together, worth_stacking
from unlearnkit.train.rng_guard import as_plain_call
from unlearnkit.train.shared_run import on_ranks
from unlearnkit.unlearning.run_method import check_weights, fresh_model

FIRST = 1000
"""Seed of the first oracle, where a count is given."""

_What = Literal["original", "oracle"]
_FIRST: dict[_What, int] = {"original": 0, "oracle": FIRST}

MOST = 100_000
"""Most models that one call trains."""

HELD = 2**30
"""Most bytes of untrained models that wait, hashed, for their training."""

LOCKED = 256
"""Entries of the cache that one process makes at a time; each holds a file open."""


@dataclass(frozen=True)
class TrainedModel:
    """A model trained from scratch, and what that took."""

    model: nn.Module
    seed: int
    cost: Cost
    seconds: float
    cached: bool
    """Whether it was trained before and only loaded now."""

    together: int = 1
    """Models that were trained at once: ``seconds`` is a share of what all of them took."""


@dataclass(frozen=True)
class Oracles:
    """Models retrained without the forget rows, one a seed, in order."""

    case: Case
    request: ForgetRequest | None
    runs: tuple[TrainedModel, ...]

    outside: bool = False
    """Whether they were retrained elsewhere; the case is then that of the audit."""

    @classmethod
    @border("from_models")
    def from_models(
        cls,
        models: Sequence[nn.Module],
        *,
        request: ForgetRequest | str | Mapping[str, Any] | None,
    ) -> Oracles:
        """Take models that you retrained yourself, without the forget set.

        What they were trained on, and how, is taken on your word: reports say so.

        Args:
            models: One a training; five or more to say that a model matches them. Read only.
            request: What they never saw; None for a case made from parts.

        Returns:
            The oracles, for ``uk.audit``.

        Raises:
            InputError: If one is no model, not finite, of another architecture, or there twice.
        """
        found = list(models) if isinstance(models, Iterable) else []
        wrong = next((m for m in found if not isinstance(m, nn.Module)), None)
        if isinstance(models, nn.Module) or not found or wrong is not None:
            got = "none" if wrong is None and found == [] else type(wrong or models).__name__
            raise InputError(f"from_models: give a list of retrained torch modules, got {got}")
        for k, model in enumerate(found):
            check_weights(model, f"from_models: model {k}")
            odd = structural_difference(model, found[0])
            if odd:
                raise InputError(
                    f"from_models: model {k} is of another architecture than model 0: {odd}; give"
                    " models of one"
                )
        check_different([model_digest(m) for m in found], "from_models")
        runs = [TrainedModel(m, k, Cost(), math.nan, cached=False) for k, m in enumerate(found)]
        asked = None if request is None else parse_request(request)
        return cls(_unknown_case(), asked, tuple(runs), outside=True)

    def of(self, case: Case) -> Oracles:
        """Return models from outside with the case of an audit; others as they are."""
        return replace(self, case=case) if self.outside else self

    @property
    def models(self) -> list[nn.Module]:
        """Return the models."""
        return [r.model for r in self.runs]

    def __len__(self) -> int:
        return len(self.runs)


def check_different(digests: Sequence[str], who: str) -> None:
    """Refuse retrained models that are one model, by the digests of their weights."""
    for k, name in enumerate(digests):
        if name in digests[:k]:
            raise InputError(
                f"{who}: {digests.index(name)} and {k} are the same model, bit for bit; train each"
                " from its own seed"
            )


def _unknown_case() -> Case:
    """Return the case of models from outside: an audit puts its own in its place."""
    case = object.__new__(Case)
    for name in Case.__dataclass_fields__:
        object.__setattr__(case, name, None)
    return case


@border("train_original")
@on_ranks("train_original")
@as_plain_call
def train_original(
    case: Case, *, seed: int = 0, rt: Runtime | None = None, cache: Cache | None = None
) -> TrainedModel:
    """Return the original: a model trained from scratch on the whole training set.

    Args:
        case: Rows, model factory, recipe.
        seed: Of initial weights and order.
        rt: Where to train; its own seed plays no part.
        cache: Where trained weights are kept.

    Returns:
        The model, from the cache if it is there.
    """
    seed = check_seed(seed, "train_original: seed")
    return _one(training_of_originals(case, rt or Runtime()), seed, cache or Cache())


@border("train_originals")
@on_ranks("train_originals")
@as_plain_call
def train_originals(
    case: Case,
    *,
    seeds: int | Iterable[int],
    rt: Runtime | None = None,
    cache: Cache | None = None,
    ray: str | None = None,
) -> tuple[TrainedModel, ...]:
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
    wanted = _wanted(seeds, "original")
    return training_of_originals(case, rt or Runtime()).models(wanted, cache or Cache(), ray)


@border("oracle")
@on_ranks("oracle")
@as_plain_call
def oracle(
    case: Case,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    *,
    seeds: int | Iterable[int] = 5,
    rt: Runtime | None = None,
    cache: Cache | None = None,
    ray: str | None = None,
) -> Oracles:
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
    wanted = _wanted(seeds, "oracle")
    asked = None if request is None else parse_request(request)
    training = training_of_oracles(case, case.partition(asked), rt or Runtime())
    runs = training.models(wanted, cache or Cache(), ray)
    return Oracles(case, asked, runs)


def original_key(case: Case, seed: int, rt: Runtime) -> dict[str, Any]:
    """Return the cache key of an original: every input of its training, by content.

    Args:
        case: Rows, model factory, recipe.
        seed: Of initial weights and order.
        rt: Where it would be trained.

    Returns:
        The key under which ``train_original`` keeps it.
    """
    return training_of_originals(case, rt).key(seed)


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
    training = training_of_oracles(case, case.partition(request), rt)
    return [training.key(seed) for seed in _wanted(seeds, "oracle")]


def trained_together(case: Case, request: ForgetRequest | None, seeds: int, rt: Runtime) -> bool:
    """Return whether ``oracle`` trains this many seeds in a stack, or one by one.

    Args:
        case: Rows, model factory, recipe.
        request: What the models never see.
        seeds: How many.
        rt: Where they would be trained.

    Returns:
        True for a stack; nothing is trained.
    """
    training = training_of_oracles(case, case.partition(request), rt)
    first, *others = _wanted(seeds, "oracle")
    return bool(others) and training.stacks(first)


@dataclass(frozen=True)
class ScratchTraining:
    """Training from scratch on some rows, whatever the seed.

    A key is made once. It needs the untrained model, which waits for its training, so that no
    model is built only to be hashed.
    """

    what: _What
    case: Case
    view: View
    rt: Runtime
    _keys: dict[int, dict[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    _waiting: dict[int, nn.Module] = field(default_factory=dict, compare=False, repr=False)

    def models(
        self, seeds: Sequence[int], cache: Cache, ray: str | None = None
    ) -> tuple[TrainedModel, ...]:
        """Return the models of several seeds, in order; those that are missing are trained."""
        return _many(self, seeds, cache, ray)

    @property
    def how(self) -> Training:
        """Return how models are trained: the user's own loop, or else the recipe of the case."""
        if self.case.training is None:
            raise UnsupportedError(
                f"{self.what}: the case has no recipe and no train_model; give"
                " Case(recipe=Recipe(...)) or Case(train_model=fn)"
            )
        return self.case.training

    def start(self, seed: int) -> tuple[nn.Module, dict[str, Any]]:
        """Return the untrained model, and the content address of what it becomes."""
        key, model = self.key(seed), self._waiting.pop(seed, None)
        return (self._untrained(seed) if model is None else model), key

    def key(self, seed: int) -> dict[str, Any]:
        """Return the content address of what the untrained model of a seed becomes."""
        if seed not in self._keys:
            how, rt, model = self.how, self.rt.fork(seed), self._untrained(seed)
            key = training_key(self.what, model, self.rows, self.case.task, how, rt)
            self._keys[seed] = key
            size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
            if size * (len(self._waiting) + 1) <= HELD:
                self._waiting[seed] = model
        return self._keys[seed]

    def _untrained(self, seed: int) -> nn.Module:
        return fresh_model(self.case, self.rt.fork(seed), "train/init")

    @cached_property
    def data(self) -> str:
        """Return the content address of the data set that the rows are of, read once."""
        return self.view.data.key()

    @cached_property
    def lineage(self) -> dict[str, str]:
        """Return what a kept model says of its training: the data set, and which rows of it."""
        return {"data": self.data, "held": pack_rows(self.view.rows, len(self.view.data))}

    @cached_property
    def rows(self) -> str:
        """Return the content address of the rows, read once for all seeds."""
        key = self.view.key(self.data)
        how = self.how
        if isinstance(how, TrainFunction) and (more := how.row_content(self.view.data)):
            return digest({"rows": key, "extra": more})
        return key

    def member(self, seed: int, model: nn.Module) -> EnsembleMember:
        """Return an untrained model as one of those that are trained."""
        place = seed - _FIRST[self.what]
        return EnsembleMember(model, self.view, self.rt.fork(seed), f"{self.what} {seed}", place)

    def stacks(self, seed: int) -> bool:
        """Return whether models like that of a seed are trained sooner together."""
        model, _ = self.start(seed)
        self._waiting[seed] = model
        return worth_stacking(self.member(seed, model), self.case.task, self.how)

    def check(self, model: nn.Module) -> None:
        """Refuse a trained model that is not finite."""
        try:
            check_weights(model, self.what)
        except InputError as e:
            raise DivergedError(
                f"{self.what}: diverged ({e}); use a smaller learning rate"
            ) from None


def training_of_originals(case: Case, rt: Runtime) -> ScratchTraining:
    """Return how the originals of a case are trained."""
    if case.train is None:
        raise UnsupportedError("train: the case has no whole training set")
    return ScratchTraining("original", case, _labelled(View.all(case.train), "train"), rt)


def training_of_oracles(case: Case, parts: Partition, rt: Runtime) -> ScratchTraining:
    """Return how the oracles of a case are trained, on the rows of it that stay."""
    retain = parts.retain
    if retain is None:
        raise UnsupportedError("oracle: the case has no rows that stay; retraining is not possible")
    return ScratchTraining("oracle", case, _labelled(retain, "oracle"), rt)


def _labelled(view: View, who: str) -> View:
    if not view.labelled:
        raise UnsupportedError(
            f"{who}: the rows have no targets, so no model can be trained on them; give pairs (x,"
            " y), or audit without oracles"
        )
    return view


def _wanted(seeds: int | Iterable[int], what: _What) -> list[int]:
    first = _FIRST[what]
    if isinstance(seeds, int) and seeds > MOST:
        raise InputError(f"{what}: at most {MOST:,} models at a time, got {seeds:,}; ask for fewer")
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        wanted = [check_seed(s, f"{what}: seeds") for s in seeds]
    else:
        wanted = [first + i for i in range(check_seed(seeds, f"{what}: seeds"))]
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"{what}: seeds must be different and at least one, got {wanted}")
    return wanted


def _many(
    t: ScratchTraining, seeds: Sequence[int], cache: Cache, ray: str | None
) -> tuple[TrainedModel, ...]:
    """Return models of several seeds, in order; those that are missing are trained first."""
    new = _train_together(t, seeds, cache, ray) if len(seeds) > 1 else set()
    told, runs = t.rt.reporter, []
    for i, seed in enumerate(seeds):
        told.progress(f"{t.what}s", i, len(seeds))
        one = _one(t, seed, cache)
        runs.append(replace(one, cached=one.cached and seed not in new))
    told.progress(f"{t.what}s", len(seeds), len(seeds))
    return tuple(runs)


def _train_together(
    t: ScratchTraining, seeds: Sequence[int], cache: Cache, ray: str | None
) -> set[int]:
    """Train those of several models that are missing, if that pays; return their seeds."""
    if all(t.key(seed) in cache for seed in seeds):
        return set()
    # Asked of all seeds, not of the missing ones: an interrupted call ends at the same bits.
    if ray is None and not t.stacks(seeds[0]):
        return set()
    new: set[int] = set()
    for i in range(0, len(seeds), LOCKED):
        new |= _fill(t, seeds[i : i + LOCKED], cache, ray)
    return new


def _fill(t: ScratchTraining, seeds: Sequence[int], cache: Cache, ray: str | None) -> set[int]:
    """Train together those of some models that are not kept yet; return their seeds."""

    def make(lacking: list[int]) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Any]]]:
        at = {seeds[i]: i for i in lacking}
        members = [t.member(seed, t.start(seed)[0]) for seed in at]
        clock = time.perf_counter()
        for part in fit_together(members, t.case.task, t.how, ray=ray):
            seconds = (time.perf_counter() - clock) / len(part)
            for m in part:
                t.check(m.model)
                tensors = dict(m.model.state_dict())
                facts = _facts(m.rt.cost, seconds, len(part)) | t.lineage
                yield at[m.rt.seed], tensors, facts
            clock = time.perf_counter()

    return {seeds[i] for i in cache.fill([t.key(seed) for seed in seeds], make)}


def _one(t: ScratchTraining, seed: int, cache: Cache) -> TrainedModel:
    """Return the model of one seed, trained alone if it is missing."""
    model, key = t.start(seed)

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        member = t.member(seed, model)
        clock = time.perf_counter()
        fit_each([member], t.case.task, t.how)
        t.check(model)
        seconds = time.perf_counter() - clock
        return dict(model.state_dict()), _facts(member.rt.cost, seconds) | t.lineage

    kept = cache.get(key, make)
    if kept.hit:
        with torch.no_grad():
            model.load_state_dict(kept.tensors)
    facts = kept.facts
    cost = Cost(int(facts["forward"]), int(facts["backward"]))
    together = int(facts.get("together", 1))
    return TrainedModel(model, seed, cost, float(facts["seconds"]), kept.hit, together)


def _facts(cost: Cost, seconds: float, together: int = 1) -> dict[str, Any]:
    """Return what a training took; ``together`` models shared its time."""
    return {
        "forward": cost.forward,
        "backward": cost.backward,
        "seconds": seconds,
        "together": together,
    }
