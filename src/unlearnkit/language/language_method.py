"""Methods of language models: descent on a forget term and a retain term."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.method import Info, Method, Need, Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.token_rows import IGNORED, TOKEN_TASKS
from unlearnkit.language.adapters import LowRankAdapter
from unlearnkit.language.unlearning_losses import kl_to_reference, sequence_nll
from unlearnkit.train.activations import capture_activations
from unlearnkit.train.early_stopping import OFF, StopMonitor, StopRule, retreat, snapshot
from unlearnkit.train.features import lookup_by_row
from unlearnkit.train.loop import descend

if TYPE_CHECKING:
    from unlearnkit.tasks.token_task import TokenTask


class ForgetSchedule(FineTuneSchedule):
    """A run over the forget rows, in units of the recipe that trained the model."""

    lr: Annotated[float, SearchRange(0.02, 2, log=True)] = Field(0.2, ge=0, allow_inf_nan=False)
    """Peak learning rate, as a multiple of the recipe's; 0 moves nothing."""

    share: Annotated[float, SearchRange(0.1, 2)] = Field(1.0, ge=0, le=10)
    """Most passes over the forget rows, as a share of the recipe's epochs."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate over the run."""


PUBLISHED_RUN = ForgetSchedule.exact(
    optimizer="adamw",
    lr=1e-5,
    weight_decay=0.01,
    epochs=10,
    batch_size=32,
    schedule="linear",
    warmup_epochs=1,
)
"""How OpenUnlearning (d3d7cf9) runs every method."""

NEEDS = frozenset({Need.FORGET, Need.RETAIN, Need.LABELS})
USES = frozenset({Need.VALIDATION})

PAIRED = (
    "by default by the recipe's own optimiser at a fifth of its rate, until the forget rows look"
    " like validation rows, and back to where the retained loss is within its limit; published"
    " settings are the preset `paper`"
)
"""How the defaults of all these methods differ from what is published."""


@dataclass(frozen=True)
class TokenBatch:
    """Some rows, cut to their longest, and what a model says of them once that is read."""

    batch: Batch
    first: int
    """Place of the first label of any row: T places from there on are looked at."""

    model: nn.Module
    task: TokenTask

    @property
    def labels(self) -> Tensor:
        """Return the labels of these places ``(B, T)``."""
        return self.batch.y[:, self.first :]

    @property
    def mask(self) -> Tensor:
        """Return where labels count ``(B, T)``."""
        return self.labels != IGNORED

    @cached_property
    def logits(self) -> Tensor:
        """Return the logits of each label ``(B, T, V)``."""
        return self.task.logits(self.model, self.batch, self.first)

    def nll(self, reduction: Literal["seq_sum", "seq_mean", "token"]) -> Tensor:
        """Return minus the log-probability of the labels, in nats."""
        return sequence_nll(self.logits, self.labels, self.mask, reduction)

    def activations(self, layer: str) -> Tensor:
        """Return what a layer gives at the places of the labels ``(B, T, D)``."""
        with capture_activations(self.model, [layer]) as found:
            self.task.logits(self.model, self.batch)
        return found[layer][:, self.first :]


class TokenModel:
    """A model on rows of tokens: logits before the first and after the last label are left out."""

    def __init__(self, model: nn.Module, task: TokenTask, view: View) -> None:
        """Take the model and where its rows come from."""
        self._model, self._task = model, task
        there, width = view.data.y.cpu() != IGNORED, view.data.y.shape[1]
        self._first = torch.where(there, torch.arange(width), width).amin(1)
        self._end = torch.where(there, torch.arange(width) + 1, 0).amax(1)

    def __call__(self, batch: Batch) -> TokenBatch:
        """Return rows without what follows their last labels: nothing there is counted."""
        width, full = int(self._end[batch.row].max()), batch.y.shape[1]
        first = int(self._first[batch.row].min())

        def short(t: Tensor, name: str = "") -> Tensor:
            along = self._task.in_place or name.startswith("decoder_")
            return t[:, :width] if along and t.ndim > 1 and t.shape[1] == full else t

        rows = batch.x
        x = short(rows) if isinstance(rows, Tensor) else {n: short(t, n) for n, t in rows.items()}
        cut = replace(batch, x=x, y=batch.y[:, :width])
        return TokenBatch(cut, first, self._model, self._task)


class ReferenceModel:
    """The model as it came. Its log-probabilities of the forget rows are computed once."""

    def __init__(self, p: Problem, rt: Runtime) -> None:
        """Take the problem; nothing runs before it is read."""
        self._p, self._rt = p, rt
        self._known: Callable[[Batch], Tensor] | None = None
        self.model = p.original

    def log_probs(self, batch: Batch) -> Tensor:
        """Return the log-probability of each forget row's labels ``(B,)``, in nats."""
        if self._known is None:
            sums = log_prob_sums(self.model, self._p.forget, self._p, self._rt)
            self._known = lookup_by_row(self._p.forget, sums, self._rt)
        return self._known(batch)

    def of(self, seen: TokenBatch) -> TokenBatch:
        """Return the same rows for the reference model; read it under ``torch.no_grad()``."""
        return replace(seen, model=self.model)

    def logits(self, seen: TokenBatch) -> Tensor:
        """Return the reference model's logits of each label ``(B, T, V)``, without a gradient."""
        with torch.no_grad():
            return self.of(seen).logits


def log_prob_sums(model: nn.Module, view: View, p: Problem, rt: Runtime) -> Tensor:
    """Return the log-probability of each row's labels ``(n,)`` under a model in eval mode."""
    run, size = TokenModel(model, language_task(p), view), p.recipe.batch_size
    with torch.no_grad(), rt.autocast():
        return torch.cat([-run(b).nll("seq_sum") for b in view.batches(size, rt)])


