"""Contamination of oracles: were they, or what they start from, trained on the forget set?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearnkit.core.case import Partition
from unlearnkit.core.data import View
from unlearnkit.core.digest import model_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import inference_batch_size
from unlearnkit.core.module_state import eval_mode, structural_difference
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import Oracles
from unlearnkit.stats.matched_auc import matched_auc
from unlearnkit.stats.roc import auc
from unlearnkit.unlearning.run_method import fresh_model

MOVED = 64
"""Roundings of its type by which training has clearly moved a scalar."""

LEAST = 8
"""Clearly moved scalars of a tensor that can tell something."""

ROWS = 2000
"""Most rows of each kind on which a fresh model is run."""

KNOWS = 0.5
"""Share of an ignorant model's loss below which a fresh model knows the rows."""

AUC, Z = 0.75, 4.0
"""Membership AUC of forget rows against comparable unseen rows, and its standard score, from which
on knowledge is memory: a draw of unseen rows reaches such a score once in 30,000."""


def check_fresh(
    oracles: Oracles, original: nn.Module, parts: Partition, rt: Runtime
) -> tuple[str, ...]:
    """Refuse oracles that were trained on the forget set, or start from what was.

    A shared initial state, such as a pretrained backbone or embeddings, frozen or not, is no fault:
    a scalar tells only where training on the rows has moved it. Three findings are faults. (1) In a
    tensor, half or more of the scalars that training moved in the original are equal in the oracle:
    it is a copy. Published code has called a model retrained whose last layer alone was reset. (2)
    In a tensor, half or more of the scalars that training moved in the oracle equal the original's
    before that training: ``fresh`` hands out the original's weights. (3) A fresh model knows the
    forget rows, and far better than unseen rows of the same classes.

    Args:
        oracles: Models said to be retrained.
        original: The model that was trained on everything.
        parts: The rows that the oracles never saw, and those that they were trained on.
        rt: Where to run.

    Returns:
        What a reader should know: a fresh model that knows the forget rows as well as unseen ones
        was trained on something like them, and perhaps on them.

    Raises:
        InputError: If an oracle is contaminated, or of another architecture than the original.
    """
    models = oracles.models
    for k, model in enumerate(models):
        _check_shapes(k, model, original)
    if oracles.case.fresh is None:
        return ()
    first = _untrained(oracles, 0, rt)
    touched: dict[str, Tensor] | None = None
    pairs = [(k, "copy") for k, m in enumerate(models) if _any_equal(m, original)]
    if not oracles.outside and _any_equal(first, original):
        pairs.append((0, "start"))
    for k, what in pairs:
        start = first if k == 0 else _untrained(oracles, k, rt)
        if touched is None:
            touched = _touched(oracles, (original, first), parts, rt)
        if what == "copy":
            found = _equal_where_moved(start, original, (models[k], original), touched)
            told = "are copies of the original's, as training left them"
        else:
            found = _equal_where_moved(start, models[k], (start, original), touched)
            told = (
                "start from the original's own, as training left them: fresh hands them out, or"
                " freezes other layers than when the original was trained"
            )
        if found:
            raise InputError(
                f"oracle {k}: contaminated: the weights of {len(found)} tensors {told}, first"
                f" {found[0]}; train it from a model that never saw the forget set"
            )
    return () if oracles.outside else _behaviour(oracles, first, parts.forget, rt)


