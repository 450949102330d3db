"""Online heads: a learned sample against the bare arithmetic of its learner."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.measure import Fact, against
from unlearnkit.online import (
    ClassMeans,
    LastLayerSGD,
    LearningWithoutForgetting,
    OnlineHead,
    RecursiveLeastSquares,
)

FEATURES, CLASSES, SAMPLES = 128, 10, 2000
GOAL = 2.0

Array = np.ndarray
Loop = Callable[[Array, Array], Array]


def softmax(z: Array) -> Array:
    """Return the softmax of logits."""
    z = np.exp(z - z.max())
    return z / z.sum()


def bare_sgd(x: Array, y: Array, lr: float = 0.05) -> Array:
    """Take a step of softmax regression for each row, as one would write it down."""
    weight, bias = np.zeros((CLASSES, x.shape[1]), "float32"), np.zeros(CLASSES, "float32")
    for row, label in zip(x, y, strict=True):
        e = softmax(weight @ row + bias)
        e[label] -= 1
        weight -= lr * np.outer(e, row)
        bias -= lr * e
    return weight


def bare_lwf(x: Array, y: Array, lr: float = 0.05) -> Array:
    """Take a step of learning without forgetting for each row."""
    weight, bias = np.zeros((CLASSES, x.shape[1]), "float32"), np.zeros(CLASSES, "float32")
    copy, copied = weight.copy(), bias.copy()
    for count, (row, label) in enumerate(zip(x, y, strict=True)):
        share = np.float32(100 / (100 + count))
        p, z = softmax(weight @ row + bias), softmax(copy @ row + copied)
        t = np.zeros(CLASSES, "float32")
        t[label] = 1
        e = (1 - share) * (p - t) + share * (p - z)
        weight -= lr * np.outer(e, row)
        bias -= lr * e
    return weight


def bare_least_squares(x: Array, y: Array, ridge: float = 1.0) -> Array:
    """Update inverse and weights for each row."""
    x = np.concatenate([x, np.ones((len(x), 1), "float32")], 1)
    weight, inverse = (
        np.zeros((CLASSES, x.shape[1]), "float32"),
        np.eye(x.shape[1], dtype="float32"),
    )
    inverse /= ridge
    for row, label in zip(x, y, strict=True):
        g = inverse @ row
        g_scaled = g / (1 + row @ g)
        e = weight @ row
        e[label] -= 1
        weight -= np.outer(e, g_scaled)
        inverse -= np.outer(g, g_scaled)
    return weight


def bare_means(x: Array, y: Array) -> Array:
    """Add each row to the sum and the count of its class."""
    sums, counts = np.zeros((CLASSES, x.shape[1])), np.zeros(CLASSES, int)
    for row, label in zip(x, y, strict=True):
        sums[label] += row
        counts[label] += 1
    return sums


CASES: dict[str, tuple[Callable[[], object], Loop]] = {
    "last-layer SGD": (LastLayerSGD, bare_sgd),
    "LWF": (LearningWithoutForgetting, bare_lwf),
    "recursive least squares": (RecursiveLeastSquares, bare_least_squares),
    "class means": (ClassMeans, bare_means),
}


def run() -> Iterator[Fact]:
    """Yield the ratio of each learner."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, SAMPLES)
    x = (rng.normal(size=(SAMPLES, FEATURES)) / FEATURES**0.5).astype("float32")
    labels = y.tolist()
    for name, (learner, bare) in CASES.items():

        def ours(learner: Callable[[], object] = learner) -> None:
            head = OnlineHead(
                learner(), features=FEATURES, classes=CLASSES, memory=10**6, register=1000
            )
            for row, label in zip(x, labels, strict=True):
                head.learn(row, label)

        yield against(
            f"a sample learned by {name} / its bare arithmetic",
            ours,
            lambda bare=bare: bare(x, y),
            pairs=9,
            goal=GOAL,
            clock=time.process_time,
            how=f"{FEATURES} features, {CLASSES} classes, NumPy, one thread, processor time; checks"
            " and register included",
        )
