"""How hard the forget rows are, by scores that take next to no training: shown, never judged by."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from unlearnkit.core.data import View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.inference import map_rows, predict
from unlearnkit.difficulty.curvature import curvature
from unlearnkit.difficulty.entanglement import entanglement
from unlearnkit.difficulty.holdout_retraining import symmetric_divergence, train_on_holdout
from unlearnkit.difficulty.least_disagree import least_disagree
from unlearnkit.difficulty.self_influence import self_influence
from unlearnkit.report.schema import Difficulty
from unlearnkit.stats.roc import auc
from unlearnkit.train.features import features, last_layer

ROWS = 1_000
"""Most rows of a kind that features are taken of."""

OUTPUTS = 2**23
"""Most outputs of a kind that are held for features: of more than 8,000 classes fewer rows are."""

BENT = 200
"""Most rows of a kind that gradients are taken of."""

WORK = 4 * 10**7
"""Most multiplications that a noisy last layer may take: fewer rows of wide layers are scored."""

FEWEST = 50
"""Rows of a kind below which flips are not reported."""


def difficulty(e: Evidence) -> Difficulty:
    """Return the scores of the forget rows that the original, and oracles if there are any, give.

    Args:
        e: The evidence, with models.

    Returns:
        The scores; None where there are no classes, no retained rows, or no linear last layer.
    """
    mine = _confidence(e, ModelRole.ORIGINAL, Split.FORGET)
    others = [_confidence(e, ModelRole.ORACLE, Split.FORGET, k) for k in range(e.oracles)]
    known = [v for v in others if v is not None]
    found = Difficulty(
        confidence=mine,
        confidence_retained=_confidence(e, ModelRole.ORIGINAL, Split.RETAIN),
        memorised=mine - sum(known) / len(known) if mine is not None and known else None,
    )
    if Split.RETAIN not in e.views:
        return found
    model, rt = e.model(ModelRole.ORIGINAL), e.rt
    wide = e.outputs(ModelRole.ORIGINAL, Split.FORGET)[:1].numel()
    most = min(ROWS, max(FEWEST, OUTPUTS // max(wide, 1)))
    go = e.views[Split.FORGET].sample(most, rt, "difficulty/forget")
    stay = e.views[Split.RETAIN].sample(most, rt, "difficulty/retain")
    inside, outside = (features(model, view, e.task, rt) for view in (go, stay))
    if inside is None or outside is None or inside.shape[1] != outside.shape[1]:
        return found.model_copy(update={"harder": _harder(e, go, stay, None)})
    score = entanglement(inside, outside)
    flips = _flips(last_layer(model), inside, outside, rt.rng("difficulty/noise"))
    return found.model_copy(
        update={
            "entanglement": None if score != score else score,
            "flip": None if flips is None else flips[0],
            "flip_retained": None if flips is None else flips[1],
            "harder": _harder(e, go, stay, torch.cat([inside, outside])),
        }
    )


def _harder(e: Evidence, go: View, stay: View, inputs: Tensor | None) -> dict[str, float]:
    """Return how often a forget row scores above a retained one, by each proxy that is defined."""
    if not (go.labelled and stay.labelled and len(go) and len(stay)):
        return {}
    model, rt, found = e.model(ModelRole.ORIGINAL), e.rt, {}
    few = [view.sample(BENT, rt, "difficulty/bent") for view in (go, stay)]
    bent = [curvature(model, view, e.task, rt) for view in few]
    if bent[0] is not None and bent[1] is not None:
        found["curvature"] = auc(bent[0], bent[1])
    unseen = _unseen(e)
    if unseen is not None:
        lesson = unseen.sample(ROWS, rt, "difficulty/unseen")
        twin = train_on_holdout(model, lesson, e.task, e.recipe, rt)
        found["hold_out"] = auc(
            *(symmetric_divergence(model, twin, v, e.task, rt) for v in (go, stay))
        )
    out = torch.cat([predict(model, view, e.task, rt) for view in (go, stay)]).double()
    log_p = e.task.log_probs(out)
    if inputs is not None and log_p is not None:
        held = self_influence(inputs, log_p, torch.cat([go.y, stay.y]))
        found["influence"] = auc(held[: len(go)], held[len(go) :])
    return {name: share for name, share in found.items() if share == share}


def _unseen(e: Evidence) -> View | None:
    """Return the test rows, forgotten kinds among them; None where there are none with targets."""
    views = [e.views[s] for s in (Split.TEST, Split.TEST_FORGET) if s in e.views]
    if not views or not all(view.labelled for view in views):
        return None
    return replace(views[0], rows=torch.cat([view.rows for view in views]))


def _confidence(e: Evidence, who: ModelRole, split: Split, k: int = 0) -> float | None:
    """Return the mean probability of the rows' classes; None where there are none."""
    view = e.views.get(split)
    if (
        view is None
        or not len(view)
        or not view.labelled
        or view.y.ndim != 1
        or view.y.is_floating_point()
    ):
        return None

    def own(out: Tensor, y: Tensor) -> Tensor:
        log_p = e.task.log_probs(out)
        assert log_p is not None
        return log_p.gather(1, y[:, None])[:, 0].exp()

    out = e.outputs(who, split, k)
    return None if e.task.log_probs(out[:1]) is None else float(map_rows(own, out, view.y).mean())


def _flips(
    head: nn.Module | None, inside: Tensor, outside: Tensor, rng: torch.Generator
) -> tuple[float, float] | None:
    """Return the median least disagree metric of forget and of retained rows."""
    if not isinstance(head, nn.Linear) or head.in_features != inside.shape[1]:
        return None
    most = WORK // head.weight.numel() // 4
    if most < FEWEST:
        return None
    # A third of the retained rows is scored; the others stand for all inputs, so that none is both.
    third = min(len(outside) // 3, most)
    pool, scored, sample = inside[:most], outside[:third], outside[third : 3 * third]
    if not third:
        return None
    both = torch.cat([pool, scored])
    least = least_disagree(both, sample, head.weight, head.bias, rng, draws=2)
    return float(least[: len(pool)].median()), float(least[len(pool) :].median())
