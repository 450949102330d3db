"""U-LiRA: one attack an example, unlearned against retrained models.

The game, for each example: was the model in hand trained on it and then made to forget it, or did
it never see it? Chance is one half. Nothing here is seen by an attack with one rule for all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from unlearnkit.core.errors import InputError
from unlearnkit.stats.densities import PRIOR, Centre, ExampleDensity, fit_law, log_ratio
from unlearnkit.stats.matrix_checks import blocks, check_margins, matrix
from unlearnkit.stats.multiple_testing import benjamini_hochberg
from unlearnkit.stats.roc import StreamingRoc, auc_rows

LEAST = 64
"""Models of each kind: half to fit, half to attack."""

EXPOSED = 0.75
"""Accuracy above which an example counts as exposed, if chance does not explain it."""


@dataclass(frozen=True)
class ULira:
    """What per-example attackers found, each half of the models attacked from the other."""

    auc: float
    """Of all attacked cells together, mean over the halves."""

    accuracy: float
    """Balanced, of all attacked cells together, at a likelihood ratio of 1."""

    tpr_at_1_percent: float
    """Share of unlearned cells called so while at most 1 % of the others are, mean over halves."""

    tpr_at_0_1_percent: float
    """The same at 0.1 %."""

    aucs: Tensor
    """Of each example, mean over the halves ``(E,)``; nan where it had too few models."""

    accuracies: Tensor
    """Balanced, of each example, mean over the halves ``(E,)``."""

    p: Tensor
    """Of each example ``(E,)``: Fisher's exact test of calls against truth, twice the smaller of
    the two halves."""

    shifts: Tensor
    """Median of the unlearned margins minus that of the others, in deviations of the others
    ``(E,)``: above 0 still too familiar, below 0 over-forgotten. Of vectors, the length."""

    level: float
    """Share of false ones among the exposed that is accepted."""

    note: str = ""
    """Why numbers are nan."""

    @property
    def exposed_rows(self) -> Tensor:
        """Return which examples are distinguished with an accuracy above 0.75, beyond chance.

        Chance is ruled out with false discoveries held at ``level`` (Benjamini and Hochberg).
        """
        return (self.accuracies > EXPOSED) & (benjamini_hochberg(self.p) <= self.level)

    @property
    def exposed_share(self) -> float:
        """Return the share of the examples that are exposed; nan where none had enough models."""
        known = int((~self.accuracies.isnan()).sum())
        return int(self.exposed_rows.sum()) / known if known else math.nan

    def quantile(self, q: float, of: Literal["aucs", "accuracies"] = "accuracies") -> float:
        """Return a quantile over the examples that had enough models; nan where none had."""
        values: Tensor = getattr(self, of)
        values = values[~values.isnan()]
        return float(values.quantile(q)) if len(values) else math.nan

    def worst(self, share: float = 0.1) -> Tensor:
        """Return the columns of a share of the examples, those distinguished best, worst first.

        A list to inspect, not a result: the best of many is high by chance alone.
        """
        rank = self.accuracies.nan_to_num(-1.0) + self.aucs.nan_to_num(0.0) * 1e-6
        known = int((~self.accuracies.isnan()).sum())
        return rank.argsort(descending=True, stable=True)[: math.ceil(share * known)]


def ulira(
    unlearned: Tensor,
    null: Tensor,
    *,
    unlearned_used: Tensor | None = None,
    null_used: Tensor | None = None,
    least: int = LEAST,
    prior: float = PRIOR,
    form: Literal["student", "normal"] = "student",
    centre: Centre = "auto",
    ddof: Literal[0, 1] = 1,
    level: float = 0.05,
) -> ULira:
    """Return how well models are attacked, half by half, with laws fitted on the other half.

    ``log N(phi; unlearned) - log N(phi; null)`` (Hayes et al., 2024, arXiv:2403.01218; Kurmanji et
    al., NeurIPS 2023), with the laws of ``fit_law``. Every second model is one half.

    Where each shadow model gives every example a role of its own, ``unlearned_used`` marks the
    cells whose example the model was trained on and made to forget. ``null`` are the oracles, or
    the unlearned models again with ``null_used`` marking the examples that they never saw.

    Margins are ``(N, E)`` and ``(M, E)``, predictions of P numbers ``(N, E, P)`` and ``(M, E, P)``;
    boolean masks ``(N, E)``, ``(M, E)`` say which cells count. ``least`` is the number of models of
    each kind that an example needs. ``prior``, ``form``, ``centre`` and ``ddof`` are those of
    ``fit_law``; published attacks fit each example a Gaussian of its own: ``form="normal",
    prior=0, centre="mean"``, with ``ddof`` 0 or 1. ``level`` is the false share accepted among
    exposed examples. Numbers are nan with a note where models are too few.

    Raises:
        InputError: If ``least`` is below 4, or a mask has another shape than its cells.
    """
    if least < 4:
        raise InputError(f"ulira: least must be at least 4, to fit and to attack, got {least}")
    _check(unlearned, null)
    cells = (unlearned, null)
    used = tuple(_mask(c, u) for c, u in zip(cells, (unlearned_used, null_used), strict=True))
    enough = torch.ones(unlearned.shape[1], dtype=torch.bool)
    for mask in used:
        for half in range(2):
            enough &= mask[half::2].sum(0) >= least // 2
    if not bool(enough.any()):
        return _nothing(len(enough), least, level)
    fit = partial(fit_law, prior=prior, form=form, centre=centre, ddof=ddof)
    folds = [_attack(cells, used, enough, fitted, fit) for fitted in range(2)]
    tallies, aucs, accuracies, p = zip(*folds, strict=True)
    missing = int((~enough).sum())
    return ULira(
        auc=sum(t.auc for t in tallies) / 2,
        accuracy=float(torch.stack(accuracies)[:, enough].mean()),
        tpr_at_1_percent=sum(t.tpr_at_fpr(0.01) for t in tallies) / 2,
        tpr_at_0_1_percent=sum(t.tpr_at_fpr(0.001) for t in tallies) / 2,
        aucs=torch.stack(aucs).mean(0),
        accuracies=torch.stack(accuracies).mean(0),
        p=(2 * torch.stack(p).amin(0)).clamp(max=1),
        shifts=_shifts(cells, used),
        level=level,
        note=f"{missing} of {len(enough)} examples: {_few(least)}" if missing else "",
    )


def log_ratios(unlearned: Tensor, null: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return for either half the log-likelihood ratios of its unlearned models and of its others.

    These are the scores behind ``ulira``: fitted on the other half, one row a model ``(N / 2, E)``,
    ``(M / 2, E)``; above 0 a model is called unlearned.
    """
    cells = (unlearned, null)
    found = []
    for fitted in range(2):
        laws = [fit_law(c[fitted::2]) for c in cells]
        judged = [c[1 - fitted :: 2] for c in cells]
        ours, theirs = (torch.empty(c.shape[:2], dtype=torch.float64) for c in judged)
        for part in blocks(unlearned.shape[1], 8 * sum(c[:, :1].numel() for c in judged)):
            for into, side in zip((ours, theirs), judged, strict=True):
                into[:, part] = _ratio(laws, side[:, part], part)
        found.append((ours, theirs))
    return tuple(found)


