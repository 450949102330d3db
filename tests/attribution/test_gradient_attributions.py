"""Influence, TRAK and linear heads against dense algebra, loops, scikit-learn and retraining."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

import unlearnkit as uk
from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.back_ends import predict_shift
from unlearnkit.attribution.influence import EkFacAttribution, leave_out_step
from unlearnkit.attribution.leave_out_models import OracleAttribution
from unlearnkit.attribution.linear_head import LinearHeadAttribution
from unlearnkit.attribution.shift_quality import shift_quality
from unlearnkit.attribution.trak import TrakAttribution
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.ekfac import EkFac
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression

GONE = torch.arange(24) % 4 == 0


def linear(decay=0.0, seed=0):
    """Return least squares at its minimum: X (24, 3), y (24, 1), and the model as attributed."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(24, 3, generator=g, dtype=torch.float64)
    y = torch.randn(24, 1, generator=g, dtype=torch.float64)
    net = nn.Linear(3, 1, bias=False).double()
    # the task's loss is half the squared error or the squared error: its own Hessian says which
    scale = hessian_scale()
    inner = scale * x.mT @ x / 24 + decay * torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.linalg.solve(inner, scale * x.mT @ y / 24).mT)
    view = View.all(TensorData(x, y))
    recipe = uk.Recipe(weight_decay=decay)
    return x, y, scale, AttributedModel(net, Regression(), view, GONE, recipe)


def hessian_scale():
    """Return the second derivative of the task's loss in its output."""
    from unlearnkit.core.data import Batch

    out = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    batch = Batch.of_targets(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1).long())
    (slope,) = torch.autograd.grad(Regression().losses(out, batch).sum(), out, create_graph=True)
    return torch.autograd.grad(slope.sum(), out)[0].item()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_step_of_a_linear_model_is_that_of_the_dense_matrix(decay):
    x, y, scale, subject = linear(decay)
    factors = EkFac.measure(subject.model, subject.train, subject.task, Runtime(), probes=None)
    got = leave_out_step(subject, GONE, factors, 0.01, Runtime())["weight"]
    w = subject.model.weight.detach()
    residual = scale * (x[GONE] @ w.mT - y[GONE])
    inner = scale * x.mT @ x / 24 + (0.01 + decay) * torch.eye(3, dtype=torch.float64)
    want = torch.linalg.solve(inner, x[GONE].mT @ residual / 18).mT
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)


def test_the_step_goes_towards_the_model_without_the_rows():
    x, y, _, subject = linear()
    factors = EkFac.measure(subject.model, subject.train, subject.task, Runtime(), probes=None)
    step = leave_out_step(subject, GONE, factors, 1e-9, Runtime())["weight"]
    w = subject.model.weight.detach()
    retrained = torch.linalg.lstsq(x[~GONE], y[~GONE]).solution.mT
    assert (w + step - retrained).norm() < 0.6 * (w - retrained).norm()


def test_factors_of_another_model_and_a_singular_curvature_are_refused():
    _, _, _, subject = linear()
    factors = EkFac.measure(subject.model, subject.train, subject.task, Runtime())
    other = linear(seed=1)[3]
    with pytest.raises(InputError, match="measured with other weights"):
        leave_out_step(other, GONE, factors, 0.1, Runtime())
    flat = AttributedModel(
        nn.Linear(3, 1, bias=False).double(),
        Regression(),
        View.all(TensorData(torch.ones(24, 3).double(), torch.ones(24, 1).double())),
        GONE,
    )
    with pytest.raises(InputError, match="singular at damping 0; give a damping above 0"):
        predict_shift(flat, EkFacAttribution(damping=0), Runtime())


def test_layers_without_factors_are_named_with_what_happens(toy):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Linear(6, 3), nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.layer(x) * self.scale

    subject, _ = toy
    odd = AttributedModel(Scaled(), subject.task, subject.train, subject.forget)
    rt = Runtime()
    predict_shift(odd, EkFacAttribution(), rt)
    assert any(
        "no Kronecker factors for scale: their curvature is the diagonal" in n for n in rt.notes
    )


def logistic_rows(seed=0):
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(60) % 3
    x = torch.randn(60, 4, generator=g, dtype=torch.float64)
    x[:, :3] += functional.one_hot(y).double()
    return x, y


