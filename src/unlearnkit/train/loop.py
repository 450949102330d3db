"""The training loop: descent on one or several losses."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import Batch, Sampler, View
from unlearnkit.core.module_state import preserve_modes
from unlearnkit.core.ranks import average_gradients, check_divisible, shared_rows
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.batch_norm import eval_norms
from unlearnkit.train.training_guard import check_training_allowed
from unlearnkit.train.training_task import epoch_sampler, training_task

Loss = Callable[[Batch], Tensor]
Norm = Literal["train", "frozen"]


@dataclass(frozen=True)
class Pass:
    """One way through some rows within an epoch, with a loss of its own."""

    view: View
    loss: Loss
    stream: str
    """Name of the random stream that orders the rows."""

    epochs: int | None = None
    """How many epochs, from the first, have this pass; all when None."""

    batch_size: int | None = None
    """Rows in a step; the recipe's when None."""

    sampler: Sampler | None = None
    """Draws the rows of an epoch; each row once when None."""

    def size(self, recipe: Recipe) -> int:
        """Return the rows in a step."""
        return self.batch_size or recipe.batch_size

    def steps_in(self, epoch: int, recipe: Recipe) -> int:
        """Return the steps in an epoch, from 0."""
        if self.epochs is not None and epoch >= self.epochs:
            return 0
        return self.view.steps(self.size(recipe))

    def steps(self, recipe: Recipe) -> int:
        """Return the steps of the whole run."""
        times = recipe.epochs if self.epochs is None else min(self.epochs, recipe.epochs)
        return times * self.view.steps(self.size(recipe))


def descend(
    model: nn.Module,
    view: View,
    loss: Loss,
    recipe: Recipe,
    rt: Runtime,
    *,
    stream: str,
    norm: Norm = "train",
    steps: int | None = None,
    clip: float | None = None,
    before_step: Callable[[torch.optim.Optimizer], None] | None = None,
    after_step: Callable[[float], bool | None] | None = None,
    after_epoch: Callable[[int], bool] | None = None,
) -> list[float]:
    """Minimise a loss over the rows of a view.

    Args:
        model: Changed in place; only parameters that require gradients move. Its train or eval
            flags come back as they were.
        view: Rows to draw batches from.
        loss: From a batch to a scalar, or to one number a row ``(B,)``, whose mean is minimised:
            the same gradient in every bit, sooner.
        recipe: Optimiser, step size, schedule, epochs, batch size.
        rt: Device, precision, randomness, cost.
        stream: Name of the random stream that orders the rows.
        norm: Whether batch-normalisation statistics follow the data or stay as they are.
        steps: Exact length, going round the rows as often as it takes; the recipe's epochs when
            None.
        clip: Largest norm of the gradient; the recipe's when None.
        before_step: Called before each step with the optimiser, its rate set.
        after_step: Called after each step with the step's learning rate; may edit parameters; the
            run ends when it returns True.
        after_epoch: Called after each epoch with its number from 0; the run ends when it returns
            True.

    Returns:
        The mean loss of each epoch, weighted by rows; the last may be cut short.
    """
    return alternate(
        model,
        (Pass(view, loss, stream),),
        recipe,
        rt,
        norm=norm,
        steps=steps,
        clip=clip,
        before_step=before_step,
        after_step=after_step,
        after_epoch=after_epoch,
    )


def alternate(
    model: nn.Module,
    passes: Sequence[Pass],
    recipe: Recipe,
    rt: Runtime,
    *,
    norm: Norm = "train",
    steps: int | None = None,
    clip: float | None = None,
    before_step: Callable[[torch.optim.Optimizer], None] | None = None,
    after_step: Callable[[float], bool | None] | None = None,
    after_epoch: Callable[[int], bool] | None = None,
) -> list[float]:
    """Return the mean loss of each epoch of a training that minimises several losses in turn.

    An epoch makes all passes in order, with one optimiser for all; the schedule is over the steps
    of all passes, or by epochs however long each is. Other arguments are those of ``descend``.
    """
    check_training_allowed()
    check_divisible(min(one.size(recipe) for one in passes))
    params = [p for p in model.parameters() if p.requires_grad]
    whole = sum(one.steps(recipe) for one in passes)
    by_epoch = whole / max(recipe.epochs, 1) if steps is None and recipe.schedule == "step" else 0.0
    steps = whole if steps is None else steps
    if not params or not steps:
        return []
    opt, clip = recipe.build(params), recipe.clip_norm if clip is None else clip
    curve, step, ended = list[float](), 0, False
    with training(model, norm):
        for epoch in count():
            seen: list[tuple[Tensor, int]] = []
            for one, plain, place in islice(_epoch(passes, recipe, rt, epoch), steps - step):
                batch = augment(plain, recipe, rt, f"{one.stream}/augment/{step}")
                lr = recipe.lr * recipe.factor(place * by_epoch if by_epoch else step, steps)
                for group in opt.param_groups:
                    group["lr"] = lr
                if before_step is not None:
                    before_step(opt)
                for p in params:
                    p.grad = None
                value = _differentiate(one.loss, batch, params, rt)
                if clip is not None:
                    rt.project()
                    nn.utils.clip_grad_norm_(params, clip)
                opt.step()
                rt.restore()
                seen.append((value.detach(), len(batch)))
                step += 1
                ended = after_step is not None and bool(after_step(lr))
                rt.restore()
                if ended:
                    break
            curve.append(_mean(seen))
            rt.reporter.progress(passes[-1].stream, step, steps)
            ended = ended or (after_epoch is not None and after_epoch(epoch))
            if ended or step >= steps:
                break
    opt.zero_grad(set_to_none=True)
    return curve