def language_task(p: Problem) -> TokenTask:
    """Return the task of a problem, which ``info.tasks`` says is one of tokens."""
    return cast("TokenTask", p.task)


@dataclass(frozen=True)
class ForgetStep:
    """What the forget term of a step may read."""

    rows: TokenBatch
    """The forget rows and what the model says of them."""

    reference: ReferenceModel
    model: nn.Module
    problem: Problem
    rt: Runtime
    number: int
    """Of the step, from 0."""


ForgetTerm = Callable[[ForgetStep], Tensor]
Weighing = Callable[[Tensor, Tensor, float], Tensor]
"""From the forget and the retain term, and how much of the run is over, to their total."""


class LanguageMethod(Method):
    """Descend on ``forget_weight * forget term + retain_weight * retain term``.

    Each batch of forget rows comes with as many retained rows, drawn anew (OpenUnlearning's pairs).
    """

    forget_weight: Annotated[float, SearchRange(0.05, 5, log=True)] = Field(
        1.0, ge=0, allow_inf_nan=False
    )
    """Weight of the forget term (gamma)."""

    retain_weight: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(
        1.0, ge=0, allow_inf_nan=False
    )
    """Weight of the retain term (alpha); at 0 retained rows are not read in training."""

    retain_loss: Literal["nll", "kl"] = "nll"
    """Retain term: the mean loss of the labels, or KL(reference || model) at their places."""

    run: ForgetSchedule = ForgetSchedule()
    """How fast, and how many passes over the forget rows at most."""

    guard: StopRule = StopRule(sample=128)
    """When to stop, and when to move back; checked after each pass over the forget rows."""

    peft_config: LowRankAdapter | None = None
    """Train a LoRA adapter alone (``peft.LoraConfig``, or its settings); all weights when None."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Return the function that gives each step's forget term."""
        raise NotImplementedError

    def weighing(self, p: Problem, rt: Runtime) -> Weighing:
        """Return how the two terms make the total."""
        return lambda forget, retain, _: self.forget_weight * forget + self.retain_weight * retain

    def retain_term(self, seen: TokenBatch, reference: ReferenceModel) -> Tensor:
        """Return the retain term of some rows."""
        if self.retain_loss == "nll":
            return seen.nll("token")
        return kl_to_reference(seen.logits, reference.logits(seen), seen.mask)

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Descend pass by pass over the forget rows, until they look unseen."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        reference = ReferenceModel(p, rt)
        go = TokenModel(p.model, language_task(p), p.forget)
        stay = TokenModel(p.model, language_task(p), p.retain)
        term, weigh = self.forget_term(p, rt), self.weighing(p, rt)
        size = min(recipe.batch_size, len(p.retain))
        drawn = p.retain.endless_batches(size, rt, shuffle=f"{self.id}/retain")
        total, step = recipe.epochs * p.forget.steps(recipe.batch_size), 0

        def loss(batch: Batch) -> Tensor:
            nonlocal step
            forget = term(ForgetStep(go(batch), reference, p.model, p, rt, step))
            keep = next(drawn) if self.retain_weight else None
            if keep is not None and len(keep) > len(batch):
                keep = keep.pick(torch.arange(len(keep), device=keep.y.device) < len(batch))
            retain = forget.new_zeros(())
            if keep is not None:
                retain = self.retain_term(stay(keep), reference)
            step += 1
            return weigh(forget, retain, (step - 1) / total)

        stop = stop_rule(self.guard, p, rt, self.id)
        descend(p.model, p.forget, loss, recipe, rt, stream=f"{self.id}/forget", after_epoch=stop)
        return p.model


def stop_rule(guard: StopRule, p: Problem, rt: Runtime, who: str) -> Callable[[int], bool] | None:
    """Return what ends a run after a pass: forget rows look unseen, or retained rows suffer.

    A pass that went too far is taken back as little as the limits demand.

    Args:
        guard: The limits.
        p: The problem, whose model is looked at.
        rt: Where to run.
        who: The method's id.

    Returns:
        From the number of the pass to whether the run ends; None where there are no limits.
    """
    if guard == OFF:
        return None
    watch, good = StopMonitor(guard, p, rt, who), snapshot(p.model)
    if watch.overshot():
        rt.note(f"{who}: the forget rows look unseen already")

    def enough(epoch: int) -> bool:
        del epoch
        nonlocal good
        if watch.intact() and not watch.overshot():
            good = snapshot(p.model)
            return watch.unseen()
        retreat(p.model, good, watch, tries=5)
        return True

    return enough


def language_info(title: str, cite: str, when: str, **more: Any) -> Info:
    """Return what methods of this kind declare alike, with what is a method's own.

    Args:
        title: As in ``Info``.
        cite: As in ``Info``.
        when: As in ``Info``.
        **more: Presets (without run and guard, which are added), ``differs``, ``fails``.

    Returns:
        The facts of the method.
    """
    fixed = {"run": PUBLISHED_RUN, "guard": OFF}
    presets = {name: {**fixed, **own} for name, own in more.pop("presets", {"paper": {}}).items()}
    return Info(
        title=title,
        cite=cite,
        when=when,
        needs=NEEDS,
        uses=USES,
        tasks=more.pop("tasks", TOKEN_TASKS),
        may_damage=True,
        presets=presets,
        differs=(PAIRED, *more.pop("differs", ())),
        smoke={"run": {"lr": 1.0, "share": 0.2}, "guard": OFF},
        **more,
    )