def test_a_linear_head_is_refitted_as_scikit_learn_does():
    x, y = logistic_rows()
    gone, decay = torch.arange(60) < 12, 0.05
    subject = AttributedModel(
        nn.Linear(4, 3).double(), Classification(3), View.all(TensorData(x, y)), gone,
        uk.Recipe(weight_decay=decay),
    )  # fmt: skip
    got = predict_shift(subject, LinearHeadAttribution(), Runtime()).shift
    outs = []
    wide = functional.pad(x, (0, 1), value=1.0).numpy()  # the bias is decayed too
    for keep in (~gone, torch.ones(60).bool()):
        fit = LogisticRegression(
            C=1 / (decay * int(keep.sum())), fit_intercept=False, tol=1e-10, max_iter=10_000
        ).fit(wide[keep.numpy()], y[keep].numpy())
        outs.append(torch.tensor(fit.decision_function(wide)))
    want = outs[0] - outs[1]
    want = want - want.mean(1, keepdim=True)
    torch.testing.assert_close(got.double(), want, rtol=1e-3, atol=1e-4)


def test_a_model_without_a_linear_last_layer_is_refused(toy):
    subject, _ = toy
    odd = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))
    with pytest.raises(UnsupportedError, match="last layer is a LayerNorm; a Linear is needed"):
        predict_shift(
            AttributedModel(odd, subject.task, subject.train, subject.forget),
            LinearHeadAttribution(),
            Runtime(),
        )


def test_trak_is_its_formula_row_by_row(toy):
    subject, _ = toy
    how = TrakAttribution(projection=7, ridge=0.3, calibrated_on=0)
    rt = Runtime()
    found = predict_shift(subject, how, rt)
    assert any("not calibrated" in n for n in rt.notes)
    assert math.isnan(found.quality.correlation)
    net, x, y = subject.model.eval(), subject.train.data.x, subject.train.y
    params = list(net.parameters())
    size = sum(p.numel() for p in params)
    drawn = torch.randn(size, 7, generator=Runtime().rng("trak/projection"))
    projection = drawn.double() / math.sqrt(size)

    def projected(value):
        flat = torch.cat([g.flatten() for g in torch.autograd.grad(value, params)])
        return flat.double() @ projection

    phi, weight = [], []
    for row, label in zip(x, y, strict=True):
        out = net(row[None])[0]
        margin = out[label] - out[torch.arange(3) != label].logsumexp(0)
        weight.append(1 - torch.sigmoid(margin.detach()).double())
        phi.append(projected(margin))
    phi, weight = torch.stack(phi), torch.stack(weight)
    inner = phi.mT @ phi
    inner = inner + 0.3 * inner.diagonal().mean() * torch.eye(7)
    of_gone = (phi * weight[:, None])[subject.forget].sum(0)
    row = 11
    want = torch.stack(
        [
            -(projected(net(x[row][None])[0, c]) @ torch.linalg.solve(inner, of_gone))
            for c in range(3)
        ]
    )
    want = want - want.mean()
    torch.testing.assert_close(found.shift[row].double(), want, rtol=1e-4, atol=1e-6)


def test_trak_serves_classes_only_and_refuses_a_huge_projection(toy):
    subject, _ = toy
    with pytest.raises(UnsupportedError, match="serves classification, not regression"):
        predict_shift(linear()[3], TrakAttribution(calibrated_on=0), Runtime())
    with pytest.raises(InputError, match="too large"):
        predict_shift(subject, TrakAttribution(projection=2**26), Runtime())


@pytest.fixture(scope="module")
def logistic():
    """Return a logistic regression that is trained to convergence, and 12 rows to forget."""
    x, y = logistic_rows()
    case = uk.Case(
        train=(x.float(), y),
        task=Classification(3),
        fresh=lambda: nn.Linear(4, 3),
        recipe=uk.Recipe(lr=0.2, epochs=60, batch_size=15, weight_decay=0.05, schedule="cosine"),
    )
    return AttributedModel.of_case(uk.train_original(case).model, case, uk.Rows(*range(12)))


@pytest.mark.parametrize(
    ("how", "least"),
    [
        pytest.param(LinearHeadAttribution(), 0.9, id="linear head"),
        pytest.param(EkFacAttribution(damping=1e-3), 0.8, id="ekfac"),
        pytest.param(TrakAttribution(projection=64, calibrated_on=16), 0.6, id="trak"),
    ],
)
def test_predictions_agree_with_retraining_on_a_logistic_regression(logistic, how, least):
    truth = predict_shift(logistic, OracleAttribution(models=32), Runtime())
    got = predict_shift(logistic, how, Runtime())
    found = shift_quality(got.shift.expand(2, -1, -1), truth.shift.expand(2, -1, -1))
    assert found.correlation > least, found
    assert 0.5 < found.slope < 2, found


def test_quality_is_measured_on_models_trained_without_random_rows(logistic):
    rt = Runtime()
    found = predict_shift(logistic, LinearHeadAttribution(checked_on=8), rt)
    assert found.quality.models == 8
    assert found.quality.correlation > 0.7
    assert rt.cost.precomputation == found.work > 0