def check_outside(
    oracles: Oracles, digests: Sequence[str], original: nn.Module, unlearned: nn.Module
) -> tuple[str, ...]:
    """Refuse models from outside that cannot be retrained ones, and say what is taken on trust.

    Args:
        oracles: Models that the user retrained elsewhere.
        digests: Theirs, in order.
        original: The model that was trained on everything.
        unlearned: The model that is audited.

    Returns:
        What a reader should know.

    Raises:
        InputError: If one is of another architecture, or is the original or the audited model.
    """
    rebuilt = bool(structural_difference(unlearned, original))
    named = {model_digest(unlearned): "audited model", model_digest(original): "original"}
    partly = 0
    for k, (model, digest) in enumerate(zip(oracles.models, digests, strict=True)):
        odd = structural_difference(model, unlearned if rebuilt else original)
        if odd:
            raise InputError(
                f"oracle {k}: from outside, is of another architecture: {odd}; give models of the"
                " audited model's"
            )
        if digest in named:
            raise InputError(
                f"oracle {k}: from outside, is the {named[digest]} itself, bit for bit; give a"
                " model that was retrained without the forget set"
            )
        partly += _any_equal(model, original)
    told = (
        f"{len(oracles)} retrained models come from outside: that they never saw the forget set,"
        " and were trained as the original was, is the word of whoever gave them",
    )
    if not partly:
        return told
    return (
        *told,
        f"{partly} of the retrained models from outside share weights with the original: they are"
        " copies in part, unless these weights were pretrained or frozen",
    )


def _check_shapes(k: int, model: nn.Module, original: nn.Module) -> None:
    theirs = dict(original.named_parameters())
    for name, p in model.named_parameters():
        if name not in theirs or theirs[name].shape != p.shape:
            raise InputError(f"oracle {k}: {name} does not fit the original; give one architecture")


def _untrained(oracles: Oracles, k: int, rt: Runtime) -> nn.Module:
    """Return what an oracle was before it was trained."""
    return fresh_model(oracles.case, rt.fork(oracles.runs[k].seed), "train/init")


