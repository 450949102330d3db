"""By how much a photograph of CIFAR-10 was turned: regression on images with equal cohorts.

Ages and prices come with pictures and houses of their own: the young look otherwise than the old,
and a forgotten range of targets is also another kind of input, easier or harder than the rest. An
angle drawn from a seed says nothing of the picture. A turn of the data by a right angle gives data
of the same law, so that all four quadrants are equally hard until one of them is forgotten, and the
test rows of that quadrant are its match among rows that no model saw.

The target is the point on the circle, not the number of degrees: near 0 and 360 degrees equal
pictures would have the farthest targets, and the two ends of the range would be harder for it.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnkit.cases.cifar10 import images
from unlearnkit.cases.forget_sets import random_tenth
from unlearnkit.cases.networks import small_conv
from unlearnkit.cases.registry import CaseEntry, CaseWithRequest, builtin
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Groups, Targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.regression import Regression

RECIPE = Recipe(
    lr=0.05, momentum=0.9, weight_decay=5e-4, schedule="cosine", epochs=15, batch_size=64
)
TRAIN, VALIDATION, TEST = 4_000, 500, 1_000


def network() -> nn.Module:
    """Return an untrained small convolutional network with two outputs."""
    return small_conv(2)


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Return images turned about their centre, cut to a disc, so that corners tell nothing.

    Args:
        x: Images ``(B, 3, S, S)``, normalised: 0 is the mean colour and fills what is cut away.
        angle: Counter-clockwise, in radians ``(B,)``; pixels in between are interpolated linearly.

    Returns:
        The images ``(B, 3, S, S)``.
    """
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each pixel comes from; the second axis points down.
    back = torch.stack([cos, -sin, none, sin, cos, none], 1).view(-1, 2, 3)
    grid = functional.affine_grid(back, list(x.shape), align_corners=False)
    out = functional.grid_sample(x, grid, align_corners=False)
    side = (torch.arange(x.shape[-1]) + 0.5) / x.shape[-1] * 2 - 1
    return out * (side.square() + side.square()[:, None] <= 1)


@cache
def _sets() -> tuple[TensorData, ...]:
    x = images("train", TRAIN + VALIDATION)[0]
    parts = x[:TRAIN], images("test", TEST)[0], x[TRAIN:]
    return tuple(
        _rotated(part, name)
        for part, name in zip(parts, ("train", "test", "validation"), strict=True)
    )


def _rotated(x: Tensor, part: str) -> TensorData:
    share = torch.rand(len(x), generator=Runtime().rng(f"cifar10_rotation/{part}"))
    angle = 2 * math.pi * share
    y = torch.stack([angle.cos(), angle.sin()], 1)
    return TensorData(rotate(x, angle), y, (4 * share).long())


@cache
def cifar10_rotation() -> Case:
    """Return the case: 4,000 training, 1,000 test, 500 validation photographs, each turned.

    The targets are cosine and sine of the angle, the loss is the squared error. A model that was
    trained for a minute has an absolute error of 0.53 on test rows and 0.28 on training rows, where
    always answering 0 has one of 0.64: test photographs are off by 60 degrees on average and by 44
    in the middle, by 56 to 62 in each quadrant. A row's group is its quadrant: 0 is 0 to 90 degrees
    counter-clockwise.
    """
    train, test, validation = _sets()
    return Case(
        train=train,
        test=test,
        validation=validation,
        task=Regression.infer(train),
        fresh=network,
        recipe=RECIPE,
        name="cifar10_rotation",
    )


def one_quadrant() -> CaseWithRequest:
    """Forget photographs turned by 90 to 180 degrees: 1,022 rows."""
    return CaseWithRequest(cifar10_rotation(), Groups(1))


def nearly_upright() -> CaseWithRequest:
    """Forget photographs turned by less than 45 degrees to either side: 1,022 rows."""
    return CaseWithRequest(cifar10_rotation(), Targets(column=0, above=0.7071))


def a_random_tenth() -> CaseWithRequest:
    """Forget 400 training photographs drawn at random."""
    return random_tenth(cifar10_rotation())


builtin(
    CaseEntry(
        bundled=False,
        id="cifar10_rotation",
        make=cifar10_rotation,
        requests={"group": one_quadrant, "range": nearly_upright, "random_tenth": a_random_tenth},
        doc="4,000 photographs of CIFAR-10, each turned by an angle from a seed, regression on the"
        " circle; a small convolutional network",
    )
)
