"""Quantile attack: thresholds that depend on the row, without shadow models.

In regression a row's error says as much about its target and its cohort as about membership. Two
ways to take that out, none of which needs another model: divide by the error that such inputs have
when they were never seen; set a threshold for each input. ``stats.matching`` has a third, comparing
rows of like targets. Attacks with several models on the prediction itself are ``lira`` and
``ulira``, which take vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats import roc
from unlearnkit.stats.roc import ENOUGH, min_negatives

if TYPE_CHECKING:
    import numpy as np

LEAF = 20
"""Fewest rows that a leaf of a fitted tree stands on."""


@dataclass(frozen=True)
class AttackRows:
    """Rows that are attacked or that were never seen."""

    score: Tensor
    """Larger for rows that look trained on, ``(n,)``; for residuals, minus their size."""

    about: Tensor
    """What the attacker knows of each row ``(n, ...)``: inputs, features, targets or several."""

    def pick(self, rows: Tensor) -> AttackRows:
        """Return some rows, by position."""
        return AttackRows(self.score[rows], self.about[rows])


@dataclass(frozen=True)
class QuantileAttack:
    """What an attack fitted to one half of the never-seen rows found with the other, and back."""

    auc: float
    """Chance that a member scores above a never-seen row, mean over the two halves."""

    tpr: float
    """Share of members above the threshold, mean over the two; nan if none was requested."""

    fpr: float
    """Share of never-seen rows above it: what the threshold really lets pass."""

    members: Tensor
    """Each member's share of never-seen rows below it ``(m,)``; the mean is the AUC."""

    caught: Tensor
    """Share of the two thresholds that each member exceeds ``(m,)``; empty if none is wanted."""

    note: str = ""

    @property
    def accuracy(self) -> float:
        """Return the balanced accuracy at the threshold."""
        return (1 + self.tpr - self.fpr) / 2


def quantile_threshold_attack(
    members: AttackRows, unseen: AttackRows, rng: torch.Generator, *, fpr: float = 0.05
) -> QuantileAttack:
    """Attack with a threshold for each row: a high quantile of the scores of rows like it.

    Member if ``s(x) > Q_{1 - fpr}(x)``, with Q fitted by gradient boosting to one half of the
    never-seen rows, judged on the other, and the reverse (Bertran et al., NeurIPS 2023,
    arXiv:2307.03694). The AUC is that of ``s(x) - Q(x)``.

    Args:
        members: The m rows that may have been trained on.
        unseen: Rows that were not, n of them.
        rng: Draws the halves.
        fpr: Share of never-seen rows that each threshold should let pass, in (0, 1).

    Returns:
        What was found; nan with a note where fewer than ``10 / fpr`` never-seen rows are there. The
        AUC is still given where each half has 20.

    Raises:
        InputError: If the share is not between 0 and 1.
    """
    if not 0 < fpr < 1:
        raise InputError(f"quantile: fpr must be between 0 and 1, got {fpr}")
    _check("quantile", members, unseen)
    if short := _too_few(members, unseen):
        return _nothing(short, len(members.score))
    pairs = []
    for fitted, judged in _halves(len(unseen.score), rng):
        half, rest = unseen.pick(fitted), unseen.pick(judged)
        leaf = max(LEAF, math.ceil(ENOUGH / 2 / fpr))
        trees = _boosting("quantile", half.about, half.score, leaf=leaf, quantile=1 - fpr)
        edges = [_predicted(trees, r.about) for r in (members, rest)]
        pairs.append((members.score - edges[0], rest.score - edges[1]))
    need = min_negatives(fpr)
    if len(unseen.score) >= need:
        return _summary(pairs, threshold=True)
    note = f"{need} never-seen rows are needed at this rate, there are {len(unseen.score)}"
    return _summary(pairs, threshold=False, note=note)


