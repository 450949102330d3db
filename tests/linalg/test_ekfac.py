"""EK-FAC blocks against dense Gauss-Newton matrices, in float64."""

import pytest
import torch
from torch import nn

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.curvature_products import curvature_matrix
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression

ROWS = 12


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.words(x))).mean(1))


NETS = {
    "perceptron": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 2, stride=2, padding=1, groups=2), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Conv2d(4, 2, 2), nn.Flatten(), nn.Linear(8, 3),
    ),
    "dense_convolution": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 2, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)
    ),
    "words": Words,
    "recurrent": lambda: nn.Sequential(nn.RNN(3, 4, batch_first=True), Last(), nn.Linear(4, 3)),
}  # fmt: skip
INPUTS = {
    "perceptron": (4,),
    "dense_convolution": (2, 4, 4),
    "convolution": (2, 4, 4),
    "recurrent": (2, 3),
}


class Last(nn.Module):
    def forward(self, x):
        return x[0][:, -1]


def built(name, rows=ROWS):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = NETS[name]().double()
        if name == "words":
            x = torch.randint(0, 5, (rows, 2))
        else:
            x = torch.randn(rows, *INPUTS[name], dtype=torch.float64)
    return net.train(), View.all(TensorData(x, torch.arange(rows) % 3)), Classification(3)


def measured(net, view, task, **how):
    return EkFac.measure(net, view, task, Runtime(), **{"probes": None, "batch_size": 5} | how)


def block_of(factors, name, param):
    units = torch.eye(param.numel(), dtype=torch.float64)
    columns = [factors.product({name: u.view_as(param)})[name].flatten() for u in units]
    return torch.stack(columns, 1)


def dense(net, view, task, name):
    return curvature_matrix(net, view, task, Runtime(), only=[name])


def blocks(*names):
    for net in names:
        yield from ((net, n) for n, _ in NETS[net]().named_parameters())


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("task", [Classification(3), Regression(2)], ids=lambda t: t.name)
def test_one_row_through_a_linear_layer_is_exact(task, corrected):
    net = nn.Linear(4, 3 if task.name == "classification" else 2).double()
    y = torch.tensor([1]) if task.name == "classification" else torch.ones(1, 2).double()
    x = torch.linspace(-1, 1, 4, dtype=torch.float64)[None]
    view = View.all(TensorData(x, y))
    got = measured(net, view, task, corrected=corrected)
    assert got.fallback == ()
    for name, p in net.named_parameters():
        want = dense(net, view, task, name)
        torch.testing.assert_close(block_of(got, name, p), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("net", "name"), [*blocks("perceptron", "convolution", "words")])
def test_the_eigenvalues_are_the_best_in_their_basis(net, name):
    model, view, task = built(net)
    param = dict(model.named_parameters())[name]
    want = dense(model, view, task, name)
    ek = measured(model, view, task)
    k = measured(model, view, task, corrected=False)
    assert ek.fallback == ()
    got = block_of(ek, name, param)
    error = float((got - want).norm())
    assert error <= float((block_of(k, name, param) - want).norm()) + 1e-12
    # The best diagonal in an orthonormal basis leaves an error at right angles to the fit.
    assert float((got * (want - got)).sum()) == pytest.approx(0, abs=1e-10 * float(want.norm()))
    assert float(got.trace()) == pytest.approx(float(want.trace()), rel=1e-9)
    if param.ndim == 1:
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("net", "name"), [*blocks("perceptron", "convolution", "words")])
def test_a_basis_of_some_rows_has_the_best_eigenvalues_of_all(net, name):
    model, view, task = built(net)
    param = dict(model.named_parameters())[name]
    want = dense(model, view, task, name)
    found = measured(model, view, task, basis_rows=7)
    some = view.sample(7, Runtime(), "ekfac/basis")
    mine, theirs = found.blocks[name], measured(model, some, task).blocks[name]
    for side in ("left", "right"):
        basis = getattr(theirs, side)
        assert (getattr(mine, side) is None) == (basis is None)
        assert basis is None or torch.equal(getattr(mine, side), basis)
    got = block_of(found, name, param)
    assert float((got * (want - got)).sum()) == pytest.approx(0, abs=1e-10 * float(want.norm()))
    assert float(got.trace()) == pytest.approx(float(want.trace()), rel=1e-9)


def test_rows_up_to_the_limit_of_the_basis_are_all_read():
    model, view, task = built("convolution")
    every, limit = measured(model, view, task, basis_rows=None), measured(model, view, task)
    for name, block in every.blocks.items():
        assert torch.equal(limit.blocks[name].values, block.values)
    with pytest.raises(InputError, match="0 for the basis"):
        measured(model, view, task, basis_rows=0)


