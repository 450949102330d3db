"""Online heads: what is learned sample by sample, forgotten, counted, refused and exported."""

import re
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid
from torch import nn

from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.online import (
    ClassMeans,
    ConsolidatedWeights,
    LastLayerSGD,
    LearningWithoutForgetting,
    OnlineHead,
    RecursiveLeastSquares,
    ReplayMemory,
)
from unlearnkit.online.replay_memory import mix

CLASSES, FEATURES = 4, 12

LEARNERS = {
    "sgd": LastLayerSGD(),
    "sgd batch": LastLayerSGD(batch=8, lr=0.3),
    "sgd new rows": LastLayerSGD(rows="new"),
    "lwf": LearningWithoutForgetting(),
    "lwf batch": LearningWithoutForgetting(batch=8, lr=0.3),
    "cwr": ConsolidatedWeights(batch=8),
    "replay": ReplayMemory(rows=40),
    "rls": RecursiveLeastSquares(precision="float64"),
    "means": ClassMeans(),
}
learners = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)
GRADIENT = [n for n, x in LEARNERS.items() if x.guarantee == "approximate"]


def stream(count=300, seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(count, FEATURES)) / 6 + np.eye(classes, FEATURES)[y]
    return x.astype("float32"), y.tolist()


def new(learner, **how):
    sizes = {"features": FEATURES, "classes": CLASSES, "memory": 64_000, "register": 300}
    return OnlineHead(learner, **{**sizes, **how})


def run(learner, x, y, *, skip=(), **how):
    head = new(learner, **how)
    for i, (row, label) in enumerate(zip(x, y, strict=True)):
        if i not in skip:
            head.learn(row, label)
    return head


def weights(head):
    layer = head.learner.layer(head.state, CLASSES)
    order = np.argsort([*head.labels, *range(len(head.labels), CLASSES)])
    return np.asarray(layer, dtype=np.float64)[order].copy()


