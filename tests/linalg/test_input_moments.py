from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg import input_moments
from unlearnkit.linalg.gradient_projection import (
    GradientProjection,
    RetainedSubspace,
    directions,
    retained_projections,
)
from unlearnkit.linalg.input_moments import InputMoments, matrix_of, measured_weights, weight_of
from unlearnkit.tasks.classification import Classification

HALF = RetainedSubspace(threshold=0.6)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def rows(x):
    return View.all(TensorData(x, torch.zeros(len(x), dtype=torch.long)))


def measure(model, x, **how):
    return InputMoments.measure(model, rows(x), Classification(3), Runtime(), **how)


def net(*layers):
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3)).double()


def patches(layer, x):
    """Return by loops what each output position of a convolution is made of: (groups, n, d)."""
    k, s, d, p = layer.kernel_size[0], layer.stride[0], layer.dilation[0], layer.padding[0]
    x = nn.functional.pad(x, [p] * (2 * (x.ndim - 2))).numpy()
    size = (x.shape[-1] - d * (k - 1) - 1) // s + 1
    found = []
    for row in x:
        for at in np.ndindex(*[size] * (x.ndim - 2)):
            cut = tuple(slice(a * s, a * s + d * (k - 1) + 1, d) for a in at)
            found.append(row[(slice(None), *cut)].reshape(layer.groups, -1))
    return torch.from_numpy(np.stack(found)).transpose(0, 1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, 2, dilation=2, groups=2),
        nn.Conv1d(4, 6, 3, stride=2, padding=1),
        nn.Conv3d(4, 4, 2, groups=4),
    ],
    ids=["plain", "strided", "dilated_grouped", "1d", "3d"],
)
def test_a_convolution_has_the_moment_of_the_patches_that_it_multiplies(layer):
    x = draw(5, 4, *[7] * (layer.weight.ndim - 2))
    model = net(layer)
    model(x)
    a = patches(layer, x)
    assert torch.allclose(measure(model, x, batch_size=2).products["0.weight"], a.mT @ a)


def test_other_layers_have_the_moment_of_their_inputs():
    up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
    x = draw(5, 4, 3, 3)
    model = net(up)
    model(x)
    a = torch.stack([row[:, i, j] for row in x for i in range(3) for j in range(3)])
    found = measure(model, x).products["0.weight"]
    for group in range(2):
        part = a[:, 2 * group : 2 * group + 2]
        assert torch.allclose(found[group], part.T @ part)


