"""Squared per-row gradients, layer by layer, against a loop over rows."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg import fisher as importance
from unlearnkit.linalg import row_gradients
from unlearnkit.linalg.fisher import squared_gradients
from unlearnkit.tasks.classification import Classification

ROWS, CLASSES, WORDS = 7, 4, 11


class Made(nn.Module):
    """A model whose forward pass is a function of its layers and inputs."""

    def __init__(self, run, **layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.run = run

    def forward(self, x):
        return self.run(self.layers, x)


def mlp():
    return nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 5, bias=False), nn.Linear(5, CLASSES)
    )


def conv_with_batch_norm():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.GroupNorm(3, 3), nn.Flatten(),
        nn.Linear(12, CLASSES),
    )  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net


def odd_convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding="same", groups=2, padding_mode="reflect"),
        nn.Conv2d(4, 4, 2, stride=2, groups=4),
        nn.Conv2d(4, 6, (3, 1), dilation=2, padding=(2, 1)),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 3, stride=2, padding=1, groups=2, dilation=2, bias=False),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )


def transformer():
    return Made(
        lambda m, x: m["head"](m["layer"](m["words"](x)).mean(1)),
        words=nn.Embedding(WORDS, 8, padding_idx=0),
        layer=nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True),
        head=nn.Linear(8, CLASSES),
    )


def time_first(batch_first=False):
    return Made(
        lambda m, x: m["head"](m["layer"](m["words"](x).transpose(0, 1))[-1]),
        words=nn.Embedding(WORDS, 8),
        layer=nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0),
        head=nn.Linear(8, CLASSES),
    )


def tied_to_its_embedding():
    return Made(
        lambda m, x: functional.linear(
            m["inner"](m["words"](x).mean(1)), m["words"].weight
        )[:, :CLASSES],
        words=nn.Embedding(WORDS, 5),
        inner=nn.Linear(5, 5),
    )  # fmt: skip


def tied_layers():
    net = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, CLASSES)
    )
    net[2].weight = net[0].weight
    return net


def used_twice():
    return Made(
        lambda m, x: m["head"](m["norm"](torch.tanh(m["twice"](torch.tanh(m["twice"](x)))))),
        twice=nn.Linear(6, 6),
        norm=nn.LayerNorm(6),
        head=nn.Linear(6, CLASSES),
    )


def frozen():
    net = mlp()
    net[0].requires_grad_(False)
    net[3].bias.requires_grad_(False)
    return net


def never_called():
    net = used_twice()
    net.layers["spare"] = nn.Linear(3, 3)
    return net


def other_layers():
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(6, 5)), nn.PReLU(), nn.RMSNorm(5),
        nn.Linear(5, CLASSES),
    )  # fmt: skip


def centred_over_the_batch():
    return Made(
        lambda m, x: m["b"](m["a"](x) - m["a"](x).mean(0).detach()),
        a=nn.Linear(6, 5),
        b=nn.Linear(5, CLASSES),
    )


def rows_in_another_order():
    return Made(
        lambda m, x: m["b"](m["a"](x.flip(0)).flip(0)), a=nn.Linear(6, 5), b=nn.Linear(5, 4)
    )


def channels_as_rows():
    return Made(
        lambda m, x: m["b"](m["a"](x.reshape(-1, 3)).reshape(len(x), -1)),
        a=nn.Linear(3, 2),
        b=nn.Linear(4, CLASSES),
    )


VECTORS = {
    "mlp": mlp,
    "tied layers": tied_layers,
    "a layer used twice": used_twice,
    "frozen layers": frozen,
    "a layer never called": never_called,
    "layers without a rule": other_layers,
    "rows that see the batch": centred_over_the_batch,
    "rows in another order": rows_in_another_order,
    "channels as rows": channels_as_rows,
}
IMAGES = {"conv, batch norm": conv_with_batch_norm, "odd convolutions": odd_convolutions}
WORDED = {
    "transformer": transformer,
    "time first": time_first,
    "tied to its embedding": tied_to_its_embedding,
}


def rows_for(name):
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 6, generator=rng, dtype=torch.float64)
    if name in IMAGES:
        x = torch.randn(ROWS, 2, 6, 6, generator=rng, dtype=torch.float64)
    if name in WORDED:
        x = torch.randint(0, WORDS, (ROWS, 3), generator=rng)  # as many words as rows are tried
    return View.all(TensorData(x, torch.randint(0, CLASSES, (ROWS,), generator=rng)))


def built(name):
    torch.manual_seed(0)
    return (VECTORS | IMAGES | WORDED)[name]().double()


def one_by_one(model, view):
    model.eval()
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters() if p.requires_grad}
    for i in range(len(view)):
        model.zero_grad()
        functional.cross_entropy(model(view.data.x[i : i + 1]), view.data.y[i : i + 1]).backward()
        for n, p in model.named_parameters():
            if p.grad is not None:
                total[n] += p.grad**2 / len(view)
    model.zero_grad()
    return total


@pytest.mark.parametrize("batch_size", [2, 64])
@pytest.mark.parametrize("name", [*VECTORS, *IMAGES, *WORDED])
def test_squares_are_those_of_a_loop_over_rows(name, batch_size):
    model, view = built(name), rows_for(name)
    got = squared_gradients(model, view, Classification(CLASSES), Runtime(), batch_size=batch_size)
    torch.testing.assert_close(got, one_by_one(model, view), rtol=1e-10, atol=1e-14)
    assert not any(m._forward_hooks for m in model.modules())


def test_a_small_chunk_gives_the_same_squares(monkeypatch):
    model, view = built("odd convolutions"), rows_for("odd convolutions")
    monkeypatch.setattr("unlearnkit.linalg.row_gradients.CHUNK", 1)
    got = squared_gradients(model, view, Classification(CLASSES), Runtime())
    torch.testing.assert_close(got, one_by_one(model, view), rtol=1e-10, atol=1e-14)


def test_squares_of_half_precision_are_summed_in_single_precision():
    model, view = built("mlp"), rows_for("mlp")
    want = one_by_one(model, view)
    half = View.all(TensorData(view.data.x.bfloat16(), view.data.y))
    got = squared_gradients(model.bfloat16(), half, Classification(CLASSES), Runtime())
    assert {t.dtype for t in got.values()} == {torch.float32}
    for name, t in got.items():  # eight bits: gradients to a few percent, squares to twice that
        assert float((t - want[name]).abs().max()) < 0.1 * float(want[name].max())


ALL_BY_LAYER = ["mlp", "tied layers", "a layer used twice", "frozen layers", *IMAGES]


@pytest.mark.parametrize("name", ALL_BY_LAYER)
def test_no_row_is_differentiated_by_itself_where_layers_say_all(name, monkeypatch):
    def refuse(*_):
        raise AssertionError(name)

    monkeypatch.setattr(importance, "_by_row", refuse)
    squared_gradients(built(name), rows_for(name), Classification(CLASSES), Runtime())


def test_only_the_parameters_without_a_rule_are_differentiated_row_by_row(monkeypatch):
    seen = set()
    by_row = importance._by_row

    def listen(model, batch, task, rt, total):
        seen.update(total)
        by_row(model, batch, task, rt, total)

    monkeypatch.setattr(importance, "_by_row", listen)
    model, view = built("transformer"), rows_for("transformer")
    squared_gradients(model, view, Classification(CLASSES), Runtime())
    assert seen == {n for n, _ in model.named_parameters() if "self_attn" in n}


def test_hooks_are_gone_after_a_failure():
    model, view = built("mlp"), rows_for("mlp")

    class Failing(Classification):
        def losses(self, out, batch):
            if len(out) > importance.TRIED:
                raise KeyboardInterrupt
            return super().losses(out, batch)

    with pytest.raises(KeyboardInterrupt):
        squared_gradients(model, view, Failing(CLASSES), Runtime())
    assert not any(m._forward_hooks for m in model.modules())


def test_squares_are_found_where_gradients_are_switched_off():
    model, view = built("mlp"), rows_for("mlp")
    with torch.no_grad():
        got = squared_gradients(model, view, Classification(CLASSES), Runtime())
    torch.testing.assert_close(got, one_by_one(model, view), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(4, 4, (2, 3), stride=(2, 1), dilation=(1, 2), groups=2),
        nn.Conv2d(2, 3, 2, padding=1, padding_mode="reflect"),
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.Conv1d(2, 3, 3, stride=2, padding=1),
    ],
    ids=["plain", "grouped", "reflected", "same", "one dimension"],
)
def test_gradients_of_rows_by_one_convolution_are_those_of_their_factors(layer):
    rng = torch.Generator().manual_seed(0)
    layer = layer.double()
    shape = (5, layer.in_channels, *[13] * (layer.weight.ndim - 2))
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    out = layer(x)
    g = torch.randn(out.shape, generator=rng, dtype=torch.float64)
    (use,) = row_gradients._convolution(layer, x, g)["weight"].uses
    assert use.quickly is not None
    a, outer = use.factors(slice(1, 4))
    torch.testing.assert_close(use.gradients(slice(1, 4), a.dtype), outer.mT @ a)


def test_gradients_at_few_places_come_from_their_factors():
    layer, x = nn.Conv2d(2, 16, 3, padding=1), torch.ones(3, 2, 4, 4)
    (use,) = row_gradients._convolution(layer, x, layer(x).detach())["weight"].uses
    assert use.quickly is None