def _attack(
    cells: tuple[Tensor, ...],
    used: tuple[Tensor, ...],
    enough: Tensor,
    fitted: int,
    fit: Callable[[Tensor, Tensor], ExampleDensity],
) -> tuple[StreamingRoc, Tensor, Tensor, Tensor]:
    """Return the tally, and of each example AUC, accuracy and p, of the half that is attacked."""
    laws = [fit(c[fitted::2], u[fitted::2]) for c, u in zip(cells, used, strict=True)]
    judged = [c[1 - fitted :: 2] for c in cells]
    counts = [u[1 - fitted :: 2] & enough for u in used]
    tally = StreamingRoc()
    aucs, accuracies, p = (torch.full((len(enough),), math.nan).double() for _ in range(3))
    each = 8 * sum(c[:, 0].numel() for c in judged)
    for part in blocks(len(enough), each):
        ratios = [_ratio(laws, c[:, part], part) for c in judged]
        mine, others = (c[:, part] for c in counts)
        tally.add(ratios[0][mine], ratios[1][others])
        aucs[part] = auc_rows(ratios[0].T, ratios[1].T, mine.T, others.T)
        calls = [((r > 0) & c).sum(0).double() for r, c in zip(ratios, (mine, others), strict=True)]
        sizes = [c.sum(0).double() for c in (mine, others)]
        accuracies[part] = (1 + calls[0] / sizes[0] - calls[1] / sizes[1]) / 2
        p[part] = _fisher(*calls, *sizes)
    aucs[~enough], p[~enough] = math.nan, math.nan
    return tally, aucs, accuracies, p


