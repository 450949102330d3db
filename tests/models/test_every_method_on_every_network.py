"""Each registered method runs on each network of the literature; nothing here names a method."""

from functools import cache
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.networks import all_cnn, mobilenet_v2, resnet18, small_conv, vit
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.method import Need
from unlearnkit.testing.subject import with_toy_checkpoints
from unlearnkit.unlearning.requirements import applicable_methods

CLASSES = 4


class Recurrent(nn.Module):
    """An LSTM over sequences ``(B, 12, 5)``, and a linear head on its last state."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 16, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


NETWORKS = {
    "all_cnn": lambda: all_cnn(CLASSES, width=8),
    "resnet18": lambda: resnet18(CLASSES, width=8),
    "mobilenet_v2": lambda: mobilenet_v2(CLASSES, width=0.1),
    "channels_last": lambda: small_conv(CLASSES).to(memory_format=torch.channels_last),
    "vit": lambda: vit(CLASSES, width=16, depth=2, heads=2, patch=8),
    "lstm": Recurrent,
}
"""Thin versions: the layers and their order are the published ones."""

SHAPES = {"lstm": (12, 5)}
"""Of one input, where it is no image."""

TRANSFORMER = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)
DEEPEST = "mobilenet_v2"
"""It takes as long as all others together."""

ALL_METHODS_ON = "channels_last"
"""The quickest network: every method runs on it each time, on the others two; on all if asked."""

EVERYWHERE = ("finetune", "ssd")
"""A method that trains, and one that edits weights."""

AUDITED = ("all_cnn", "lstm")
"""Networks with and without images that are audited each time."""

METHODS = {i: m for i, m in uk.catalog.methods().items() if "classification" in m.info.tasks}


def named(name, *values, each_time):
    marks = [TRANSFORMER] if name == "vit" else []
    marks += [] if each_time and name != DEEPEST else [pytest.mark.exhaustive]
    return pytest.param(*values, name, marks=marks, id="-".join((*values, name)))


PAIRS = [
    named(n, m, each_time=n == ALL_METHODS_ON or m in EVERYWHERE) for m in METHODS for n in NETWORKS
]


def noise(count, shape, seed):
    """Return noise ``(count, *shape)`` whose mean tells its class."""
    y = torch.arange(count) % CLASSES
    x = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return x + y.view(-1, *(1 for _ in shape)), y


@cache
def problem(name):
    shape = SHAPES.get(name, (3, 32, 32))
    case = uk.Case(
        train=noise(24, shape, 0),
        group=torch.arange(24) // 12,
        test=noise(16, shape, 1),
        validation=noise(12, shape, 2),
        task=uk.Classification(CLASSES),
        fresh=NETWORKS[name],
        recipe=uk.Recipe(lr=0.05, epochs=2, batch_size=12),
    )
    return case, uk.train_original(case).model


def smoke(method):
    return METHODS[method].build(**METHODS[method].info.smoke)


@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_a_method_forgets_a_class_of_a_network(method, name):
    case, model = problem(name)
    if Need.CHECKPOINTS in METHODS[method].info.needs:
        case = with_toy_checkpoints(case)
    request = uk.Classes(CLASSES - 1)
    assert method in applicable_methods(case, case.partition(request))
    before = {k: t.clone() for k, t in model.state_dict().items()}
    try:
        done = uk.unlearn(model, case, request, smoke(method))
    except UnsupportedError as error:
        if name in SHAPES:
            pytest.skip(f"for images only: {error}")
        raise
    after = done.model.state_dict()
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    assert after.keys() == before.keys()
    assert any(not torch.equal(before[k], t) for k, t in after.items())
    assert [t.stride() for t in after.values()] == [t.stride() for t in before.values()]
    assert done.cost.forward > 0


@pytest.mark.parametrize("name", [named(n, each_time=n in AUDITED) for n in NETWORKS])
def test_a_network_is_retrained_and_audited(name):
    case, model = problem(name)
    request = uk.Classes(CLASSES - 1)
    done = uk.unlearn(model, case, request, smoke("finetune"))
    report = uk.audit(done, oracle=uk.oracle(case, request, seeds=3))
    for metric in ("accuracy_forget", "accuracy_retain", "margin_auc", "js_forget"):
        assert 0 <= report.row(metric).estimate.value <= 1
    assert report.tier == "reference"
