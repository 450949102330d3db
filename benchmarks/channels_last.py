"""Convolutional networks channels last, as models run here on a CPU, against as they are built."""

import copy
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.measure import Fact, against
from unlearnkit.cases.networks import all_cnn, mobilenet_v2, resnet18, small_conv
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.channels_last import quickened
from unlearnkit.train.loop import fit

ROWS, BATCH = 128, 64
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "small_conv": small_conv,
    "all_cnn, half as wide": lambda: all_cnn(width=48),
    "resnet18, half as wide": lambda: resnet18(width=32),
    "mobilenet_v2, half as wide": lambda: mobilenet_v2(width=0.5),
}


def run() -> Iterator[Fact]:
    """Yield the ratio of times to train on rows, and to read what a network says about them."""
    for name, make in NETWORKS.items():
        yield from compare(name, make(), pairs=7)


def compare(name: str, model: nn.Module, *, pairs: int) -> Iterator[Fact]:
    """Yield both ratios for one network."""
    rows = TensorData(torch.randn(ROWS, 3, 32, 32), torch.arange(ROWS) % 10)
    task, recipe = Classification(10), Recipe(lr=0.01, momentum=0.9, epochs=1, batch_size=BATCH)
    last = quickened(model, Batch(rows.x, rows.y, torch.arange(ROWS)), task, Runtime())
    assert last is not model

    def train(start: nn.Module) -> nn.Module:
        twin = copy.deepcopy(start)
        fit(twin, View.all(rows), task, recipe, Runtime(), stream="train")
        return twin

    def read(asked: nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            out: torch.Tensor = asked.eval()(rows.x)
        return out

    torch.testing.assert_close(read(last), read(model), rtol=1e-3, atol=1e-4)
    for what, do in (("train", train), ("read", read)):
        yield against(
            f"time to {what}, channels last against as it is built: {name}",
            lambda do=do: do(last),
            lambda do=do: do(model),
            pairs=pairs,
            how=f"{ROWS} images of 3x32x32, batch {BATCH}",
            clock=time.process_time,
        )