def scaled_residual_attack(
    members: AttackRows, unseen: AttackRows, rng: torch.Generator
) -> QuantileAttack:
    """Attack with residuals divided by the size that they have on never-seen rows like them.

    ``s = -|f(x) - y| / size(x)``, with the mean size fitted by gradient boosting (Poisson deviance,
    logarithmic link) to one half of the never-seen rows, judged on the other, and the reverse.

    Returns:
        The result, without a threshold; nan with a note where a half has fewer than 20 rows or no
            residual.

    Raises:
        InputError: If a score is above 0: then it is no residual's negative size.
    """
    _check("scaled", members, unseen)
    if max(float(r.score.max()) if len(r.score) else 0.0 for r in (members, unseen)) > 0:
        raise InputError("scaled: scores must be minus a residual's size, got some above 0")
    if short := _too_few(members, unseen):
        return _nothing(short, len(members.score))
    pairs = []
    for fitted, judged in _halves(len(unseen.score), rng):
        half, rest = unseen.pick(fitted), unseen.pick(judged)
        unit = -half.score.mean()
        if not unit > 0:
            return _nothing("all residuals of never-seen rows are 0", len(members.score))
        trees = _boosting("poisson", half.about, -half.score / unit, leaf=LEAF)
        sizes = [_predicted(trees, r.about) for r in (members, rest)]
        pairs.append((members.score / sizes[0], rest.score / sizes[1]))
    return _summary(pairs, threshold=False)


def _summary(
    pairs: list[tuple[Tensor, Tensor]], *, threshold: bool, note: str = ""
) -> QuantileAttack:
    areas = torch.stack([roc.placement(m, o) / len(o) for m, o in pairs]).mean(0)
    if not threshold:
        return QuantileAttack(float(areas.mean()), math.nan, math.nan, areas, torch.empty(0), note)
    caught = torch.stack([(m > 0).double() for m, _ in pairs]).mean(0)
    passed = torch.cat([(o > 0).double() for _, o in pairs])
    return QuantileAttack(
        float(areas.mean()), float(caught.mean()), float(passed.mean()), areas, caught, note
    )


def _nothing(why: str, members: int) -> QuantileAttack:
    rows = torch.full((members,), math.nan, dtype=torch.float64)
    return QuantileAttack(math.nan, math.nan, math.nan, rows, torch.empty(0), why)


def _too_few(members: AttackRows, unseen: AttackRows) -> str:
    if len(unseen.score) >= 2 * LEAF and len(members.score):
        return ""
    return (
        f"{2 * LEAF} never-seen rows and a member are needed, there are {len(unseen.score)} and"
        f" {len(members.score)}"
    )


def _halves(n: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(n, generator=rng)
    first, second = order[: n // 2], order[n // 2 :]
    yield first, second
    yield second, first


def _boosting(loss: str, about: Tensor, y: Tensor, *, leaf: int, **more: float) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor  # late: slow to import

    # Small trees: with the usual 31 leaves a threshold for 10 % let 19 % of other rows pass.
    trees = HistGradientBoostingRegressor(
        loss=loss,
        max_iter=40,
        max_leaf_nodes=4,
        min_samples_leaf=leaf,
        early_stopping=False,
        random_state=0,
        **more,
    )
    return trees.fit(_array(about), y.double().numpy())


def _predicted(trees: Any, about: Tensor) -> Tensor:
    return torch.from_numpy(trees.predict(_array(about)))


def _array(about: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    found: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = _flat(about).numpy()
    return found


def _flat(about: Tensor) -> Tensor:
    return about.detach().cpu().double().reshape(len(about), -1)


def _check(who: str, *sides: AttackRows) -> None:
    for side in sides:
        if side.score.shape != (len(side.about),):
            raise InputError(
                f"{who}: scores must be (rows,), one for each row of about, got"
                f" {tuple(side.score.shape)} for {len(side.about)}"
            )
        bad = int((~side.score.isfinite()).sum())
        if bad:
            raise InputError(
                f"{who}: scores must be finite, got {bad} of {len(side.score)} that are not;"
                " leave out rows whose prediction diverged"
            )
