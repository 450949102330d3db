"""Outputs that are no logits, or not each row's own, are told; logits are believed."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import unlearnkit as uk
from unlearnkit.catalog import metrics
from unlearnkit.core.errors import InputError
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel

RNG = torch.Generator().manual_seed(0)
X = torch.randn(80, 4, generator=RNG)
BINARY = (X[:, 0] > 0).long()
TERNARY = (X[:, 0] > 0.5).long() + (X[:, 1] > 0).long()


def linear(outputs):
    layer = nn.Linear(4, outputs)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[-1, 0] = 4.0
    return layer


def case(y):
    return uk.Case(train=(X, y), test=(X, y), task="classification")


MODELS = {
    "softmax": (lambda: nn.Sequential(linear(3), nn.Softmax(-1)), TERNARY),
    "sigmoid": (lambda: nn.Sequential(linear(1), nn.Sigmoid()), BINARY),
}


@pytest.mark.parametrize("layer", MODELS)
def test_a_model_that_ends_in_probabilities_is_refused_with_the_way_out(layer):
    make, y = MODELS[layer]
    with pytest.raises(InputError, match=f"probabilities.*{layer}.; leave out the last {layer}"):
        uk.unlearn(make(), case(y), "rows=0:8", "finetune")


@pytest.mark.parametrize(
    ("task", "y", "shape"),
    [
        (Classification(3), TERNARY, lambda z: functional.softmax(z, -1)),
        (Classification(2), BINARY, lambda z: torch.sigmoid(z[:, -1:])),
        (MultiLabel(1), BINARY[:, None].float(), lambda z: torch.sigmoid(z[:, -1:])),
    ],
    ids=["softmax", "sigmoid", "several sigmoids"],
)
def test_stored_probabilities_are_refused_and_their_logits_are_not(task, y, shape):
    out = shape(linear(3)(X)).detach()
    with pytest.raises(InputError, match="must be logits, got probabilities"):
        Evidence.from_outputs({"unlearned": {Split.TEST: out}}, {Split.TEST: y}, task, Runtime())
    logits = out.log() if out.shape[1] == 3 else torch.logit(out, 1e-7)
    Evidence.from_outputs({"unlearned": {Split.TEST: logits}}, {Split.TEST: y}, task, Runtime())


WIDE = (X[:, :3] > 0).float()


@pytest.mark.parametrize(
    ("task", "y"),
    [("multilabel", WIDE), (Classification(2), BINARY)],
    ids=["labels", "two sigmoids of one class"],
)
def test_sigmoids_over_several_outputs_are_refused(task, y):
    layer = linear(3 if task == "multilabel" else 2)
    signs = (
        torch.eye(3, 4) if task == "multilabel" else torch.tensor([[-1.0], [1.0]]) * torch.eye(4)[0]
    )
    with torch.no_grad():
        layer.weight.copy_(8 * signs)
    made = uk.Case(train=(X, y), test=(X, y), task=task)
    with pytest.raises(InputError, match="must be logits, got probabilities"):
        uk.unlearn(nn.Sequential(layer, nn.Sigmoid()), made, "rows=0:8", "finetune")
    uk.unlearn(layer, made, "rows=0:8", "finetune")


def test_numbers_between_0_and_1_are_no_probabilities():
    y = torch.sigmoid(8 * X[:, :1])
    made = uk.Case(train=(X, y), test=(X, y), task="regression")
    done = uk.unlearn(nn.Sequential(linear(1), nn.Sigmoid()), made, "rows=0:8", "finetune")
    assert bool(((done.model(X) >= 0) & (done.model(X) <= 1)).all())


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (torch.eye(3)[TERNARY], "these are one-hot targets: give y.argmax(1)"),
        (torch.eye(3)[TERNARY].long(), "these are one-hot targets: give y.argmax(1)"),
        (0.5 * torch.eye(3)[TERNARY] + 0.25 * torch.eye(2, 3)[BINARY] + 0.25 * torch.eye(3)[:1],
         "these are soft targets: give y.argmax(1)"),
        (WIDE, "for several yes-or-no labels a row use the multilabel task"),
        (torch.arange(len(X) * 5).reshape(-1, 5) % 3, "several answers a row (masks, tokens)"),
        (torch.zeros(len(X), 4, 4).long(), "several answers a row (masks, tokens)"),
    ],
    ids=["one-hot", "one-hot integers", "soft", "labels", "tokens", "masks"],
)  # fmt: skip
def test_targets_of_several_numbers_a_row_say_what_to_give(y, told):
    with pytest.raises(InputError) as error:
        uk.Case(train=(X, y), task="classification")
    assert told in str(error.value)


def test_masks_are_refused_by_the_multilabel_task():
    with pytest.raises(InputError, match=r"masks and token targets are not supported"):
        uk.Case(train=(X, torch.zeros(len(X), 4, 4)), task="multilabel")


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3])
def test_small_logits_of_a_hardly_trained_model_are_not_taken_for_probabilities(scale):
    out = 0.5 + scale * torch.tanh(X[:, :1])
    targets = {Split.TEST: BINARY}
    Evidence.from_outputs({"unlearned": {Split.TEST: out}}, targets, Classification(2), Runtime())


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_stored_outputs_with_one_logit_are_two_classes(shape):
    out, y = torch.tensor([-2.0, 3.0, 1.0, -1.0]).reshape(shape), torch.tensor([0, 1, 0, 0])
    e = Evidence.from_outputs(
        {"unlearned": {Split.FORGET: out}}, {Split.FORGET: y}, Classification(2), Runtime()
    )
    # One of four is wrong; the margin of a sigmoid is its signed logit.
    assert metrics()["error_forget"].fn(e).value == 0.25
    from unlearnkit.core.evidence import ModelRole

    torch.testing.assert_close(
        e.margins(ModelRole.UNLEARNED, Split.FORGET), torch.tensor([2.0, 3.0, -1.0, 1.0]).double()
    )


class Drifting(nn.Module):
    """Adds a number to the second logit that grows with every call."""

    def __init__(self):
        super().__init__()
        self.body, self.calls = nn.Linear(4, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.body(x) + torch.tensor([0.0, 0.2 * self.calls])


class Mixing(nn.Module):
    """Subtracts the mean of the batch."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 2)

    def forward(self, x):
        out = self.body(x)
        return out - out.mean(0)


@pytest.mark.parametrize("model", [Drifting, Mixing])
def test_outputs_that_change_with_the_batch_size_are_told(model):
    done = uk.unlearn(model(), case(BINARY), "rows=0:8", "finetune")
    assert sum("change with the batch size" in note for note in done.notes) == 1


def test_batch_norm_in_eval_mode_does_not_mix_rows():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    done = uk.unlearn(net, case(BINARY), "rows=0:8", "finetune")
    assert not any("batch size" in note for note in done.notes)
    assert not math.isnan(done.seconds)