@pytest.mark.parametrize("net", ["perceptron", "convolution", "words", "recurrent"])
def test_solving_undoes_the_damped_product(net):
    model, view, task = built(net)
    got = measured(model, view, task)
    rng = torch.Generator().manual_seed(0)
    v = {
        n: torch.randn(p.shape, generator=rng, dtype=torch.float64)
        for n, p in model.named_parameters()
    }
    x = got.solve(v, 0.01)
    back = {n: t + 0.01 * x[n] for n, t in got.product(x).items()}
    for name in v:
        torch.testing.assert_close(back[name], v[name], rtol=1e-8, atol=1e-9)


def test_layers_without_factors_are_named_and_have_the_diagonal():
    model, view, task = built("recurrent")
    got = measured(model, view, task)
    assert set(got.fallback) == {n for n, _ in model.named_parameters() if n.startswith("0.")} | {
        "2.weight",
        "2.bias",
    }
    name, param = "0.weight_hh_l0", model[0].weight_hh_l0
    want = torch.diag(dense(model, view, task, name).diagonal())
    torch.testing.assert_close(block_of(got, name, param), want, rtol=1e-8, atol=1e-12)


def test_random_probes_have_the_exact_blocks_as_their_mean():
    model, view, task = built("perceptron")
    bias = model[2].bias
    many = block_of(measured(model, view, task, probes=400), "2.bias", bias)
    want = block_of(measured(model, view, task), "2.bias", bias)
    # A product of two Gaussians has a deviation of at most sqrt(2) times the largest variance; of
    # 4,800 products five standard errors are 0.10.
    assert float((many - want).abs().max()) <= 0.1 * float(want.diagonal().max()) + 1e-12


def test_a_wide_layer_keeps_its_leading_directions_and_the_trace():
    rng = torch.Generator().manual_seed(0)
    net = nn.Linear(600, 3).double()
    x = torch.randn(200, 600, generator=rng, dtype=torch.float64)  # rank 200: more than is kept
    view = View.all(TensorData(x, torch.arange(200) % 3))
    got = measured(net, view, Classification(3))
    block = got.blocks["weight"]
    assert block.values.shape[-1] < 200
    assert float(block.rest.min()) > 0
    out = net(x).detach().softmax(1)
    want = float((out * (1 - out)).sum(1) @ x.square().sum(1)) / 200
    kept = block.values.sum() + (600 - block.values.shape[-1]) * block.rest.sum()
    assert float(kept) == pytest.approx(want, rel=1e-8)


def test_the_model_and_its_flags_stay_as_they_are():
    model, view, task = built("convolution")
    before = {n: t.clone() for n, t in model.state_dict().items()}
    measured(model, view, task)
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_another_model_and_other_rows_are_refused():
    model, view, task = built("perceptron")
    got = measured(model, view, task)
    got.check(model, view)
    with pytest.raises(InputError, match="other rows"):
        got.check(model, view.pick(torch.arange(3)))
    with torch.no_grad():
        model[0].bias.add_(1)
    with pytest.raises(InputError, match="other weights"):
        got.check(model, view)


def test_bad_input_is_refused():
    model, view, task = built("perceptron")
    with pytest.raises(InputError, match="0 rows"):
        measured(model, view.pick(torch.arange(0)), task)
    with pytest.raises(InputError, match="0 probes"):
        measured(model, view, task, probes=0)
    got = measured(model, view, task)
    v = {"0.weight": torch.ones(3, 4, dtype=torch.float64)}
    with pytest.raises(InputError, match="finite number from 0"):
        got.solve(v, -1.0)
    with pytest.raises(InputError, match="singular at damping 0"):
        got.solve({"2.bias": torch.ones(3, dtype=torch.float64)}, 0.0)
    with pytest.raises(InputError, match="no block for 'nothing'"):
        got.solve({"nothing": torch.ones(1)}, 1.0)


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("net", ["perceptron", "dense_convolution"])
def test_products_are_those_of_curvlinops(net, corrected):
    curvlinops = pytest.importorskip("curvlinops", reason="curvlinops is not installed")
    model, view, task = built(net)
    model.eval()
    params = dict(model.named_parameters())
    (batch,) = view.batches(ROWS, Runtime())
    kind = curvlinops.EKFACLinearOperator if corrected else curvlinops.KFACLinearOperator
    operator = kind(
        model,
        nn.CrossEntropyLoss(),
        list(params.values()),
        [(batch.x, batch.y)],
        fisher_type="type-2",
        separate_weight_and_bias=True,
    )
    rng = torch.Generator().manual_seed(0)
    v = {
        n: torch.randn(p.shape, generator=rng, dtype=torch.float64)
        for n, p in params.items()
        if n.endswith("weight")
    }
    zero = {n: torch.zeros_like(p) for n, p in params.items()} | v
    want = dict(zip(params, operator @ list(zero.values()), strict=True))
    got = measured(model, view, task, corrected=corrected).product(v)
    for name in v:
        torch.testing.assert_close(got[name], want[name], rtol=1e-8, atol=1e-11)
