"""DUCK: pull forget rows towards the nearest wrong class in the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.data import Batch
from unlearnkit.core.errors import UnknownNameError, UnsupportedError
from unlearnkit.core.method import Info, Need, Problem, Recalibrated, register
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.activations import capture_activations
from unlearnkit.train.early_stopping import alike, rows_of_removed_classes
from unlearnkit.train.features import features, last_layer_name, lookup_by_row, mean_error
from unlearnkit.train.loop import Norm, descend
from unlearnkit.train.schedule import joint_forward


def _published(lr: float, batch_size: int, epochs: int, **more: Any) -> dict[str, Any]:
    run = FineTuneSchedule.exact(optimizer="adam", lr=lr, batch_size=batch_size, epochs=epochs)
    return {
        "batch_norm": "keep",
        "ratio": 6,
        "pull": 1.0,
        "centroid_rows": 10 * batch_size,
        "run": run,
    } | more


@register
class Duck(Recalibrated):
    """Minimise the distance of forget embeddings to the nearest centroid that is not their own."""

    info = Info(
        title="DUCK",
        cite="Cotogni et al., 2023, arXiv:2312.02052",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS}),
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification"}),
        when=(
            "For whole classes, and for rows drawn at random where accuracy on them is what counts,"
            " when retained rows are at hand. Forget rows lie close to the centroid of another"
            " class afterwards, which an observer of the embedding can see."
        ),
        differs=(
            "by default it trains with the model's own recipe, at its rate, for at most a tenth of"
            " retraining's cost, pulls three times as hard and takes 3 steps for each batch of"
            " forget rows; the presets take Adam as published",
            "each forget row has one centroid, assigned once from the original's embedding;"
            " published code recomputes the list at each step and looks it up by batch number, so"
            " that batches after the first get the targets of another",
            "a class that vanishes is left out by its label; published code compares labels with"
            " positions in the list without it, and so leaves out another class",
            "centroids are the means of all retained rows; published code takes its first 10 or 50"
            " batches, of which the presets have 10, drawn at random",
            "retained and forget rows go through the model as one batch; published code runs them"
            " one after the other, and batch normalisation sees forget rows alone",
            "accuracy of rows that stay is measured on validation rows, which no metric reads;"
            " published code stops at the accuracy on test rows that it then reports",
            "the learning rate is not halved at epochs 25 and 40, labels are not smoothed, and the"
            " second phase of the latest published code is left out",
        ),
        fails=(
            "on 10,000 photographs (`cifar10_small`) the default rate is too high: retained rows"
            " fall to 0.75 and test rows to 0.61 for a class, to 0.75 and 0.57 for a random tenth,"
            " to 0.72 and 0.56 for wrong labels (3 seeds each); with run.lr 0.3 a class"
            " ends at 0.96 and 0.66 (one seed), 0.03 of it left; on digits that rate leaves up to"
            " half of it. Rates that rise and fall with the retained loss were tried: those that"
            " leave at most 0.02 of a class of digits keep 0.94 to 0.96 of these retained rows",
            "preset paper spares retained photographs (1.00 for a random tenth) and takes 0.7 of"
            " retraining's cost; test rows fall from 0.67 to 0.62 (one seed)",
            "over the same schedule without pull it adds, on digits, means of 3 seeds: accuracy on"
            " a class that vanishes 0.01 instead of 0.30, on a random tenth 0.97 instead of 0.99;"
            " membership inference on that tenth is as on the original (AUC 0.576 and 0.580)",
            "three classes of digits keep 0.04 of their accuracy for a tenth of retraining's cost",
            "forget rows that are answered no better than validation rows, as wrong labels and"
            " sub-classes are, end the run before it starts",
        ),
        presets={
            "paper": _published(1e-3, 1024, 10),
            "reference": _published(4e-4, 256, 200),
            "cifar100_classes": _published(1e-3, 1024, 25, pull=1.5, keep=1.5),
            "tinyimagenet_classes": _published(
                2e-4, 1024, 30, pull=0.5, keep=1.5, temperature=3.0, ratio=91
            ),
        },
        smoke={"stop": "never", "run": {"share": 0.2}},
    )

    head: str = "auto"
    """Name of the layer that turns embeddings into answers, as ``named_modules`` calls it: its
    input is the embedding. The layer that owns the last parameter when auto."""

    pull: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(3.0, ge=0, allow_inf_nan=False)
    """Weight of the distance of forget rows to their centroids (paper: lambda_FGT); 0 is plain
    fine-tuning."""

    keep: Annotated[float, SearchRange(0.1, 10, log=True)] = Field(1.4, ge=0, allow_inf_nan=False)
    """Weight of the cross-entropy of retained rows (paper: lambda_RET)."""

    temperature: Annotated[float, SearchRange(1, 4)] = Field(2.0, gt=0)
    """Divides the outputs of retained rows before their cross-entropy is taken (paper: T)."""

    ratio: int = Field(3, ge=1)
    """Steps on each batch of forget rows, each with new retained rows (paper: batch ratio; its
    code takes one more than it says)."""

    forget_batch: int | None = Field(None, ge=1)
    """Forget rows in a step; the run's batch size when None, which larger sets are cut into."""

    centroid_rows: int | None = Field(None, ge=1)
    """Most retained rows that centroids are the means of, drawn at random; all when None."""

    stop: Literal["accuracy", "never"] = "accuracy"
    """Stop after a pass over the forget rows in which their accuracy fell to the goal: ``gone`` for
    rows of classes that vanish, the original's accuracy on validation rows of the same classes for
    others; or at the end of the run."""

    gone: float = Field(0.01, ge=0, le=1)
    """Accuracy at which classes that vanish are forgotten."""

    norm: Norm = "train"
    """Whether batch normalisation follows the batches, of retained and forget rows as one, or stays
    as it came."""

    run: FineTuneSchedule = FineTuneSchedule(lr=1.0, share=0.1, schedule="constant")
    """How to train: its share is the most that it may cost, of retraining's cost; given a recipe,
    its epochs are passes over the forget rows."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Assign centroids once, then descend (paper: equations 1 to 5).

        Args:
            p: The problem.
            rt: Where to run.

        Returns:
            The model.
        """
        start = rt.cost.work
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        layer = embedding_head(p.model, self.head)
        aims = self._aims(p, layer, rt)
        goal = self._goal(p, rt)
        if goal is not None and 1 - mean_error(p.model, p.forget, p.task, rt) <= goal:
            rt.note(f"duck: did nothing: the accuracy on forget rows is {goal:.3g} or less already")
            return p.model
        size = min(self.forget_batch or recipe.batch_size, len(p.forget))
        turn = self.ratio * p.forget.steps(size)
        steps = self._steps(p, recipe, size, turn, start, rt)
        self._descend(p, recipe, layer, aims, _Pass(size, turn, steps, goal), rt)
        return p.model

    def _descend(
        self, p: Problem, recipe: Recipe, layer: str, aims: Tensor, plan: _Pass, rt: Runtime
    ) -> None:
        recall = lookup_by_row(p.forget, aims, rt)
        drawn = p.forget.endless_batches(plan.size, rt, shuffle="duck/forget")
        step, drop, reached = 0, next(drawn), False

        def loss(stay: Batch) -> Tensor:
            nonlocal drop
            if step and step % self.ratio == 0:
                drop = next(drawn)
            if not self.pull:
                return self.keep * self._kept(p, p.task.outputs(p.model, stay), stay)
            out, _ = joint_forward(p.task, p.model, stay, drop)
            far = cosine_distance(seen[layer][len(stay) :].flatten(1), recall(drop)).mean()
            return self.pull * far + self.keep * self._kept(p, out, stay)

        def look(lr: float) -> bool:
            nonlocal step, reached
            del lr
            step += 1
            if plan.goal is not None and (step % plan.turn == 0 or step == plan.steps):
                reached = 1 - mean_error(p.model, p.forget, p.task, rt) <= plan.goal
            return reached

        with capture_activations(p.model, [layer], "input") as seen:
            descend(
                p.model,
                p.retain,
                loss,
                recipe,
                rt,
                stream="retain",
                norm=self.norm,
                steps=plan.steps,
                after_step=look,
            )
        if plan.goal is not None and not reached:
            rt.note(
                f"duck: the accuracy on forget rows is above its goal of {plan.goal:.3g} after the"
                f" last of {plan.steps} steps; raise run.share or pull"
            )

    def _kept(self, p: Problem, out: Tensor, stay: Batch) -> Tensor:
        return p.task.losses(out / self.temperature, stay).mean()

    def _aims(self, p: Problem, layer: str, rt: Runtime) -> Tensor:
        """Return the centroid that each forget row is pulled to ``(n, D)``."""
        most = len(p.retain) if self.centroid_rows is None else self.centroid_rows
        some = p.retain.sample(most, rt, "duck/centroids")
        head = p.original.get_submodule(layer)
        near = features(p.original, some, p.task, rt, head=head)
        far = features(p.original, p.forget, p.task, rt, head=head)
        if near is None or far is None:
            raise UnsupportedError(
                f"duck: head: layer {layer!r} is not given one tensor with one entry a row; name"
                " another one that turns embeddings into answers"
            )
        means, classes = centroids(near, some.y)
        which = nearest_wrong_class(far, p.forget.y, means, classes)
        return means[which].to(next(p.model.parameters()).dtype)

    def _goal(self, p: Problem, rt: Runtime) -> float | None:
        """Return the accuracy on forget rows to stop at; None where there is no goal."""
        if self.stop == "never":
            return None
        gone = rows_of_removed_classes(p.forget, p.removed_classes)
        share = float(gone.double().mean())
        if share == 1:
            return self.gone
        if p.validation is None:
            rt.note(
                "duck: no validation rows, so nothing says when forget rows look unseen: the run"
                " goes to its end; give Case(validation=...)"
            )
            return None
        like = alike(p.validation, p.forget.pick(~gone))
        return share * self.gone + (1 - share) * (1 - mean_error(p.model, like, p.task, rt))

    def _steps(
        self, p: Problem, recipe: Recipe, size: int, turn: int, start: int, rt: Runtime
    ) -> int:
        if self.run.recipe is not None:
            return recipe.epochs * turn
        budget = self.run.share * 3 * p.recipe.epochs * len(p.retain) - (rt.cost.work - start)
        step = 3 * (min(recipe.batch_size, len(p.retain)) + size) + len(p.forget) / turn
        return max(1, int(budget / step))


