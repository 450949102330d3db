"""Generator networks: random numbers in, model inputs out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unlearnkit.core.runtime import Runtime

SLOPE = 0.2
"""Of leaky ReLU below zero."""

SAME = 1e-3
"""Spread over a batch, relative to the inputs' size, below which they are constant."""


class Generator(nn.Module):
    """From random numbers ``(B, latent)`` to inputs ``(B, *shape)`` of mean 0 and variance 1.

    The last layer is a batch normalisation with a scale and a shift for each channel of an image,
    or for each number of a vector: over a batch, inputs cannot be all the same unless a scale
    falls to zero.
    """

    def __init__(self, latent: int, shape: tuple[int, ...], body: nn.Sequential) -> None:
        super().__init__()
        self.latent, self.shape, self.body = latent, shape, body

    def forward(self, z: Tensor) -> Tensor:
        """Return inputs for random numbers."""
        x: Tensor = self.body(z)
        return x.view(len(z), *self.shape)


def generator(
    shape: tuple[int, ...], rt: Runtime, stream: str, *, latent: int = 128, width: int = 128
) -> Generator:
    """Return an untrained generator for inputs of a shape, in train mode, on the run's device.

    Images ``(C, H, W)`` with sides of 4 to 8 are made at their size; larger ones start from at most
    8x8 and are doubled as often as needed. Everything else is made as a vector with ``width``
    hidden units. For 3x32x32 and 1x28x28 this is the generator of Micaelli and Storkey, NeurIPS
    2019, arXiv:1905.09768. ``width`` is the number of channels at the start; half as many after the
    second doubling and each later one, but a quarter at least.
    """
    with torch.device("meta"):
        if len(shape) == 3 and min(shape[1:]) >= 4:
            made = Generator(latent, shape, _image(shape, latent, width))
        else:
            made = Generator(latent, shape, _vector(math.prod(shape), latent, width))
    return reinitialise(made.to_empty(device=rt.device), rt, stream)


def reinitialise(made: Generator, rt: Runtime, stream: str) -> Generator:
    """Return the same generator with new weights, drawn from a stream."""
    with torch.no_grad():
        for name, layer in made.named_modules():
            _fill(layer, rt, f"{stream}/{name}")
    return made


def constant(x: Tensor) -> bool:
    """Return whether inputs ``(B, ...)`` differ by no more than a thousandth of their size."""
    flat = x.flatten(1)
    return bool(flat.std(0).norm() <= SAME * flat.norm(dim=1).mean())


def _fill(layer: nn.Module, rt: Runtime, stream: str) -> None:
    """Draw a layer's weights as torch does, between plus and minus ``1 / sqrt(inputs)``."""
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        layer.reset_parameters()
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return
    bound, rng = 1 / math.sqrt(layer.weight[0].numel()), rt.rng(stream)
    for p in layer.parameters():
        p.copy_(bound * (2 * torch.rand(p.shape, generator=rng) - 1))


def _image(shape: tuple[int, ...], latent: int, width: int) -> nn.Sequential:
    channels, *sides = shape
    last = 3
    if sides == [28, 28]:
        sides, last = [32, 32], 7
    times = max(0, math.ceil(math.log2(max(sides) / 8)))
    sizes = [tuple(math.ceil(side / 2 ** (times - k)) for side in sides) for k in range(times + 1)]
    start = sizes[0]
    layers: list[nn.Module] = [
        nn.Linear(latent, width * math.prod(start)),
        nn.Unflatten(1, (width, *start)),
        nn.BatchNorm2d(width),
    ]
    before = width
    for k in range(max(times, 1)):
        after = max(width // 2 ** (k if times > 1 else 1), width // 4)
        if times:
            layers.append(nn.Upsample(size=sizes[k + 1]))
        layers += [
            nn.Conv2d(before, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
        before = after
    layers += [nn.Conv2d(before, channels, last, padding=1), nn.BatchNorm2d(channels)]
    return nn.Sequential(*layers)


def _vector(size: int, latent: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, width),
        nn.BatchNorm1d(width),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.LeakyReLU(SLOPE, inplace=True),
        nn.Linear(width, size),
        nn.BatchNorm1d(size),
    )