def _trainable(model: nn.Module, other: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the parameters of two models, on the CPU, but for those frozen in both."""
    theirs = dict(other.named_parameters())
    return {
        n: (p.detach().cpu(), theirs[n].detach().cpu())
        for n, p in model.named_parameters()
        if n in theirs and theirs[n].shape == p.shape
        if p.requires_grad or theirs[n].requires_grad
    }


def _any_equal(model: nn.Module, other: nn.Module) -> bool:
    """Return whether so many scalars of a tensor are equal that a closer look is due."""
    pairs = _trainable(model, other).values()
    return any(int((a == b).sum()) >= max(LEAST, 0.01 * a.numel()) for a, b in pairs)


def _touched(
    oracles: Oracles, models: tuple[nn.Module, ...], parts: Partition, rt: Runtime
) -> dict[str, Tensor]:
    """Return which scalars get a gradient from the training rows, in any of some models.

    All others are where they were, or where weight decay alone brings them.
    """
    case = oracles.case
    quiet = rt.fork(0)
    found: dict[str, Tensor] = {}
    for given in models:
        model = _untrained(oracles, 0, rt)  # the given ones stay where they are
        model.load_state_dict(given.state_dict())
        model.requires_grad_(True)
        named = dict(model.named_parameters())
        for view in (parts.forget, parts.retain):
            if view is None or not view.labelled:
                continue
            for batch in view.batches(inference_batch_size(view, quiet), quiet):
                with eval_mode(model):
                    loss = case.task.losses(case.task.outputs(model, batch), batch).sum()
                grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
                for n, g in zip(named, grads, strict=True):
                    if g is not None:
                        found[n] = found.get(n, False) | (g.cpu() != 0)
    return found


def _equal_where_moved(
    start: nn.Module,
    trained: nn.Module,
    pair: tuple[nn.Module, nn.Module],
    touched: dict[str, Tensor],
) -> list[str]:
    """Return the tensors in which two models agree in half of what training has clearly moved.

    Args:
        start: Before training.
        trained: After it.
        pair: The two models.
        touched: Which scalars the rows move.

    Returns:
        Their names.
    """
    moved, found = _trainable(start, trained), []
    for name, (a, b) in _trainable(*pair).items():
        if name not in touched or name not in moved:
            continue
        before, after = moved[name]
        far = (after - before).abs() > MOVED * torch.finfo(after.dtype).eps * after.abs()
        clear = far & touched[name]
        count = int(clear.sum())
        if count >= LEAST and int((a == b)[clear].sum()) >= 0.5 * count:
            found.append(name)
    return found


@dataclass(frozen=True)
class _Known:
    """What a fresh model's losses say about some rows."""

    loss: float
    auc: float
    z: float


def _behaviour(
    oracles: Oracles, fresh: nn.Module, forget: View | None, rt: Runtime
) -> tuple[str, ...]:
    """Refuse a fresh model that remembers the forget rows; tell of one that knows them."""
    case = oracles.case
    if forget is None or not forget.labelled:
        return ()
    known = _known(oracles, fresh, forget, rt)
    if not known.loss < KNOWS * case.task.never_seen:
        return ()
    told = (
        f"a fresh model knows the forget set before any training: mean loss {known.loss:.3g}, of"
        f" {case.task.never_seen:.3g} without knowledge"
    )
    if known.auc >= AUC and known.z >= Z:
        raise InputError(
            f"oracle: contaminated: {told}, and far better than unseen rows (AUC {known.auc:.3f},"
            f" {known.z:.1f} standard errors above 0.5); give a fresh that never saw these rows"
        )
    return (
        f"{told}; if these rows were among those that it was pretrained on, the oracles have seen"
        " them too, and nothing here measures forgetting",
    )


def _known(oracles: Oracles, fresh: nn.Module, forget: View, rt: Runtime) -> _Known:
    case, draw = oracles.case, rt.fork(0)
    data = case.held_out or case.test
    forget = forget.sample(ROWS, draw, "contamination/forget")
    ours = _losses(oracles, fresh, forget, draw)
    unseen = None if data is None else View.all(data)
    if unseen is None or not unseen.labelled:
        return _Known(ours.mean().item(), math.nan, math.nan)
    unseen = unseen.sample(ROWS, draw, "contamination/unseen")
    if forget.y.is_floating_point():
        # An untrained model answers rows of some targets well by chance: compare like targets.
        found = matched_auc(-ours, -_losses(oracles, fresh, unseen, draw), forget.y, unseen.y)
        loss = ours.mean().item() if found.auc >= AUC else math.inf
        return _Known(loss, found.auc, _standard_score(found.auc, found.members, found.others))
    mine, theirs = _comparable(forget, unseen)
    n, m = int(mine.sum()), len(theirs)
    if not n or not m:
        return _Known(ours.mean().item(), math.nan, math.nan)
    area = auc(-ours[mine], -_losses(oracles, fresh, theirs, draw))
    return _Known(ours.mean().item(), area, _standard_score(area, n, m))


def _standard_score(area: float, n: int, m: int) -> float:
    """Return how many standard errors an AUC lies above 0.5, by the rank-sum test."""
    return (area - 0.5) / math.sqrt((n + m + 1) / (12 * n * m)) if n and m else math.nan


def _comparable(forget: View, unseen: View) -> tuple[Tensor, View]:
    """Return which forget rows have unseen ones of their class, and as many unseen ones a class."""
    a, b = forget.y, unseen.y
    if a.is_floating_point() or a.ndim != 1:
        return torch.ones(len(forget), dtype=torch.bool), unseen
    mine, theirs = torch.zeros(len(a), dtype=torch.bool), []
    for c in torch.unique(a).tolist():
        ours, others = (a == c).nonzero()[:, 0], (b == c).nonzero()[:, 0]
        few = min(len(ours), len(others))
        mine[ours[:few]] = True
        theirs.append(others[:few])
    return mine, unseen.pick(torch.cat(theirs))


def _losses(oracles: Oracles, model: nn.Module, view: View, rt: Runtime) -> Tensor:
    """Return the loss of each row ``(n,)``, on the CPU, float64."""
    task, size = oracles.case.task, inference_batch_size(view, rt)
    with eval_mode(model), torch.inference_mode():
        parts = view.batches(size, rt)
        return torch.cat([task.losses(task.outputs(model, b), b).double().cpu() for b in parts])
