"""Input noise: outputs at noisy copies of rows, and their distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, Inputs, View, as_named_tensors
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task

Unit = Literal["spread", "one"]
Clip = Literal["none", "batch", "row"]

SAMPLE = 1024
"""Most rows that the spread of inputs is measured on."""

ROWS = 1024
"""Most rows that run through a model at once: copies are made in parts."""


@dataclass(frozen=True)
class InputNoise:
    """Gaussian noise for the rows of one data set."""

    scales: Mapping[str, Tensor]
    """Unit of the noise of each real input, of a shape that broadcasts to one row; 0 is none."""

    embeddings: tuple[nn.Module, ...]
    """Layers whose outputs are perturbed in place of whole numbers."""

    size: float
    """Standard deviation, in these units."""

    clip: Clip = "none"
    """Copies stay between the extremes of the batch, of their own row, or are not limited."""

    paired: bool = True
    """Whether copies come in pairs with opposite noise."""

    def outputs(
        self, model: nn.Module, batch: Batch, task: Task, copies: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Run a model on noisy copies of rows.

        Args:
            model: In any mode; hooks are removed afterwards.
            batch: The B rows.
            task: Runs the model.
            copies: Noisy copies of each row; rounded up to an even number where they are paired.
            rng: Draws the noise.

        Returns:
            Outputs ``(copies, B, K)`` and the length of each copy's noise in units of the scales,
            after clipping ``(copies, B)``.
        """
        step = 2 if self.paired else 1
        copies = -(-copies // step) * step
        part = max(step, ROWS // len(batch) // step * step)
        outs, lengths = [], []
        for first in range(0, copies, part):
            count = min(part, copies - first)
            out, square = self._copies(model, batch, task, count, rng)
            outs.append(out.view(count, len(batch), -1))
            lengths.append(square.sqrt().view(count, len(batch)))
        return torch.cat(outs), torch.cat(lengths)

    def _copies(
        self, model: nn.Module, batch: Batch, task: Task, count: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        rows = batch.pick(torch.arange(len(batch)).repeat(count))
        squares: list[Tensor] = []

        def draw(like: Tensor) -> Tensor:
            half = count // 2 if self.paired else count
            shape = (half * len(batch), *like.shape[1:])
            dtype = torch.promote_types(like.dtype, torch.float32)
            noise = self.size * torch.randn(shape, generator=rng, dtype=dtype).to(like.device)
            return torch.cat([noise, -noise]) if self.paired else noise

        def move(x: Tensor, name: str) -> Tensor:
            scale = self.scales[name].to(x.device)
            moved = self._limit(x + scale * draw(x), x)
            length = torch.where(scale > 0, (moved - x) / scale.where(scale > 0, 1), 0)
            squares.append(length.flatten(1).square().sum(1))
            return moved.to(x.dtype)

        named = {
            name: move(x, name) if name in self.scales else x
            for name, x in sorted(as_named_tensors(rows.x).items())
        }
        x: Inputs = named["x"] if isinstance(rows.x, Tensor) else named
        with _perturb(self.embeddings, len(rows), draw, squares):
            out = task.outputs(model, replace(rows, x=x))
        return out, torch.stack(squares).sum(0).to(out)

    def _limit(self, moved: Tensor, x: Tensor) -> Tensor:
        if self.clip == "none":
            return moved
        flat = x.flatten(1) if self.clip == "row" else x.reshape(1, -1)
        ends = (e.view(-1, *(1 for _ in x.shape[1:])) for e in (flat.amin(1), flat.amax(1)))
        low, high = ends
        return moved.clamp(low, high)


def input_noise(
    model: nn.Module,
    view: View,
    rt: Runtime,
    *,
    size: float,
    unit: Unit,
    clip: Clip,
    paired: bool,
    who: str,
) -> InputNoise:
    """Return the noise that fits a model and the rows of a view.

    In units of the spread, a table's columns ``(n, D)`` have each their own standard deviation;
    columns with at most two values, such as categories, get no noise. Other inputs, and tables of
    a row or of such columns alone, have one deviation for all numbers.

    Args:
        model: Holds the embedding layers, for inputs that are whole numbers.
        view: The rows, ``SAMPLE`` of which are read.
        rt: Where rows come from.
        size: Standard deviation, in the unit.
        unit: Deviations of the inputs (of an embedding: of its weights), or 1.
        clip: Limits of a noisy input.
        paired: Whether copies come in pairs.
        who: Names the random stream, and the caller in an error.

    Returns:
        The noise.

    Raises:
        UnsupportedError: If inputs are whole numbers and the model has no embedding layer.
    """
    x = next(iter(view.sample(SAMPLE, rt, f"{who}/scale").batches(SAMPLE, rt))).x
    named = as_named_tensors(x)
    real = {name: t for name, t in named.items() if t.is_floating_point()}
    layers: tuple[nn.Module, ...] = ()
    if len(real) < len(named):
        layers = tuple(m for m in model.modules() if isinstance(m, nn.Embedding))
    if not real and not layers:
        raise UnsupportedError(
            f"{who}: needs real inputs or an embedding layer to add noise to, got inputs of type"
            f" {', '.join(sorted({str(t.dtype) for t in named.values()}))} and a model without"
            " nn.Embedding; convert the inputs with x.float()"
        )
    one = torch.ones(())
    scales = {name: _spread(t) if unit == "spread" else one for name, t in real.items()}
    return InputNoise(scales, layers, size, clip, paired)


def _spread(x: Tensor) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.ndim == 2 and len(x) > 1:
        between = ((x > x.amin(0)) & (x < x.amax(0))).any(0)
        if bool(between.any()):
            return x.std(0, correction=0) * between
    return x.std(correction=0)


@contextmanager
def _perturb(
    layers: tuple[nn.Module, ...],
    rows: int,
    draw: Callable[[Tensor], Tensor],
    squares: list[Tensor],
) -> Iterator[None]:
    """Add noise to what embedding layers say of each row; padding gets none."""

    def hook(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor | None:
        if len(out) != rows:  # positions, which are the same for all rows
            return None
        weight, padding = layer.weight, layer.padding_idx
        assert isinstance(weight, Tensor)
        noise = draw(out)
        if isinstance(padding, int):
            noise = noise * (args[0] != padding)[..., None]
        squares.append(noise.flatten(1).square().sum(1))
        return out + (weight.detach().std(correction=0) * noise).to(out.dtype)

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
