"""Recipe check: whether the recipe, or ``train_model``, gives models like the one at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.auditing.recipe_measures import (
    ACCURACY,
    ERROR,
    SHOWN,
    TESTED,
    RecipeQuantity,
    recipe_measures,
)
from unlearnkit.cache import Cache
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.digest import digest, model_digest
from unlearnkit.core.errors import DivergedError, UnsupportedError
from unlearnkit.core.evidence import Split
from unlearnkit.core.module_state import structural_difference
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.train_function import TrainFunction
from unlearnkit.oracles import Oracles, ScratchTraining, TrainedModel, training_of_originals
from unlearnkit.report.recipe_outcome import RecipeCheck, RecipeMeasure
from unlearnkit.stats.multiple_testing import cauchy_combination
from unlearnkit.stats.oracle_gap import ENOUGH_FOR_INTERVALS, outlying
from unlearnkit.unlearning.run_method import Unlearned

ORIGINALS = 5
"""Originals that are trained where models are small."""

SMALL_SECONDS = 10.0
"""Longest training of one original after which the others are trained as well, one by one."""

LEVEL = 0.01
"""Chance that a model of the recipe is accused: all tests together (Cauchy combination)."""

VISIBLE = 0.005
"""Least difference of an accuracy that is named, as a fraction."""

VISIBLE_ERROR = 0.02
"""Least difference of a mean error that is named, as a share of it."""

CONSEQUENCE = "the retrained models below are not what this model would have become"


@dataclass(frozen=True)
class RecipeComparison:
    """One model compared with originals that were trained by a recipe."""

    p: float | None
    """Of the given model being one more of them; None with fewer than three."""

    measures: tuple[RecipeMeasure, ...]


@dataclass(frozen=True)
class RecipeChecker:
    """Makes the recipe check of an audit, once its rows are known."""

    done: Unlearned
    oracles: Oracles | None
    rt: Runtime
    cache: Cache
    memory: AuditMemory
    ray: str | None
    wanted: bool
    training: ScratchTraining | None = None
    """How originals are trained, where their keys are known."""

    def __call__(self, views: Mapping[Split, View], tier: AuditTier) -> RecipeCheck:
        """Return the check on these rows; ``not checked`` in the fast tier, or if not wanted."""
        if tier is AuditTier.FAST:
            return not_checked("the fast tier compares with no retrained model")
        if not self.wanted:
            return not_checked("the check was switched off (recipe_check=False)")
        return check_recipe(
            self.done,
            self.oracles,
            views,
            self.rt,
            self.cache,
            self.memory,
            self.ray,
            self.training,
        )


def check_recipe(
    done: Unlearned,
    oracles: Oracles | None,
    views: Mapping[Split, View],
    rt: Runtime,
    cache: Cache,
    memory: AuditMemory,
    ray: str | None = None,
    training: ScratchTraining | None = None,
) -> RecipeCheck:
    """Return whether the recipe of a case gives models like the original at hand.

    A model that equals an original of the cache bit for bit needs no comparison. Originals are
    those of ``train_originals``, under its keys: none is trained twice.

    Args:
        done: Has the original and its case.
        oracles: The retrained models of the audit; from outside they follow no recipe.
        views: The rows of the audit, of which the retain set and the test set are read.
        rt: Where to train and to run; its meter counts both.
        cache: Where originals are kept.
        memory: What earlier audits of the same original found.
        ray: As in ``uk.oracle``.
        training: How originals are trained, where the caller has their keys.

    Returns:
        The outcome; ``not checked``, with the reason, where there is nothing to compare.
    """
    why = _nothing_to_check(done, oracles, views)
    if why:
        return not_checked(why)
    try:
        training = training or training_of_originals(done.case, rt)
        key = (model_digest(done.original), digest(training.key(0)), digest(_rows(views)))
        if key not in memory.recipes:
            memory.recipes[key] = _checked(done, training, views, cache, ray)
    except (DivergedError, UnsupportedError) as e:
        return not_checked(str(e))
    return memory.recipes[key]


def not_checked(why: str) -> RecipeCheck:
    """Return the outcome of a check that was not made."""
    return RecipeCheck(outcome="not checked", sentence=f"the recipe was not checked: {why}")


def compare_with_originals(
    given: Mapping[str, float], originals: Sequence[Mapping[str, float]]
) -> RecipeComparison:
    """Compare the measures of a model with those of originals that a recipe gave.

    Each quantity of ``TESTED`` gives the p-value of Student's prediction interval for one more
    original, on a logarithmic scale where it is positive; they are taken together by the Cauchy
    combination, because they depend on each other.

    Args:
        given: Measures of the model at hand, as ``recipe_measures`` returns them.
        originals: Those of each original.

    Returns:
        One p-value for all, and every quantity with its own.
    """
    found = []
    for name, quantity in TESTED.items():
        values = [_value(m, name) for m in originals]
        p = _p_value(quantity, _value(given, name), values)
        found.append(_measure(quantity.words, _value(given, name), values, p))
    rate = all(m.get("rate") == 1 for m in (given, *originals))
    for name, words in SHOWN.items():
        values = [_value(m, name) for m in (given, *originals)]
        if rate:
            values = [1 - v for v in values]
        shown = words.replace(ERROR, ACCURACY) if rate else words
        found.append(_measure(shown, values[0], values[1:], None))
    tests = [m.p for m in found if m.p is not None]
    return RecipeComparison(
        cauchy_combination(tests) if tests else None,
        tuple(
            m for m in found if m.original is not None or any(v is not None for v in m.originals)
        ),
    )


def _nothing_to_check(done: Unlearned, oracles: Oracles | None, views: Mapping[Split, View]) -> str:
    case = done.case
    if oracles is not None and oracles.outside:
        return "the retrained models come from outside and follow no recipe of the case"
    missing = [
        words
        for words, there in (
            ("whole training set", case.train),
            ("model factory", case.fresh),
            ("recipe or train_model", case.training),
        )
        if there is None
    ]
    if missing:
        return f"the case has no {' and no '.join(missing)}"
    if Split.RETAIN not in views or not views[Split.RETAIN].labelled:
        return "there are no retain rows with targets"
    return ""


def _after_deletions(case: Case) -> bool:
    return bool(case.keys.renumbered or case.keys.deleted_rows or case.keys.deleted_owners)


def _rows(views: Mapping[Split, View]) -> dict[str, str]:
    return {str(s): views[s].key() for s in (Split.RETAIN, Split.TEST) if s in views}


def _checked(
    done: Unlearned,
    training: ScratchTraining,
    views: Mapping[Split, View],
    cache: Cache,
    ray: str | None,
) -> RecipeCheck:
    same = _cached_twin(done, training, cache)
    if same is not None:
        return RecipeCheck(
            outcome="reproduced",
            sentence="the given model equals, bit for bit, the original that the recipe gives with"
            f" seed {same.seed}",
            seeds=(same.seed,),
            seconds=same.seconds,
            forward=same.cost.forward,
            backward=same.cost.backward,
        )
    if _after_deletions(done.case):
        return not_checked("the model may have gone through the earlier deletions of the case")
    runs = _originals(training, cache, ray)
    odd = structural_difference(done.original, runs[0].model)
    if odd:
        return not_checked(f"the model factory builds another architecture: {odd}")
    rt, task = training.rt, done.case.task
    test = views.get(Split.TEST)

    moving = {n for n, p in runs[0].model.named_parameters() if p.requires_grad}

    def measured(model: nn.Module) -> dict[str, float]:
        return recipe_measures(model, views[Split.RETAIN], test, task, rt, moving)

    originals = [measured(r.model) for r in runs]
    compared = compare_with_originals(measured(done.original), originals)
    new = [r for r in runs if not r.cached]
    rt.cost.forward += sum(r.cost.forward for r in new)
    rt.cost.backward += sum(r.cost.backward for r in new)
    return _outcome(compared, done.case).model_copy(
        update={
            "seeds": tuple(r.seed for r in runs),
            "trained_models": len(new),
            "seconds": math.fsum(r.seconds for r in runs),
            "forward": sum(r.cost.forward for r in runs),
            "backward": sum(r.cost.backward for r in runs),
        }
    )


def _cached_twin(done: Unlearned, training: ScratchTraining, cache: Cache) -> TrainedModel | None:
    """Return the original of the cache that the given model is, bit for bit; None where none is."""
    wanted = model_digest(done.original)
    for seed in dict.fromkeys((0, done.seed, *range(ORIGINALS))):
        if training.key(seed) in cache:
            (one,) = training.models([seed], cache)
            if model_digest(one.model) == wanted:
                return one
    return None


def _originals(
    training: ScratchTraining, cache: Cache, ray: str | None
) -> tuple[TrainedModel, ...]:
    """Return five originals where models are small, else one, and those that are kept."""
    seeds = list(range(ORIGINALS))
    if all(training.key(s) in cache for s in seeds) or training.stacks(seeds[0]):
        return training.models(seeds, cache, ray)
    (first,) = training.models(seeds[:1], cache)
    if first.seconds > SMALL_SECONDS:
        seeds = [s for s in seeds if s == first.seed or training.key(s) in cache]
    # The first is in the cache by now, so ``models`` would call it kept.
    return (first, *(training.models(seeds[1:], cache, ray) if seeds[1:] else ()))


def _value(measures: Mapping[str, float], name: str) -> float:
    return measures.get(name, math.nan)


def _measure(
    words: str, given: float, originals: Sequence[float], p: float | None
) -> RecipeMeasure:
    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return RecipeMeasure(
        name=words, original=known(given), originals=tuple(map(known, originals)), p=p
    )


def _p_value(quantity: RecipeQuantity, given: float, originals: Sequence[float]) -> float | None:
    """Return Student's p-value of one quantity; None where it is undefined or has no spread."""
    values = [given, *originals]
    if not all(map(math.isfinite, values)):
        return None
    if not quantity.logarithm:
        least = quantity.least * abs(fmean(originals))
        return outlying(given, list(originals), least=max(least, math.ulp(1.0)))
    if min(values) <= 0:
        return None
    given, *others = map(math.log, values)
    return outlying(given, others, least=quantity.least)


