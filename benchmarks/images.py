"""Convolutional networks on a CPU: channels last, and read few rows at once."""

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from benchmarks.measure import Fact, against
from unlearnkit.cases.networks import all_cnn, mobilenet_v2, resnet18, small_conv
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.inference import MOST, first_rows, inference_batch_size
from unlearnkit.core.inference import predict as outputs
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.loop import fit
from unlearnkit.train.memory_format import to_channels_last_if_faster

ROWS, BATCH, PAIRS = MOST, 64, 5
TASK = Classification(10)
RECIPE = Recipe(lr=0.01, momentum=0.9, epochs=1, batch_size=BATCH)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "small_conv": small_conv,
    "all_cnn, half as wide": lambda: all_cnn(width=48),
    "resnet18, half as wide": lambda: resnet18(width=32),
    "mobilenet_v2, half as wide": lambda: mobilenet_v2(width=0.5),
}


def run() -> Iterator[Fact]:
    """Yield ratios of times to train on rows, and to read what a network says about them."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 3, 32, 32, generator=rng)
    rows = View.all(TensorData(x, torch.arange(ROWS) % 10))
    for name, make in NETWORKS.items():
        yield from compare(name, make(), rows)


def compare(name: str, model: nn.Module, rows: View) -> Iterator[Fact]:
    """Yield the ratios for one network: both gains are told apart."""
    rt = Runtime()
    last, few = (
        to_channels_last_if_faster(model, first_rows(rows, rt), TASK, rt),
        inference_batch_size(rows, rt),
    )
    assert last is not model
    ratio = partial(against, pairs=PAIRS, clock=time.process_time)
    yield ratio(
        f"time to train, channels last against as it is built: {name}",
        lambda: train(last, rows.pick(torch.arange(2 * BATCH))),
        lambda: train(model, rows.pick(torch.arange(2 * BATCH))),
        how=f"{2 * BATCH} images of 3x32x32, batch {BATCH}",
    )
    yield ratio(
        f"time to read, channels last against as it is built: {name}",
        lambda: outputs(last, rows, TASK, rt, few),
        lambda: outputs(model, rows, TASK, rt, few),
        how=f"{ROWS} images of 3x32x32, {few} at once",
    )
    yield ratio(
        f"time to read, {few} rows at once against {MOST}: {name}",
        lambda: outputs(last, rows, TASK, rt, few),
        lambda: outputs(last, rows, TASK, rt, MOST),
        how=f"{ROWS} images of 3x32x32, channels last",
    )


def train(start: nn.Module, rows: View) -> nn.Module:
    """Train a copy as it lies in memory, for an epoch."""
    twin = copy.deepcopy(start)
    fit(twin, rows, TASK, RECIPE, Runtime(), stream="train")
    return twin
