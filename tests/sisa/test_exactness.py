"""Exact: bit for bit the model that is trained from the start without the rows."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import unlearnkit as uk
from tests.sisa.problems import ROWS, case, clouds, estimator, name, same, sharded, without
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.sisa import ShardedRegressor, sharded_case
from unlearnkit.sisa.shard_network import ShardNetwork

KINDS = {
    "tree": (DecisionTreeClassifier(), 1),
    "logistic": (LogisticRegression(), 1),
    "boosting": (GradientBoostingClassifier(n_estimators=6, subsample=0.7), 3),
    "forest": (RandomForestClassifier(n_estimators=4), 2),
}


@pytest.mark.parametrize("slices", [1, 3])
def test_a_network_after_a_sequence_of_requests_is_one_trained_without_the_rows(slices):
    done = sharded(case(), slices=slices).fit()
    for rows in ((4,), (7, 8, 9), (30,)):
        done.unlearn(name(*rows))
    rest = without(4, 7, 8, 9, 30)
    assert same(done.network(), sharded(case(rest), slices=slices).fit().network())


def test_a_batch_and_a_sequence_of_requests_give_the_same_network():
    one, many = sharded(case()).fit(), sharded(case()).fit()
    one.unlearn(name(1, 2, 40))
    for row in (40, 1, 2):
        many.unlearn(name(row))
    assert same(one.network(), many.network())


def test_oracles_of_the_case_are_trained_in_the_same_shards():
    done = sharded(case()).fit()
    given = sharded_case(case(), shards=3, slices=2, seed=5)
    assert same(done.network(), uk.train_original(given, seed=5).model)
    done.unlearn(name(3, 44))
    (oracle,) = uk.oracle(given, name(3, 44), seeds=[5]).models
    assert same(done.network(), oracle)
    assert same(done.network(), uk.train_original(done.present_case(), seed=5).model)


def test_a_case_after_a_deletion_keeps_the_shards_of_the_rows_that_stay():
    done = sharded(case()).fit()
    done.unlearn(name(3, 44))
    given = sharded_case(case(), shards=3, slices=2, seed=5).after_deletion(name(3, 44))
    assert same(done.network(), uk.train_original(given, seed=5).model)


def test_the_method_keeps_untouched_networks_and_retrains_the_others():
    given = sharded_case(case(), shards=3, slices=2, seed=5)
    model = uk.train_original(given).model
    done = uk.unlearn(model, given, name(3), "sisa")
    (touched,) = given.train_model.shards_of(torch.tensor([3]))
    for k in range(3):
        assert same(model.networks[k], done.model.networks[k]) == (k != touched)
    # Touched networks are trained from fresh weights, as retraining of all from the same seed does.
    everything = uk.unlearn(model, given, name(3), "retrain")
    assert same(done.model.networks[touched], everything.model.networks[touched])
    again = uk.unlearn(model, given, name(3), "sisa", rt=uk.Runtime(seed=3))
    assert same(again.model.networks[touched], done.model.networks[touched]) is False
    labels = uk.unlearn(model, given, uk.Labels({"row-3": 1}), "sisa")
    assert same(labels.model.networks[touched], model.networks[touched]) is False


def test_the_method_retrains_a_model_that_was_not_trained_in_shards():
    plain = case()
    model = uk.train_original(plain).model
    done = uk.unlearn(model, plain, name(3), "sisa")
    assert same(done.model, uk.unlearn(model, plain, name(3), "retrain").model)
    assert any("retrained as one shard" in note for note in done.notes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_an_estimator_after_requests_is_one_fitted_without_the_rows(kind, form):
    x, y = clouds()
    x = sparse.csr_matrix(x) if form == "sparse" else x
    names = np.array(["ash", "birch", "cedar"])[y]
    base, slices = KINDS[kind]
    done = estimator(base, slices=slices).fit(x, names)
    done.unlearn([5, 6, 31])
    done.unlearn([40])
    rest = without(5, 6, 31, 40)
    want = estimator(base, slices=slices).fit(x[rest], names[rest], keys=rest.tolist())
    assert np.array_equal(done.predict_proba(x), want.predict_proba(x))
    assert done.score(x, names) > 0.8


def test_a_regressor_is_exact_and_averages_its_shards():
    x, _ = clouds()
    y = x @ [1.0, -2.0, 0.5, 0.0]
    done = ShardedRegressor(Ridge(), shards=3).fit(x, y)
    done.unlearn([0, 9])
    rest = without(0, 9)
    plan = ShardedRegressor(Ridge(), shards=3).fit(x[rest], y[rest], keys=rest.tolist())
    assert np.array_equal(done.predict(x), plan.predict(x))
    shard = done._trained().state.plan.shard
    each = [
        Ridge().fit(x[r], y[r]).predict(x)
        for r in (np.setdiff1d(np.flatnonzero(shard == k), [0, 9]) for k in range(3))
    ]
    np.testing.assert_allclose(done.predict(x), np.mean(each, axis=0), rtol=1e-12)
    boosting = ShardedRegressor(GradientBoostingRegressor(n_estimators=4), shards=2, slices=2)
    assert boosting.fit(x, y).score(x, y) > 0.3


def test_a_slice_adds_members_that_are_fitted_on_all_slices_so_far():
    x, y = clouds()
    base = GradientBoostingClassifier(n_estimators=6)
    done = estimator(base, slices=3, shards=1).fit(x, y)
    (model,) = done._models()
    assert model.n_estimators_ == 6
    plan = done._trained().state.plan
    first = np.flatnonzero(plan.slice_number == 0)
    alone = GradientBoostingClassifier(n_estimators=2, random_state=model.random_state).fit(
        x[first], y[first]
    )
    assert np.array_equal(model.estimators_[0, 0].tree_.threshold, alone[0, 0].tree_.threshold)


def test_an_ensemble_starts_anew_where_a_slice_brings_a_class():
    x, y = clouds()
    done = estimator(GradientBoostingClassifier(n_estimators=4), slices=2, shards=1).fit(x, y)
    plan = done._trained().state.plan
    first = plan.slice_number == 0
    done.unlearn(np.flatnonzero(first & (y == 2)).tolist())
    (model,) = done._models()
    rest = np.flatnonzero(~first | (y != 2))
    alone = GradientBoostingClassifier(n_estimators=4, random_state=model.random_state)
    assert model.classes_.tolist() == [0, 1, 2]
    assert np.array_equal(model.predict_proba(x), alone.fit(x[rest], y[rest]).predict_proba(x))


def test_only_what_is_touched_is_trained_again():
    done = sharded(case(), slices=4).fit()
    plan = done._training.state.plan
    for first in range(4):
        row = int(np.flatnonzero((plan.shard == 1) & (plan.slice_number == first))[0])
        kept = [list(s) for s in done._training.state.stages]
        removal = done.unlearn(name(row))
        assert removal.shards == (1,)
        assert removal.stages == 4 - first
        now = done._training.state.stages
        assert all(a is b for a, b in zip(kept[0] + kept[2], now[0] + now[2], strict=True))
        assert all(kept[1][k] is now[1][k] for k in range(first))
        sizes = [
            sum(
                (plan.shard == 1)
                & (plan.slice_number <= k)
                & ~np.isin(plan.ids, list(done._training.state.removed_ids))
            )
            for k in range(4)
        ]
        passes = [done._training.learner.passes(k) for k in range(4)]
        want = sum(passes[k] * sizes[k] for k in range(first, 4))
        assert removal.work == want


def test_a_shard_that_becomes_empty_has_no_say():
    x, y = clouds()
    done = estimator(DecisionTreeClassifier()).fit(x, y)
    rows = np.flatnonzero(done._trained().state.plan.shard == 1)
    removal = done.unlearn(rows.tolist())
    assert (removal.work, removal.shards) == (0, (1,))
    rest = without(*rows)
    want = estimator(DecisionTreeClassifier()).fit(x[rest], y[rest], keys=rest.tolist())
    assert np.array_equal(done.predict_proba(x), want.predict_proba(x))
    assert len(done._models()) == 2

    net = sharded(case()).fit()
    rows = np.flatnonzero(net._training.state.plan.shard == 2)
    net.unlearn(name(*rows))
    assert net.network().weight.tolist() == [1, 1, 0]
    inputs = torch.tensor(x).float()
    two = ShardNetwork(list(net.network().networks)[:2], task="classification").eval()
    assert torch.equal(net.network()(inputs), two(inputs))
    assert same(net.network(), sharded(case(without(*rows))).fit().network())


def test_a_class_that_goes_is_no_answer_any_more():
    x, y = clouds()
    done = estimator(GradientBoostingClassifier(n_estimators=2), slices=2).fit(x, y)
    done.unlearn(np.flatnonzero(y == 2).tolist())
    assert done.classes_.tolist() == [0, 1]
    assert done.predict_proba(x).shape == (ROWS, 2)
    assert estimator(LogisticRegression()).fit(x, np.where(y == 0, 0, y // 2)).score(x, y) > 0


def test_votes_are_counted_and_ties_go_to_the_mean_probability():
    class Says(nn.Module):
        def __init__(self, *logits):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor(logits))

        def forward(self, x):
            return self.logits.expand(len(x), -1)

    members = [Says(0.1, 0.0, 0.0), Says(0.0, 0.0, 9.0), Says(0.1, 0.0, 0.0)]
    x = torch.zeros(1, 2)
    vote = ShardNetwork(members, task="classification", aggregation="vote")
    mean = ShardNetwork(members, task="classification")
    assert vote(x).argmax().item() == 0
    assert mean(x).argmax().item() == 2
    torch.testing.assert_close(
        mean(x).exp(), torch.stack([m(x).softmax(-1) for m in members]).mean(0)
    )
    tie = ShardNetwork(members[:2], task="classification", aggregation="vote")
    assert tie(x).argmax().item() == 2
    one = ShardNetwork([Says(2.0), Says(-1.0)], task="classification")
    torch.testing.assert_close(one(x).softmax(-1)[0, 1], torch.tensor([2.0, -1.0]).sigmoid().mean())
    labels = ShardNetwork([Says(2.0, 1.0), Says(-1.0, 3.0)], task="multilabel")
    want = torch.tensor([[2.0, 1.0], [-1.0, 3.0]]).sigmoid().mean(0)
    torch.testing.assert_close(labels(x)[0].sigmoid(), want)
    numbers = ShardNetwork([Says(2.0), Says(-1.0)], task="regression")
    assert numbers(x).tolist() == [[0.5]]


def test_estimators_vote():
    x, y = clouds()
    done = estimator(LinearSVC(), aggregation="vote").fit(x, y)
    votes = np.array([m.predict(x) for m in done._models()])
    counts = np.array([np.bincount(v, minlength=3) for v in votes.T])
    assert np.array_equal(done.predict(x), counts.argmax(1))
    with pytest.raises(InputError, match="LinearSVC has no predict_proba; choose vote"):
        estimator(LinearSVC()).fit(x, y)


def test_a_training_loop_of_ones_own_trains_shards():
    def loop(model, data, seed):
        x, y = data
        step = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            step.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            step.step()
        return model

    own = case(train_model=loop)
    done = sharded(own, slices=1).fit()
    done.unlearn(name(2))
    left = case(without(2), train_model=loop)
    assert same(done.network(), sharded(left, slices=1).fit().network())
    with pytest.raises(UnsupportedError, match="train_model decides itself how long it trains"):
        sharded(own).fit()


def test_expected_deletions_shape_the_shards():
    expected = np.where(np.arange(ROWS) < 6, 1.0, 0.01)
    done = sharded(case()).fit(expected_deletions=expected)
    plan, random = (m._training.state.plan for m in (done, sharded(case()).fit()))
    assert plan.expected_share(expected) < 0.7 * random.expected_share(expected)
    likely = done.unlearn(name(1))
    assert likely.share < done.unlearn(name(30)).share