def _outcome(compared: RecipeComparison, case: Case) -> RecipeCheck:
    """Return the outcome of a comparison, in a sentence with its numbers."""
    found = _judged(compared, case)
    return found.model_copy(update={"p": compared.p, "measures": compared.measures})


def _judged(compared: RecipeComparison, case: Case) -> RecipeCheck:
    count = len(compared.measures[0].originals)
    if count < ENOUGH_FOR_INTERVALS:
        numbers = "; ".join(_beside(m) for m in compared.measures if "retain" in m.name)
        return RecipeCheck(
            outcome="spread unknown",
            sentence=f"{count} original{'s' if count > 1 else ''} trained by the recipe"
            f" {'do' if count > 1 else 'does'} not show how far such models differ from each other,"
            f" so nothing is concluded: {numbers}",
        )
    if compared.p is None or compared.p >= LEVEL:
        level = "" if compared.p is None else f" (p = {compared.p:.2g}, level {LEVEL:g})"
        return RecipeCheck(
            outcome="reproduced",
            sentence=f"the given model does not differ from {count} originals trained by the"
            f" recipe{level}",
        )
    return RecipeCheck(
        outcome="mismatch",
        sentence=f"{_difference(compared.measures)}: {CONSEQUENCE}",
        remedy=_remedy(compared.measures, case),
    )


