"""A removable head on a frozen network."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.linear.problems import model, weights
from unlearnkit.core.errors import InputError
from unlearnkit.linear import LinearProbe, RemovalBudget


@pytest.fixture
def problem():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, 4, 4, generator=rng)
    y = (x.mean((1, 2, 3)) > 0).long().numpy()
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Dropout(0.5), nn.Tanh())
    for k, p in enumerate(network.parameters()):
        nn.init.normal_(p, std=0.5, generator=torch.Generator().manual_seed(k))
    return network.train(), x, y


def test_rows_leave_the_head_and_the_network_stays_as_it_is(problem):
    network, x, y = problem
    before = [p.clone() for p in network.parameters()]
    probe = LinearProbe(network, model("logistic"), extractor_data="other data").fit(x, y)
    found = probe.unlearn(rows=range(20))
    assert network.training
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    want = model("logistic").fit(probe.features(x)[20:], y[20:])
    assert np.linalg.norm(weights(probe.head) - weights(want)) <= 0.05
    assert "trained without any row" in found.assumptions[-1]
    assert probe.score(x, y) == probe.head.score(probe.features(x), y) > 0.6


def test_features_are_those_of_eval_mode_in_any_batch_size(problem):
    network, x, _ = problem
    probes = [
        LinearProbe(network, model("ridge"), extractor_data="other data", batch_size=b)
        for b in (7, 500)
    ]
    a, b = (p.features(x) for p in probes)
    np.testing.assert_allclose(a, b, atol=1e-6)
    with torch.no_grad():
        want = network.eval()(x).double().numpy()
    np.testing.assert_allclose(a, want, atol=1e-6)


def test_an_extractor_that_saw_the_rows_gets_no_certificate(problem):
    network, x, y = problem
    budget = RemovalBudget(epsilon=1, delta=1e-4, sigma=1, perturbation="output", noise=1)
    with pytest.raises(InputError, match="no certificate holds for an extractor"):
        LinearProbe(network, model("logistic", budget=budget), extractor_data="these rows")
    probe = LinearProbe(network, model("logistic"), extractor_data="these rows").fit(x, y)
    assert "nothing is said of what it has kept" in probe.unlearn(rows=[0]).assumptions[-1]
    with pytest.raises(InputError, match="inputs of the network are no columns"):
        probe.unlearn(features=[0])
    with pytest.raises(InputError, match="extractor_data must be one of"):
        LinearProbe(network, model("logistic"), extractor_data="unknown")
