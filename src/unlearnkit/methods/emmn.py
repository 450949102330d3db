"""EMMN: forget classes by training on noise alone."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.inference import predict
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.train.activations import capture_activations
from unlearnkit.train.data_free.class_gate import suppress_classes
from unlearnkit.train.data_free.input_optimization import optimise_inputs, random_inputs
from unlearnkit.train.features import lookup_by_row
from unlearnkit.train.loop import Norm, descend


@register
class EMMN(Method):
    """Train on noise: for forgotten classes the most wrong, for the others the most right."""

    info = Info(
        title="Error minimizing-maximizing noise",
        cite="Chundawat et al., IEEE TIFS 2023, arXiv:2201.05629",
        needs=frozenset({Need.CLASSES, Need.SHAPE}),
        tasks=frozenset({"classification"}),
        when="For whole classes when no training row is left and no new model can be built.",
        differs=(
            "noise of the remaining classes is taught the original's outputs, with the logits of"
            " removed classes below all others; the paper teaches its class alone. On digits with"
            " another network that lifts retained accuracy from 0.83 to 0.91",
            "noise of the remaining classes has no penalty on its size: a penalty shrinks it to"
            " where real inputs are not, and retained accuracy falls below 0.05",
            "gradients are limited to a norm of 2; without that, 32x32 images diverge",
            "the model is trained at half of the recipe's peak rate for 0.2 of its length",
            "noise takes few steps, so that it stays about as large as it was drawn; 20 steps of"
            " 0.1 ruin a perceptron (0.17 of the other classes right). In a network with batch"
            " normalisation it matches the means and variances that are stored, and 20 steps are"
            " better than 10 of 0.03, which leave as little as 0.70 of the retained rows right",
            "there are 256 noise inputs of each class; the paper has one batch",
            "no code was published; `paper` follows the text as far as it is known, and one pass"
            " over little noise changes next to nothing",
        ),
        fails=(
            "it damages convolutional networks with batch normalisation: on 8x8 digits, three such"
            " networks and three classes, the default forgets (at most 0.08 of the class is still"
            " right) and leaves 0.89 to 0.98 of the retained rows right; with the preset `paper`"
            " 0.29 to 0.88. Where any retained row is left, use it: `unsir` keeps 0.98 to 1",
            "on cifar10_small, where inputs are less like noise, retained accuracy fell from"
            " 0.54 to 0.37 with 10 steps of 0.03; the forgotten class is gone",
            "noise is one kind of input for each class: what it does not show is lost",
        ),
        presets={
            "paper": {
                "copies": 1,
                "steps": 400,
                "noise_lr": 0.03,
                "decay": 0.1,
                "smooth": 0.0,
                "match": 0.0,
                "clip": float("inf"),
                "teach": "classes",
                "norm": "train",
                "run": FineTuneSchedule.exact(lr=0.01, momentum=0.9, epochs=1, batch_size=256),
            }
        },
        smoke={"copies": 4, "steps": 5, "run": {"lr": 1.0, "share": 0.1}},
    )

    copies: Annotated[int, SearchRange(64, 1024, log=True)] = Field(256, ge=1)
    """Noise inputs for each class."""

    steps: int | None = Field(None, ge=0)
    """Steps in which noise is made. None is 3, and 20 where it matches batch normalisation, which
    keeps it near real inputs."""

    noise_lr: Annotated[float, SearchRange(0.01, 0.3, log=True)] = Field(
        0.1, gt=0, allow_inf_nan=False
    )
    """Learning rate of the noise, by Adam."""

    decay: float = Field(0.03, ge=0, allow_inf_nan=False)
    """Weight of the squared size of noise for forgotten classes (paper: lambda)."""

    keep_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of the squared size of noise for the other classes."""

    smooth: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of the squared differences of neighbouring pixels in noise of the other classes."""

    match: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of how far noise of the other classes is from the means and variances that batch
    normalisation remembers; nothing in a model without."""

    teach: Literal["answers", "classes"] = "answers"
    """What noise of the other classes is taught as: the original's answers, forgotten classes
    lowered below all others, or its class (paper)."""

    clip: Annotated[float, SearchRange(0.5, 10, log=True)] = Field(2.0, gt=0)
    """Largest norm of a gradient while the model is trained; infinity is no limit."""

    norm: Norm = "frozen"
    """Whether batch-normalisation statistics follow the noise."""

    run: FineTuneSchedule = FineTuneSchedule(lr=0.5, share=0.2)
    """How the model is trained on the noise."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Make the noise, train on it with its own classes as targets."""
        recipe = self.run.resolve(p.recipe)
        if recipe is None:
            return p.model
        removed = torch.tensor(p.removed_classes)
        most_wrong = self.noise(p, removed, rt, "forget", wrong=True)
        kept = torch.tensor([c for c in range(_count(p)) if c not in p.removed_classes])
        most_right = self.noise(p, kept, rt, "retain", wrong=False)
        both = (most_wrong, most_right)
        rows = View.all(
            TensorData(torch.cat([_tensor(b) for b in both]), torch.cat([b.y.cpu() for b in both]))
        )
        self.train(p, rows, recipe, rt)
        return p.model

    def noise(self, p: Problem, classes: Tensor, rt: Runtime, which: str, *, wrong: bool) -> Batch:
        """Return ``copies`` inputs of each class that the original is most wrong or right about."""
        assert p.input_shape is not None
        start = random_inputs(
            classes.repeat_interleave(self.copies), p.input_shape, rt, stream=f"emmn/{which}"
        )
        recipe = Recipe(optimizer="adam", lr=self.noise_lr)
        matched = _norms(p.original) if self.match else []
        norms = [] if wrong else matched
        steps = self.steps if self.steps is not None else 20 if matched else 3

        with capture_activations(p.original, [name for name, _ in norms], "input") as seen:

            def loss(out: Tensor, batch: Batch) -> Tensor:
                x, each = batch.x, p.task.losses(out, batch)
                assert isinstance(x, Tensor)
                size = x.square().sum()
                if wrong:
                    return self.decay * size - each.sum()
                total = each.sum() + self.keep_decay * size
                if self.smooth and x.ndim == 4:
                    total = total + self.smooth * _roughness(x)
                for name, layer in norms:
                    total = total + self.match * len(x) * _unlike(seen[name], layer)
                return total

            return optimise_inputs(p.original, start, p.task, loss, recipe, rt, steps=steps)

    def train(self, p: Problem, rows: View, recipe: Recipe, rt: Runtime) -> None:
        """Train the model on noise."""
        goal = None
        if self.teach == "answers":
            answers = suppress_classes(
                predict(p.original, rows, p.task, rt), p.removed_classes, 0.0
            )
            goal = lookup_by_row(rows, answers, rt)
        removed = torch.tensor(p.removed_classes, device=rt.device)

        def loss(batch: Batch) -> Tensor:
            out = p.task.outputs(p.model, batch)
            each = p.task.losses(out, batch)
            if goal is None:
                return each
            wrong = torch.isin(batch.y, removed)
            return torch.where(wrong, each, p.task.divergence(out, goal(batch)))

        descend(p.model, rows, loss, recipe, rt, stream="emmn", norm=self.norm, clip=self.clip)


def _count(p: Problem) -> int:
    count = p.task.spec()["classes"]
    assert isinstance(count, int)
    return count


def _tensor(batch: Batch) -> Tensor:
    assert isinstance(batch.x, Tensor)
    return batch.x.cpu()


def _norms(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]


def _unlike(x: Tensor, layer: _BatchNorm) -> Tensor:
    """Return how far the channels' means and variances are from what a layer remembers."""
    over = [axis for axis in range(x.ndim) if axis != 1]
    assert layer.running_mean is not None
    assert layer.running_var is not None
    scale = layer.running_var + layer.eps
    mean = (x.mean(over) - layer.running_mean).square() / scale
    spread = (x.var(over, unbiased=False) / scale).clamp_min(1e-12).sqrt() - 1
    return (mean + spread.square()).mean()


def _roughness(x: Tensor) -> Tensor:
    """Return the summed squared differences of neighbours along both sides of images."""
    return x.diff(dim=-1).square().sum() + x.diff(dim=-2).square().sum()
