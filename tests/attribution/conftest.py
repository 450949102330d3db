"""A world in which rows act one by one, and a small problem with models of subsets."""

import pytest
import torch

import unlearnkit as uk
from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case


def linear_world(rows, models, noise, *, seed=0, sparse=None, outputs=1):
    """Return subsets (m, n), outputs (m, T) that are sums of effects, and the effects (n, T)."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.rand(models, rows, generator=g) < 0.5
    effects = torch.randn(rows, outputs, generator=g, dtype=torch.float64)
    if sparse is not None:
        effects[sparse:] = 0
    y = 3.0 + masks.double() @ effects
    return masks, y + noise * torch.randn(y.shape, generator=g, dtype=torch.float64), effects


@pytest.fixture(scope="session")
def toy():
    """Return a trained toy classifier of three classes, with six of 60 rows to forget."""
    case = toy_case(Classification(3))
    model = uk.train_original(case).model
    return AttributedModel.of_case(model, case, uk.Rows(*range(6))), case