def layer(rows=3, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(FEATURES, rows)


# learning: the formulas of the paper, written out


def textbook(kind, x, y, *, lr, batch=1, first=None, fixed=0):
    """Follow the table of the source, in float64, with a matrix per sample."""
    w = np.zeros((CLASSES, FEATURES + 1)) if first is None else first.copy()
    copy, total, u = w.copy(), np.zeros_like(w), np.zeros(CLASSES)
    used = 0 if first is None else int((np.abs(first).sum(1) > 0).sum())
    for c, (row, label) in enumerate(zip(x, y, strict=True)):
        used = max(used, label + 1)
        v, t = np.append(row.astype(np.float64), 1), np.eye(CLASSES)[label]
        p, z = (np.zeros(CLASSES) for _ in range(2))
        p[:used] = np.exp(w[:used] @ v) / np.exp(w[:used] @ v).sum()
        z[:used] = np.exp(copy[:used] @ v) / np.exp(copy[:used] @ v).sum()
        e = p - t
        if kind == "lwf":
            share = 100 / (100 + c) if batch == 1 else (1 if c <= batch else batch / c)
            e = (1 - share) * (p - t) + share * (p - z)
        e[:fixed] = 0
        step = np.outer(e, v)
        full = (c + 1) % batch == 0
        if kind == "cwr":
            w -= lr * step
            u[label] += 1
            if full:
                for i in np.flatnonzero(u):
                    copy[i] = (copy[i] * u[i] + w[i]) / (u[i] + 1)
                w, u = copy.copy(), np.zeros(CLASSES)
            continue
        total += step
        if full:
            w -= lr * total / batch
            total[:] = 0
            if kind == "lwf" and batch > 1:
                copy = w.copy()
    return copy if kind == "cwr" else w


FORMULAS = {
    "sgd": (LastLayerSGD(lr=0.2), {"lr": 0.2}),
    "sgd batch": (LastLayerSGD(lr=0.2, batch=7), {"lr": 0.2, "batch": 7}),
    "lwf": (LearningWithoutForgetting(lr=0.2), {"lr": 0.2}),
    "lwf batch": (LearningWithoutForgetting(lr=0.2, batch=7), {"lr": 0.2, "batch": 7}),
    "cwr": (ConsolidatedWeights(lr=0.2, batch=7), {"lr": 0.2, "batch": 7}),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("known", [False, True], ids=["from zero", "from a layer"])
def test_a_gradient_learner_follows_the_table_of_its_source(name, known):
    learner, how = FORMULAS[name]
    x, y = stream(100)
    y = [min(label, c // 10) for c, label in enumerate(y)]  # classes come one after another
    first, linear = None, layer()
    if known:
        first = np.zeros((CLASSES, FEATURES + 1))
        first[:3] = np.c_[linear.weight.detach(), linear.bias.detach()]
    start = {"first_layer": linear, "labels": [0, 1, 2]} if known else {}
    head = run(learner, x, y, **start)
    want = textbook(name.split()[0], x, y, first=first, **how)
    # float32 against float64 over 100 steps of size 0.2
    np.testing.assert_allclose(weights(head), want, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("batch", [1, 5])
def test_rows_of_original_classes_stay_in_every_bit_with_new_rows(batch):
    x, y = stream()
    linear = layer()
    head = run(LastLayerSGD(rows="new", batch=batch), x, y, first_layer=linear, labels=[0, 1, 2])
    first = np.zeros((CLASSES, FEATURES + 1))
    first[:3] = np.c_[linear.weight.detach(), linear.bias.detach()]
    want = textbook("sgd", x, y, lr=0.05, batch=batch, fixed=3, first=first)
    got = head.export()
    assert np.array_equal(got.weight[:3], linear.weight.detach().numpy())
    np.testing.assert_allclose(weights(head)[3], want[3], rtol=1e-4, atol=1e-6)


def test_lambdas_are_fractions():
    online, batches = LearningWithoutForgetting(), LearningWithoutForgetting(batch=16)
    assert [online.weight(c) for c in (0, 100, 300)] == [1.0, 0.5, 0.25]
    assert [batches.weight(c) for c in (0, 16, 64)] == [1.0, 1.0, 0.25]


def test_a_batch_of_one_is_a_step_a_sample():
    x, y = stream(60)
    one, wide = LastLayerSGD(), LastLayerSGD(batch=2)
    pairs = run(wide, np.repeat(x, 2, 0), np.repeat(y, 2).tolist())
    # the same sample twice in a batch of two is one step of it
    np.testing.assert_allclose(weights(run(one, x, y)), weights(pairs), rtol=1e-4, atol=1e-6)


def test_recursive_least_squares_is_ridge_regression():
    x, y = stream()
    head = run(RecursiveLeastSquares(ridge=0.3, precision="float64"), x, y)
    v = np.c_[x, np.ones(len(x))].astype(np.float64)
    want = Ridge(alpha=0.3, fit_intercept=False).fit(v, np.eye(CLASSES)[y]).coef_
    np.testing.assert_allclose(weights(head), want, rtol=1e-9, atol=1e-11)


def test_least_squares_from_a_layer_is_ridge_towards_it():
    x, y = stream()
    linear = layer(4)
    start = {"first_layer": linear, "labels": [0, 1, 2, 3]}
    head = run(RecursiveLeastSquares(ridge=2.0, precision="float64"), x, y, **start)
    v = np.c_[x, np.ones(len(x))].astype(np.float64)
    first = np.c_[linear.weight.detach(), linear.bias.detach()].astype(np.float64)
    residual = np.eye(CLASSES)[y] - v @ first.T
    want = first + Ridge(alpha=2.0, fit_intercept=False).fit(v, residual).coef_
    np.testing.assert_allclose(weights(head), want, rtol=1e-9, atol=1e-11)


def test_class_means_is_the_nearest_centroid():
    x, y = stream()
    x *= 1 + np.array(y)[:, None]  # means of unequal lengths
    head = run(ClassMeans(), x, y)
    far = stream(200, seed=1)[0] * 3
    assert head.predict(far) == NearestCentroid().fit(x, y).predict(far).tolist()


def test_the_replay_memory_is_a_uniform_sample_of_the_stream():
    x, y = stream(300)
    kept = np.zeros(300)
    for seed in range(200):
        head = run(ReplayMemory(rows=30, replays=0, seed=seed), x, y)
        kept[head.state["numbers"]] += 1
    # each sample is kept 20 times of 200 on average, with a standard deviation of 4.2
    assert kept.sum() == 200 * 30
    assert kept[:100].mean() == pytest.approx(20, abs=4 * 4.2 / 10)
    assert kept[200:].mean() == pytest.approx(20, abs=4 * 4.2 / 10)
    assert kept.max() < 20 + 5 * 4.2


# forgetting samples

GONE = [3, 50, 51, 120, 121, 200, 299]


@pytest.mark.parametrize("name", ["rls", "means"])
@pytest.mark.parametrize("later", [0, 80], ids=["at the end", "then learns on"])
def test_exact_forgetting_equals_the_stream_without_the_samples(name, later):
    x, y = stream(300 + later)
    head = run(LEARNERS[name], x[:300], y[:300], register=400)
    done = head.forget(GONE, x[GONE], [y[i] for i in GONE])
    for i in range(300, 300 + later):
        head.learn(x[i], y[i])
    oracle = run(LEARNERS[name], x, y, skip=GONE)
    assert done.guarantee == "exact"
    np.testing.assert_allclose(weights(head), weights(oracle), rtol=1e-8, atol=1e-10)


def test_half_of_a_stream_is_forgotten_by_least_squares_to_1e_8():
    x, y = stream(300)
    head = run(LEARNERS["rls"], x, y)
    gone = list(range(0, 300, 2))
    for i in gone:
        head.forget(i, x[i], y[i])
    oracle = run(LEARNERS["rls"], x, y, skip=gone)
    assert np.abs(weights(head) - weights(oracle)).max() < 1e-8


def test_single_precision_least_squares_is_near_the_stream_without():
    x, y = stream(300)
    head = run(RecursiveLeastSquares(), x, y)
    before = weights(head)
    head.forget(GONE, x[GONE], [y[i] for i in GONE])
    want = weights(run(RecursiveLeastSquares(), x, y, skip=GONE))
    assert np.linalg.norm(weights(head) - want) < 1e-3 * np.linalg.norm(before - want)


def test_forgetting_all_leaves_the_layer_that_was_there_before():
    x, y = stream(40)
    linear = layer(4)
    start = {"first_layer": linear, "labels": [0, 1, 2, 3]}
    head = run(LEARNERS["rls"], x, y, **start)
    head.forget(range(40), x, y)
    first = np.c_[linear.weight.detach(), linear.bias.detach()]
    np.testing.assert_allclose(weights(head), first, rtol=1e-8, atol=1e-9)


def test_a_class_whose_samples_are_all_forgotten_is_never_predicted_by_means():
    x, y = stream()
    head = run(ClassMeans(precision="float32"), x, y)
    gone = [i for i in range(300) if y[i] == 2]
    head.forget(gone, x[gone], [2] * len(gone))
    assert set(head.predict(x)) == {0, 1, 3}
    assert not head.state["sums"][head.labels.index(2)].any()


def share_left(learner, seed):
    """Return the distance to the stream without the samples, as a share of that before."""
    x, y = stream(300, seed)
    gone = np.random.default_rng(seed + 1).permutation(300)[:20].tolist()
    wrong = [(y[i] + 1) % CLASSES if i in gone else y[i] for i in range(300)]
    head = run(learner, x, wrong)
    before = weights(head)
    done = head.forget(gone, x[gone], [wrong[i] for i in gone])
    want = weights(run(learner, x, wrong, skip=gone))
    assert done.guarantee == "approximate"
    return np.linalg.norm(weights(head) - want) / np.linalg.norm(before - want)


@pytest.mark.parametrize("name", GRADIENT)
def test_taking_steps_back_comes_nearer_to_the_stream_without_the_samples(name):
    left = np.mean([share_left(LEARNERS[name], seed) for seed in range(4)])
    # the batches of the other stream end elsewhere, which alone moves averaged weights
    assert left < (0.8 if name == "cwr" else 0.5)


@pytest.mark.parametrize("name", ["sgd", "lwf"])
def test_the_last_step_is_taken_back_to_first_order(name):
    x, y = stream(200)
    learner = LEARNERS[name].model_copy(update={"lr": 1e-4})
    head = run(learner, x, y)
    before = weights(head)
    head.forget(199, x[199], y[199])
    want = weights(run(learner, x[:199], y[:199]))
    assert np.linalg.norm(weights(head) - want) < 1e-2 * np.linalg.norm(before - want)


@pytest.mark.parametrize("name", ["sgd batch", "lwf batch"])
def test_a_sample_of_the_batch_at_hand_is_taken_out_of_it(name):
    x, y = stream(85)  # ten batches of 8, and 5 samples
    x, y = np.r_[x, x[:20]], y + y[:20]
    head = run(LEARNERS[name], x[:85], y[:85])
    head.forget(84, x[84], y[84])
    for i in range(85, 105):
        head.learn(x[i], y[i])
    np.testing.assert_allclose(
        weights(head), weights(run(LEARNERS[name], x, y, skip=[84])), rtol=1e-5, atol=1e-6
    )


def test_a_sample_out_of_the_batch_at_hand_no_longer_counts_for_its_class():
    x, y = stream(85)
    head = run(LEARNERS["cwr"], x, y)
    head.forget(82, x[82], y[82])
    assert head.state["seen"].sum() == 4
    assert head.state["seen"][head.labels.index(y[82])] == [*y[80:82], *y[83:85]].count(y[82])


def test_replay_forgets_by_number_and_has_never_seen_what_is_gone():
    x, y = stream(300)
    poisoned = x.copy()
    poisoned[GONE] = 50.0
    one, two = (run(ReplayMemory(rows=300, seed=2), rows, y) for rows in (x, poisoned))
    done = [head.forget(GONE) for head in (one, two)]
    assert {d.guarantee for d in done} == {"independent"}
    assert np.array_equal(weights(one), weights(two))
    assert not np.isin(GONE, one.state["numbers"][: int(one.state["size"][0])]).any()


def test_the_memory_without_a_sample_is_that_of_the_stream_without_it():
    """At the same threshold: it holds all samples of lower priority, and no other."""
    x, y = stream(300)
    head = run(ReplayMemory(rows=30), x, y)
    threshold = int(head.state["threshold"][0])
    gone = head.state["numbers"][:3].tolist()
    head.forget(gone)
    want = {i for i in range(300) if mix(0, i) < threshold} - set(gone)
    size = int(head.state["size"][0])
    assert set(head.state["numbers"][:size].tolist()) == want


def test_the_layer_after_replay_forgets_depends_on_the_memory_alone():
    x, y = stream(200)
    plain, moved = run(ReplayMemory(rows=50), x, y), run(ReplayMemory(rows=50), x, y)
    order = np.argsort(moved.state["numbers"])
    for name in ("memory", "classes", "numbers"):
        moved.state[name][:] = moved.state[name][order]
    gone = int(plain.state["numbers"][0])
    for head in (plain, moved):
        head.forget(gone)
    assert np.array_equal(weights(plain), weights(moved))


@learners
def test_a_head_still_learns_after_it_forgot(learner):
    x, y = stream(300)
    head = run(learner, x, y)
    head.forget(GONE, x[GONE], [y[i] for i in GONE])
    far, truth = stream(200, seed=3)
    assert np.mean(np.array(head.predict(far)) == truth) > 0.9
    number = head.learn(x[0], y[0])
    head.forget(number, x[0], y[0])
    assert np.isfinite(weights(head)).all()


# forgetting a class


@learners
def test_a_class_that_is_forgotten_is_not_predicted_and_may_come_back(learner):
    x, y = stream()
    head = run(learner, x, y)
    before = dict(zip(head.labels, head.scores(x).T, strict=True))
    done = head.forget_class(1)
    assert 1 not in head.labels
    assert 1 not in head.predict(x)
    assert done.guarantee == learner.class_guarantee
    if done.guarantee != "independent":
        for label, scores in zip(head.labels, head.scores(x).T, strict=True):
            assert np.array_equal(scores, before[label])
    for row, label in zip(x, y, strict=True):
        head.learn(row, label)
    assert 1 in head.predict(x)


def test_adding_a_class_and_deleting_it_without_training_restores_the_scores():
    x, y = stream(50, classes=3)
    head = run(LastLayerSGD(), x, y)
    before = head.scores(x)
    head._add_class("new")
    head.forget_class("new")
    assert np.array_equal(head.scores(x), before)


def test_means_without_a_class_are_those_of_the_stream_without_it():
    x, y = stream()
    head = run(ClassMeans(), x, y)
    head.forget_class(2)
    oracle = run(ClassMeans(), x, y, skip=[i for i in range(300) if y[i] == 2])
    want = dict(zip(oracle.labels, oracle.scores(x).T, strict=True))
    for label, scores in zip(head.labels, head.scores(x).T, strict=True):
        assert np.array_equal(scores, want[label])


@pytest.mark.parametrize("batch", [1, 8])
def test_deleting_an_original_class_leaves_the_others_fixed(batch):
    x, y = stream()
    linear = layer()
    learner = LastLayerSGD(rows="new", batch=batch)
    head = run(learner, x, y, first_layer=linear, labels=[0, 1, 2])
    head.forget_class(0)
    before = head.export().weight
    for row, label in zip(x, y, strict=True):
        head.learn(row, label)
    got, want = head.export(), linear.weight.detach().numpy()
    assert np.array_equal(got.weight[:2], want[1:])
    assert not np.array_equal(got.weight[2], before[2])
    assert got.weight[3].any()
    assert set(head.labels) == {0, 1, 2, 3}


def test_replay_keeps_the_classes_of_its_memory_when_one_goes():
    x, y = stream()
    head = run(ReplayMemory(rows=60), x, y)
    was = {
        int(n): head.labels[c]
        for n, c in zip(head.state["numbers"], head.state["classes"], strict=True)
    }
    head.forget_class(1)
    size = int(head.state["size"][0])
    now = {
        int(n): head.labels[c]
        for n, c in zip(head.state["numbers"][:size], head.state["classes"][:size], strict=True)
    }
    assert now == {n: label for n, label in was.items() if label != 1}


# memory


@learners
def test_memory_is_counted_and_never_grows(learner):
    x, y = stream()
    head = new(learner)
    before = head.bytes_held
    for row, label in zip(x, y, strict=True):
        head.learn(row, label)
    head.forget(GONE, x[GONE], [y[i] for i in GONE])
    arrays = [*head.state.values(), head._register.array, head._input]
    assert head.bytes_held == before == sum(a.nbytes for a in arrays)
    assert all(a.base is None for a in head.state.values())
    assert head.bytes_needed == before + learner.work_bytes(head.shape) > before


@learners
def test_a_step_needs_no_more_than_the_bytes_that_are_counted(learner):
    features = 4096
    rng = np.random.default_rng(0)
    if isinstance(learner, RecursiveLeastSquares):
        features = 512  # its inverse is as large as the square
    x = (rng.normal(size=(60, features)) / features**0.5).astype("float32")
    head = new(learner, features=features, memory=10**8)
    for i in range(40):
        head.learn(x[i], i % CLASSES)
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        for i in range(40, 60):
            head.learn(x[i], i % CLASSES)
        head.scores(x[:1])
        end, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    objects = 8_192  # of the interpreter: numbers, views, tuples
    assert peak - base <= head.learner.work_bytes(head.shape) + objects
    assert end - base < objects


@learners
def test_a_budget_that_is_too_small_says_how_much_is_needed(learner):
    head = new(learner)
    with pytest.raises(InputError, match=f"needs {head.bytes_needed:,} bytes, the budget is"):
        new(learner, memory=head.bytes_needed - 1)
    assert new(learner, memory=head.bytes_needed).bytes_needed == head.bytes_needed


def test_the_inverse_is_kept_as_a_triangle():
    head = new(RecursiveLeastSquares(), features=128, classes=8)
    assert head.state["inverse"].nbytes == 4 * 129 * 130 // 2
    assert head.bytes_needed < 64_000


# bad input


def head_and_stream(learner=None, **how):
    x, y = stream(20)
    return run(learner or LEARNERS["rls"], x, y, **how), x, y


@learners
def test_a_sample_that_is_forgotten_twice_is_refused_and_nothing_changes(learner):
    head, x, y = head_and_stream(learner)
    head.forget(4, x[4], y[4])
    before = weights(head)
    with pytest.raises(InputError, match="sample 4 is forgotten already"):
        head.forget([2, 4], x[[2, 4]], [y[2], y[4]])
    assert np.array_equal(weights(head), before)


@pytest.mark.parametrize(
    ("names", "rows", "labels", "message"),
    [
        ([4, 4], [4, 4], [0, 0], "named twice"),
        (20, 4, None, "sample 20 was never learned; 20 were, from 0"),
        (-1, 4, None, "sample -1 was never learned"),
        (4, 5, None, "not those that were learned as sample 4"),
        (4, 4, "other", "no label 'other'"),
        ([4, 5], [4], None, "2 samples, 1 rows of features"),
    ],
    ids=["twice", "never seen", "negative", "other features", "unknown class", "counts"],
)
def test_a_request_that_does_not_fit_is_refused(names, rows, labels, message):
    head, x, y = head_and_stream()
    found = np.array(y)[rows].tolist() if labels is None else labels
    with pytest.raises(InputError, match=message):
        head.forget(names, x[rows], found)


def test_another_label_than_was_learned_is_refused():
    head, x, y = head_and_stream()
    with pytest.raises(InputError, match="features or label are not those"):
        head.forget(4, x[4], (y[4] + 1) % CLASSES)


def test_a_sample_older_than_the_register_is_refused():
    head, x, y = head_and_stream(register=10)
    head.forget(10, x[10], y[10])
    with pytest.raises(InputError, match="older than the register of the 10 latest"):
        head.forget(9, x[9], y[9])


def test_a_learner_without_samples_asks_for_them():
    head, *_ = head_and_stream()
    with pytest.raises(InputError, match="RecursiveLeastSquares keeps no samples"):
        head.forget(3)


def test_an_unknown_class_is_refused_by_name():
    head, *_ = head_and_stream()
    with pytest.raises(InputError, match=r"no label '9'.*There are: "):
        head.forget_class(9)


def test_a_class_without_a_row_is_refused():
    head, x, _ = head_and_stream()
    with pytest.raises(InputError, match="'fifth' would be class 5 of 4"):
        head.learn(x[0], "fifth")
    assert head.samples == 20


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    head, x, y = head_and_stream()
    bad = x[0].copy()
    bad[3] = value
    before = weights(head)
    for call in (lambda: head.learn(bad, y[0]), lambda: head.predict(bad[None])):
        with pytest.raises(InputError, match="not finite"):
            call()
    assert np.array_equal(weights(head), before)
    assert head.samples == 20


def test_large_features_are_finite():
    head, _, y = head_and_stream(ClassMeans())
    head.learn(np.full(FEATURES, 1e30, dtype="float32"), y[0])
    assert head.samples == 21


@pytest.mark.parametrize("shape", [(FEATURES + 1,), (1, FEATURES), ()])
def test_features_of_another_dimension_are_refused(shape):
    head, *_ = head_and_stream()
    with pytest.raises(InputError, match=f"the head has {FEATURES} a sample"):
        head.learn(np.zeros(shape, dtype="float32"), 0)


def test_a_head_without_classes_cannot_predict():
    with pytest.raises(InputError, match="no class yet"):
        new(ClassMeans()).predict(np.zeros((1, FEATURES)))


def test_means_cannot_start_from_a_layer():
    with pytest.raises(InputError, match="cannot start from a layer"):
        new(ClassMeans(), first_layer=layer(), labels=[0, 1, 2])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"labels": [1]}, "give first_layer"),
        ({"first_layer": layer(), "labels": [1]}, "give one label a row"),
        ({"first_layer": nn.Linear(FEATURES + 1, 1), "labels": [1]}, "give one label a row"),
        ({"features": 0}, "at least 1"),
        ({"register": -1}, "at least 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(how, message):
    with pytest.raises(InputError, match=message):
        new(LastLayerSGD(), **how)


def test_a_setting_out_of_its_bounds_is_refused():
    with pytest.raises(InputError, match="greater than 0"):
        RecursiveLeastSquares(ridge=0)


def test_an_inverse_without_precision_left_is_refused_and_the_layer_stays():
    x = np.zeros((2, FEATURES), dtype="float32")
    x[1] = 3e4
    head = new(RecursiveLeastSquares(ridge=1e-3))
    for row in x:
        head.learn(row, 0)
    before = weights(head)
    with pytest.raises(DivergedError, match="precision='float64'"):
        head.forget([0, 1], x, [0, 0])
    np.testing.assert_allclose(weights(head), before, rtol=1e-2, atol=1e-3)


# the network in front, and export


def test_inputs_go_through_the_frozen_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, FEATURES), nn.BatchNorm1d(FEATURES), nn.Dropout(0.5))
    network.train()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    x = torch.randn(40, 5)
    head, plain = new(LEARNERS["rls"], extractor=network), new(LEARNERS["rls"])
    with torch.no_grad():
        features = network.eval()(x)
    network.train()
    for i in range(40):
        head.learn(x[i], i % 3)
        plain.learn(features[i], i % 3)
    np.testing.assert_allclose(weights(head), weights(plain), rtol=1e-4, atol=1e-6)
    head.forget(range(7, 30), x[7:30], [i % 3 for i in range(7, 30)])
    assert network.training
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_an_exported_file_gives_the_same_predictions(tmp_path):
    head, x, _ = head_and_stream()
    path = head.export().save(tmp_path / "head.npz")
    with np.load(path) as held:
        scores = x @ held["weight"].T + held["bias"]
        got = [int(held["labels"][i]) for i in scores.argmax(1)]
    assert got == head.predict(x)


def test_a_c_header_has_the_same_float32_numbers():
    head, *_ = head_and_stream()
    layer = head.export()
    text = layer.c_header("gesture")
    numbers = re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?(?=f)", text)
    want = [*layer.weight.ravel(), *layer.bias]
    assert np.array_equal(np.array(numbers, dtype=np.float32), np.array(want, dtype=np.float32))
    assert f"#define GESTURE_FEATURES {FEATURES}" in text


def test_a_label_with_quotes_is_escaped_in_c():
    x = np.zeros(FEATURES, dtype="float32")
    head = new(ClassMeans())
    head.learn(x, 'a"b\\ é')
    assert '{"a\\"b\\\\ \\303\\251"}' in head.export().c_header()


@pytest.mark.parametrize("name", ["1head", "a-b", ""])
def test_a_name_that_c_does_not_take_is_refused(name):
    head, *_ = head_and_stream()
    with pytest.raises(InputError, match="no C identifier"):
        head.export().c_header(name)


def test_another_ending_than_npz_is_refused(tmp_path):
    head, *_ = head_and_stream()
    with pytest.raises(InputError, match=r"end in \.npz"):
        head.export().save(tmp_path / "head.txt")