def _ratio(laws: list[ExampleDensity], cells: Tensor, part: slice) -> Tensor:
    return log_ratio(laws[0].part(part), laws[1].part(part), cells.double())


def _fisher(right: Tensor, wrong: Tensor, m: Tensor, n: Tensor) -> Tensor:
    """Return P[at least ``right`` of m called so] given how many of m + n were called so.

    Fisher's exact test, one-sided: exact where the labels of the attacked models could be swapped.
    """
    calls = right + wrong

    def choose(of: Tensor, k: Tensor) -> Tensor:
        found = torch.lgamma(of + 1) - torch.lgamma(k + 1) - torch.lgamma(of - k + 1)
        return torch.where((k < 0) | (k > of), -math.inf, found)

    k = torch.arange(int(m.max()) + 1, dtype=torch.float64)[:, None]
    terms = choose(m, k) + choose(n, calls - k) - choose(m + n, calls)
    return torch.where(k >= right, terms.exp(), 0.0).sum(0).clamp(max=1)


def _shifts(cells: tuple[Tensor, ...], used: tuple[Tensor, ...]) -> Tensor:
    mine, other = (
        fit_law(c, u, centre="median", form="normal") for c, u in zip(cells, used, strict=True)
    )
    gap = mine.centre - other.centre
    if gap.ndim == 1:
        return gap / other.scale
    white: Tensor = torch.linalg.solve_triangular(other.scale, gap[..., None], upper=False)
    return white[..., 0].square().sum(-1).sqrt()


def _check(unlearned: Tensor, null: Tensor) -> None:
    check_margins("ulira", unlearned=matrix(unlearned), null=matrix(null))
    if unlearned.shape[1:] != null.shape[1:]:
        raise InputError(
            f"ulira: both sides must have the same examples and numbers, got"
            f" {tuple(unlearned.shape[1:])} and {tuple(null.shape[1:])}"
        )


def _mask(cells: Tensor, used: Tensor | None) -> Tensor:
    if used is None:
        return torch.ones(cells.shape[:2], dtype=torch.bool)
    if used.shape != cells.shape[:2] or used.dtype is not torch.bool:
        raise InputError(
            f"ulira: a mask must be boolean {tuple(cells.shape[:2])}, models by examples, got"
            f" {used.dtype} {tuple(used.shape)}"
        )
    return used


def _few(least: int) -> str:
    return f"fewer than {least} models of a kind, {least // 2} to fit and {least // 2} to attack"


def _nothing(examples: int, least: int, level: float) -> ULira:
    rows = torch.full((examples,), math.nan, dtype=torch.float64)
    note = f"all {examples} examples: {_few(least)}" if examples else "no examples"
    return ULira(math.nan, math.nan, math.nan, math.nan, rows, rows, rows, rows, level, note)