@dataclass(frozen=True)
class _Pass:
    """How long a run is, and when it ends."""

    size: int
    """Forget rows in a step."""

    turn: int
    """Steps of a pass over the forget rows."""

    steps: int
    goal: float | None


def embedding_head(model: nn.Module, name: str) -> str:
    """Return the name of the layer whose input is the embedding.

    Args:
        model: The model.
        name: A layer's name, or auto.

    Returns:
        The name.

    Raises:
        UnknownNameError: If there is no such layer.
        UnsupportedError: If no layer with parameters comes before it.
    """
    found = last_layer_name(model) if name == "auto" else name
    layers = dict(model.named_modules())
    if found and found not in layers:
        raise UnknownNameError("layer", found, [n for n in layers if n])
    inside = set(layers[found].parameters()) if found else set(model.parameters())
    if not set(model.parameters()) - inside:
        raise UnsupportedError(
            f"duck: found no embedding: there is no layer with parameters before"
            f" {found or 'the last one, which is the model itself'!r}; give a model of two layers"
            " or more, or name its last one with head"
        )
    return found


def centroids(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean embedding of each class.

    Args:
        z: Embeddings ``(n, D)``.
        y: Classes ``(n,)``.

    Returns:
        Means ``(K, D)`` of the classes that have a row, and these classes ``(K,)``, in order.
    """
    classes, place = torch.unique(y.cpu(), return_inverse=True)
    total = z.new_zeros(len(classes), z.shape[1]).index_add_(0, place, z)
    return total / place.bincount()[:, None], classes


def nearest_wrong_class(z: Tensor, y: Tensor, means: Tensor, classes: Tensor) -> Tensor:
    """Return which centroid of another class is nearest to each row by cosine distance.

    Args:
        z: Embeddings ``(n, D)``.
        y: The rows' own classes ``(n,)``.
        means: Centroids ``(K, D)``.
        classes: Their classes ``(K,)``.

    Returns:
        Positions among the centroids ``(n,)``.

    Raises:
        UnsupportedError: If there is no centroid of another class.
    """
    away = torch.stack([cosine_distance(z, c.expand_as(z)) for c in means], 1)
    own = y.cpu()[:, None] == classes
    if bool(own.all(1).any()):
        left = ", ".join(str(c) for c in classes.tolist())
        raise UnsupportedError(
            "duck: no other class remains that forget rows could be pulled to, got retained rows of"
            f" class {left} alone; keep rows of a second class"
        )
    return away.masked_fill(own, torch.inf).argmin(1)


def cosine_distance(z: Tensor, c: Tensor) -> Tensor:
    """Return ``1 - cos(z, c)`` of each row ``(n,)``; 1 where either is zero."""
    sizes = torch.linalg.vector_norm(z, dim=1) * torch.linalg.vector_norm(c, dim=1)
    near: Tensor = (z * c).sum(1) / sizes.where(sizes > 0, 1)
    return 1 - near
