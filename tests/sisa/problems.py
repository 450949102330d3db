"""Small problems for sharded training."""

import numpy as np
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.sisa import ShardedClassifier, ShardedModel

ROWS, SHARDS = 60, 3


def clouds(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 3
    x = 2.0 * np.eye(3, 4)[y] + rng.normal(size=(rows, 4))
    return x, y


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def case(keep=None, keys=True, epochs=4, **more):
    """Return a case; ``keep`` are the rows that are at hand, each under its own key."""
    x, y = clouds()
    at = np.arange(ROWS) if keep is None else np.asarray(keep)
    test, test_y = clouds(1)
    return uk.Case(
        train=(torch.tensor(x[at]).float(), torch.tensor(y[at])),
        test=(torch.tensor(test).float(), torch.tensor(test_y)),
        task="classification",
        fresh=network,
        recipe=uk.Recipe(epochs=epochs, lr=0.1, batch_size=8),
        keys=[f"row-{i}" for i in at] if keys else None,
        **more,
    )


def without(*rows):
    return np.delete(np.arange(ROWS), rows)


def name(*rows):
    return uk.Rows([f"row-{i}" for i in rows])


def sharded(given, folder=None, **more):
    settings = {"shards": SHARDS, "slices": 2, "rt": uk.Runtime(seed=5)} | more
    return ShardedModel(given, folder=folder, **settings)


def estimator(kind, folder=None, **more):
    return ShardedClassifier(kind, folder=folder, **{"shards": SHARDS, "seed": 5} | more)


def same(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