def _difference(measures: Sequence[RecipeMeasure]) -> str:
    """Return the difference that a reader sees best: accuracy or error, else the clearest."""
    for m in measures:
        known = [v for v in m.originals if v is not None]
        if m.original is None or not known or min(known) <= m.original <= max(known):
            continue
        apart, mean = abs(m.original - fmean(known)), fmean(known)
        if m.name.startswith(ACCURACY) and apart >= VISIBLE:
            rows = m.name.removeprefix(f"{ACCURACY}, ")
            return (
                f"the given model answers {_percent(m.original)} of the {rows}, models trained by"
                f" this recipe {_percent(mean)}"
            )
        if m.name.startswith(ERROR) and apart >= VISIBLE_ERROR * mean:
            return _beside(m)
    clearest = min((m for m in measures if m.p is not None), key=lambda m: m.p or 0.0)
    return _beside(clearest)


def _beside(m: RecipeMeasure) -> str:
    known = [v for v in m.originals if v is not None]
    mean = "undefined" if not known else f"{fmean(known):.4g}"
    spread = f" ({min(known):.4g} to {max(known):.4g})" if len(known) > 1 else ""
    given = "undefined" if m.original is None else f"{m.original:.4g}"
    return f"{m.name}: the given model {given}, models trained by this recipe {mean}{spread}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _remedy(measures: Sequence[RecipeMeasure], case: Case) -> str:
    """Return how to mend a mismatch, and where to look first."""
    loss = next((m for m in measures if m.name == TESTED["loss_retain"].words), None)
    known = [v for v in loss.originals if v is not None] if loss else []
    look = "epochs, lr and augment"
    if loss is not None and loss.original is not None and known:
        closer = loss.original < fmean(known)
        look += (
            f" (the given model fits the retain set {'more' if closer else 'less'} closely than"
            " models of this recipe)"
        )
    if isinstance(case.training, TrainFunction):
        return (
            "Make train_model the training that gave this model, and audit again. Look first at"
            f" {look}."
        )
    return (
        f"Correct the recipe of the case, first {look}, or give the training itself,"
        " Case(train_model=fn), and audit again."
    )