class Reader(nn.Module):
    """Tokens, self-attention, one answer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.head(self.attend(x, x, x)[0].mean(1))


def test_attention_has_the_moments_of_its_inputs_and_an_embedding_counts_its_tokens():
    torch.manual_seed(0)
    model = Reader().double()
    tokens = torch.randint(0, 9, (6, 5))
    found = measure(model, tokens).products
    assert torch.equal(found["embed.weight"], torch.bincount(tokens.flatten(), minlength=11))
    a = model.embed(tokens).flatten(0, 1)
    assert torch.allclose(found["attend.in_proj_weight"], (a.T @ a).expand(3, 8, 8))


# spec section 9, check 3


def test_moments_of_rows_that_leave_are_subtracted_and_added_again():
    x = draw(30, 6)
    model = net(nn.Linear(6, 5), nn.ReLU())
    model(x)
    whole, gone, stay = (measure(model, part) for part in (x, x[:9], x[9:]))
    for name, product in (whole - gone).products.items():
        assert (product - stay.products[name]).norm() < 1e-10 * product.norm()
    assert (whole - gone).rows == 21
    again = whole - gone + gone
    assert all(torch.allclose(t, whole.products[n]) for n, t in again.products.items())


# check 4


def test_negative_eigenvalues_are_cut_off_and_told():
    moments = InputMoments({"w": torch.diag(torch.tensor([5.0, 1, -3])).double()[None]}, 9, "", "")
    spectrum = moments.spectrum("w")
    assert spectrum.values[0].tolist() == pytest.approx([5, 1, 0])
    assert spectrum.vectors[0, :, :2].abs().tolist() == [[1, 0], [0, 1], [0, 0]]
    assert spectrum.negative_share == pytest.approx(3 / 9)


def test_a_sketch_has_the_leading_directions_of_a_wide_layer(monkeypatch):
    monkeypatch.setattr(input_moments, "EXACT_WIDTH", 8)
    monkeypatch.setattr(input_moments, "SMALLEST_SKETCH", 16)
    x = draw(60, 3) @ draw(3, 40, seed=1)
    x = x + 1e-4 * draw(60, 40, seed=2)
    model = net(nn.Linear(40, 4))
    model(x)
    whole, gone = measure(model, x), measure(model, x[:20])
    assert whole.products["0.weight"].shape == (1, 40, 16)
    spectrum = (whole - gone).spectrum("0.weight")
    values, vectors = np.linalg.eigh((x[20:].T @ x[20:]).numpy())
    assert spectrum.values[0, :3].tolist() == pytest.approx(values[::-1][:3].tolist(), rel=1e-6)
    ours, theirs = spectrum.vectors[0, :, :3].numpy(), vectors[:, ::-1][:, :3]
    assert np.linalg.norm(ours.T @ theirs, ord=-2) == pytest.approx(1, abs=1e-6)


def test_a_file_holds_the_moments_and_is_smaller_than_the_model(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Flatten(), nn.Linear(128 * 4, 512))
    x = draw(20, 64, 4, 4).float()
    moments = measure(model, x)
    path = moments.save(tmp_path / "moments.safetensors")
    assert path.stat().st_size < sum(4 * p.numel() for p in model.parameters())
    back = InputMoments.load(path)
    assert replace(back, products={}) == replace(moments, products={})
    for name, product in back.products.items():
        assert torch.allclose(product, moments.products[name], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="holds none"):
        InputMoments.load(tmp_path / "x.safetensors")


def test_moments_of_another_model_are_refused():
    x = draw(8, 6)
    one, other = net(nn.Linear(6, 5)), net(nn.Linear(6, 4))
    one(x), other(x)
    with pytest.raises(InputError, match="another model"):
        measure(one, x) - measure(other, x)
    with pytest.raises(InputError, match="cannot leave 8"):
        measure(one, x) - measure(one, x)
    with pytest.raises(InputError, match="other weights"):
        measure(one, x).check_model(other)
    with pytest.raises(InputError, match="fits no weight"):
        retained_projections(one, measure(one, x), RetainedSubspace(layers={"nowhere.*": 0.5}))


# check 2


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(7, 7),
        nn.Conv2d(4, 6, 3, stride=2, padding=1),
        nn.Conv2d(4, 6, 2, dilation=2, groups=2),
        nn.ConvTranspose2d(4, 6, 2, groups=2),
    ],
    ids=["linear", "strided", "dilated_grouped", "transposed"],
)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_what_is_moved_is_orthogonal_to_what_is_held(layer, optimizer):
    x = draw(4, 4, 7, 7) if not isinstance(layer, nn.Linear) else draw(4, 7, 7)
    model = net(layer)
    model(x)
    held = retained_projections(model, measure(model, x), HALF)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    constraint, opt = GradientProjection(model, held), optimizer(model.parameters(), lr=0.1)
    for _ in range(3):
        model(draw(4, *x.shape[1:], seed=5)).square().sum().backward()
        opt.step()
        constraint.restore()
    layers = measured_weights(model)
    for one in held:
        u = one.basis
        assert 0 < one.rank < one.width
        same = u @ u.mT @ u @ u.mT
        assert torch.allclose(same, u @ u.mT)
        moved = dict(model.named_parameters())[one.name].detach() - before[one.name]
        assert moved.norm() > 1e-3
        assert (matrix_of(layers[one.name], moved) @ u).norm() < 1e-6 * moved.norm()
    assert torch.equal(model[-1].bias, before["2.bias"])


def test_a_share_of_one_freezes_and_a_share_of_none_is_plain_descent():
    x = draw(20, 6)
    results = {}
    for share in (None, 0.0, 1.0):
        torch.manual_seed(1)
        model = net(nn.Linear(6, 5, bias=False), nn.ReLU())
        model(x)
        model[-1].bias.requires_grad_(False)
        start = [p.detach().clone() for p in model.parameters()]
        moments, opt = measure(model, x), torch.optim.SGD(model.parameters(), lr=0.1)
        held = retained_projections(model, moments, RetainedSubspace(threshold=share or 0.0))
        holds = None if share is None else GradientProjection(model, held)
        model(x).square().sum().backward()
        opt.step()
        if holds is not None:
            holds.restore()
        results[share] = [p.detach() for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(results[None], results[0.0], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(start, results[0.0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(start, results[1.0], strict=True))


# check 1


def test_a_linear_layer_answers_retained_rows_as_before_after_any_number_of_steps():
    torch.manual_seed(0)
    x = (draw(40, 4) @ draw(4, 12, seed=1)).float()
    model = nn.Linear(12, 3)
    moments = InputMoments.measure(model, rows(x), Classification(3), Runtime())
    how = RetainedSubspace(threshold=1 - 1e-5, count="reaching")
    (held,) = retained_projections(model, moments, how)
    assert held.rank == 4
    before, weights = model(x).detach(), model.weight.detach().clone()
    constraint, opt = GradientProjection(model, [held]), torch.optim.Adam(model.parameters())
    for step in range(200):
        opt.zero_grad()
        model(draw(8, 12, seed=step).float()).square().mean().backward()
        opt.step()
        constraint.restore()
    assert (model(x) - before).abs().max() < 1e-5
    assert (model.weight - weights).norm() > 0.1


@pytest.mark.parametrize(
    ("rule", "count", "rank"),
    [("energy", "within", 1), ("energy", "reaching", 2), ("singular", "within", 2)],
)
def test_the_rank_follows_the_rule(rule, count, rank):
    values = torch.tensor([16.0, 4, 1, 0])  # shares of energy .76, .95; of singular values .57, .86
    how = RetainedSubspace(threshold=0.9, rule=rule, count=count)
    assert directions(values, 0.9, how) == rank
    assert directions(values, 0.0, how) == 0
    assert directions(torch.zeros(4), 0.9, how) == 0


def test_a_weight_comes_back_from_its_matrix():
    for layer in (nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose1d(4, 6, 3, groups=2)):
        w = layer.weight.detach()
        assert torch.equal(weight_of(layer, matrix_of(layer, w), w.shape), w)