def _differentiate(loss: Loss, batch: Batch, params: Sequence[Tensor], rt: Runtime) -> Tensor:
    """Set the gradients of a loss over the rows of all ranks; return the loss."""
    with rt.autocast(), shared_rows():
        value = loss(batch)
    rt.backward(value)
    average_gradients(params)
    return value


def _epoch(
    passes: Sequence[Pass], recipe: Recipe, rt: Runtime, epoch: int
) -> Iterator[tuple[Pass, Batch, float]]:
    """Yield the batches of an epoch, each with its pass and its place in epochs."""
    length, i = sum(one.steps_in(epoch, recipe) for one in passes), 0
    for one in passes:
        if one.epochs is None or epoch < one.epochs:
            for batch in one.view.batches(
                one.size(recipe), rt, shuffle=f"{one.stream}/{epoch}", sampler=one.sampler
            ):
                yield one, batch, epoch + i / length
                i += 1


def _mean(seen: list[tuple[Tensor, int]]) -> float:
    """Return the mean loss over rows; it is read from the device once."""
    return torch.cat([value.expand(rows) for value, rows in seen]).mean().item()


def fit(
    model: nn.Module,
    view: View,
    task: Task,
    recipe: Recipe,
    rt: Runtime,
    *,
    stream: str,
    norm: Norm = "train",
    steps: int | None = None,
) -> list[float]:
    """Train a model on rows, by the recipe's loss and sampler; return each epoch's mean loss."""
    seen = training_task(task, recipe)

    def loss(batch: Batch) -> Tensor:
        return seen.losses(seen.outputs(model, batch), batch)

    one = Pass(view, loss, stream, sampler=epoch_sampler(recipe))
    return alternate(model, (one,), recipe, rt, norm=norm, steps=steps)


@contextmanager
def training(model: nn.Module, norm: Norm = "train") -> Iterator[None]:
    """Put a model in train mode, batch normalisation as given; restore all flags at the end.

    Batch normalisation that was put in eval mode by itself, in a model in train mode, stays so.
    """
    still = set(eval_norms(model).values())
    with preserve_modes(model):
        model.train()
        for m in model.modules():
            if isinstance(m, _BatchNorm) and (norm == "frozen" or m in still):
                m.eval()
        yield


def augment(batch: Batch, recipe: Recipe, rt: Runtime, stream: str) -> Batch:
    """Return the batch with inputs changed at random, if the recipe says so."""
    if not isinstance(recipe.augment, str) and isinstance(batch.x, Tensor):
        return replace(batch, x=recipe.augment(batch.x, rt.rng(stream)))
    if recipe.augment == "none" or not isinstance(batch.x, Tensor) or batch.x.ndim != 4:
        return batch
    moves = draw_moves(len(batch), rt.rng(stream))
    return replace(batch, x=moves_apply(batch.x, moves))


class Moves(NamedTuple):
    """How images are moved: mirrored or not ``(B,)``, and shifts ``(B, 1, 1)`` from 0 to 8."""

    flip: Tensor
    top: Tensor
    left: Tensor


def draw_moves(rows: int, rng: torch.Generator) -> Moves:
    """Draw how each of some images is moved."""
    flip = torch.rand(rows, generator=rng) < 0.5
    top = torch.randint(0, 9, (rows, 1, 1), generator=rng)
    left = torch.randint(0, 9, (rows, 1, 1), generator=rng)
    return Moves(flip, top, left)


def moves_apply(images: Tensor, moves: Moves) -> Tensor:
    """Return images ``(B, C, H, W)`` mirrored and shifted, with zeros where nothing was."""
    rows, _, height, width = images.shape
    flip, top, left = (t.to(images.device) for t in moves)
    x = torch.where(flip[:, None, None, None], images.flip(-1), images)
    padded = functional.pad(x, (4, 4, 4, 4))
    row = torch.arange(height, device=x.device)[None, :, None] + top
    col = torch.arange(width, device=x.device)[None, None, :] + left
    picked = padded[torch.arange(rows, device=x.device)[:, None, None], :, row, col]
    return picked.permute(0, 3, 1, 2).contiguous()
