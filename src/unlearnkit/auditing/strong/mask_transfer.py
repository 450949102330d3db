"""What a strong audit takes from the model at hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unlearnkit.auditing.splits import RETAIN_ROWS
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.module_state import on_device
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.entanglement import distance_to_mean
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.method_masks import localizer_of_method
from unlearnkit.train.features import features
from unlearnkit.unlearning.run_method import Unlearned


def find_localizer(done: Unlearned, rt: Runtime) -> Localizer | None:
    """Return how to find on every original what the mask at hand lets move.

    Args:
        done: The model at hand, its original and its mask.
        rt: Where to run.

    Returns:
        How; None where everything may move, or the method chooses by itself.

    Raises:
        UnsupportedError: If the mask was not found by a localizer, on this original.
    """
    if done.mask is None or localizer_of_method(done.method) is not None:
        return None
    if done.mask.found_by is not None:
        localizer = Localizer.model_validate(done.mask.found_by)
        seeded = rt.fork(done.mask.seed)
        with _trainable_as(done.model, on_device(done.original, rt.device)) as model:
            again = localizer.find_in(model, done.parts, done.case.task, seeded)
        if again.digest() == done.mask.digest():
            return localizer
    raise UnsupportedError(
        "strong: this mask was not found by a localizer on this original, so none like it can be"
        " found on the others; unlearn with the words of one, such as weighted_grad:0.3"
    )


def distance_to_feature_mean(done: Unlearned, rt: Runtime) -> Tensor | None:
    """Return how far each forget row's features are from the middle of all rows, if known."""
    parts = done.parts
    assert parts.forget is not None
    assert parts.retain is not None
    draw = Runtime(seed=0)
    views = (parts.forget, parts.retain.sample(RETAIN_ROWS, draw, "strong/middle"))
    model = on_device(done.original, rt.device)
    inside, outside = (features(model, view, done.case.task, rt) for view in views)
    if inside is None or outside is None or inside.shape[1] != outside.shape[1]:
        return None
    return distance_to_mean(torch.cat([inside, outside]))[: len(inside)]


@contextmanager
def _trainable_as(like: nn.Module, model: nn.Module) -> Iterator[nn.Module]:
    """Let train, for a while, the parameters of a frozen model that train in another."""
    trained = {n for n, p in like.named_parameters() if p.requires_grad}
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.requires_grad_(name in trained)
    try:
        yield model
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name])
