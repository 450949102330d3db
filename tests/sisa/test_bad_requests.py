"""Requests, rows and settings that do not fit are refused, and nothing has changed."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeClassifier

import unlearnkit as uk
from tests.sisa.problems import ROWS, case, clouds, estimator, name, same, sharded
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.keys import Keys
from unlearnkit.sisa import ShardedModel, ShardedRegressor, sharded_case

TREE = DecisionTreeClassifier()


def test_rows_removed_twice_are_refused():
    done = sharded(case()).fit()
    done.unlearn(name(3))
    before = done.network()
    with pytest.raises(InputError, match="1 of the 2 rows are removed already; leave them out"):
        done.unlearn(name(4, 3))
    assert same(before, done.network())
    tree = estimator(TREE).fit(*clouds())
    tree.unlearn([3])
    with pytest.raises(InputError, match="row 3 is removed already; leave it out"):
        tree.unlearn([4, 3])


def test_classes_may_hold_rows_that_are_removed_already():
    done = sharded(case()).fit()
    done.unlearn(name(0))
    assert done.unlearn(uk.Classes(0)).rows == ROWS // 3 - 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "names no row"),
        ([5, 5], "row 5 is named twice; name each row once"),
        ([ROWS], "no row 60; name rows by their keys"),
        (["row-1"], "no row 'row-1'"),
        (list(range(ROWS)), "names all rows that are left; keep some"),
    ],
)
def test_rows_of_an_estimator_that_make_no_request_are_refused(rows, said):
    done = estimator(TREE).fit(*clouds())
    before = done.predict_proba(clouds()[0])
    with pytest.raises(InputError, match=said):
        done.unlearn(rows)
    assert np.array_equal(before, done.predict_proba(clouds()[0]))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (uk.Rows(["row-99"]), "1 of 1 are no key of the case"),
        (uk.Rows([]), "row"),
        (uk.Labels({"row-3": 1}), "a corrected row stays"),
        (uk.Classes(0, 1, 2), "all rows"),
    ],
)
def test_requests_on_a_network_that_make_no_sense_are_refused(request_, said):
    done = sharded(case()).fit()
    with pytest.raises(UnlearnkitError, match=said):
        done.unlearn(request_)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: estimator(TREE, slices=2).fit(*clouds()), "is refitted as a whole"),
        (
            lambda: estimator(RandomForestClassifier(n_estimators=2), slices=3).fit(*clouds()),
            "3 slices need as many members",
        ),
        (lambda: estimator(Ridge()).fit(*clouds()), "is no classifier; use ShardedRegressor"),
        (lambda: estimator(KMeans()).fit(*clouds()), "is no classifier"),
        (lambda: ShardedRegressor(TREE).fit(*clouds()), "use ShardedClassifier"),
        (lambda: estimator(TREE, aggregation="max").fit(*clouds()), "must be mean or vote"),
        (lambda: estimator(TREE, seed=-1).fit(*clouds()), "seed: must be a whole number"),
        (lambda: estimator(TREE).fit(*clouds(), keys=[1]), "1 name 60 rows"),
        (lambda: estimator(TREE).fit(clouds()[0], np.zeros((60, 2))), "one target a row"),
        (lambda: estimator(TREE).unlearn([1]), "not trained; call fit, or load"),
        (lambda: estimator(TREE).load(*clouds()), "no folder to load from"),
        (lambda: sharded(case()).unlearn(name(1)), "not trained; call fit, or load"),
        (lambda: sharded(case()).load(), "no folder to load from"),
        (lambda: sharded(case(), aggregation="max").fit(), "must be mean or vote"),
        (lambda: ShardedModel("digits"), "give a uk.Case, got str"),
        (lambda: sharded(case(), shards=40).fit(), "40 x 2 slices for 60 rows"),
        (
            lambda: sharded_case(uk.Case(train=clouds(), task="classification")),
            "the case has no model factory",
        ),
        (
            lambda: sharded_case(
                uk.Case(train=clouds(), task="classification", fresh=case().fresh)
            ),
            "no recipe and no train_model",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(make, said):
    with pytest.raises(UnlearnkitError, match=said):
        make()


def test_a_case_with_other_rows_than_the_shards_is_refused():
    given = sharded_case(case(), shards=3, seed=5)
    fewer = given.replace(train=given.train.pick(torch.arange(59)), keys=Keys())
    with pytest.raises(InputError, match="the shards are those of 60 training rows, and there are"):
        uk.train_original(fewer)


def test_a_model_of_other_shards_is_refused():
    given = sharded_case(case(), shards=3, seed=5)
    other = uk.train_original(sharded_case(case(), shards=2, seed=5)).model
    with pytest.raises(UnlearnkitError, match="another architecture"):
        uk.unlearn(other, given, name(1), "sisa")


def test_only_classes_are_voted_for():
    x, _ = clouds()
    given = uk.Case(
        train=(x.astype("float32"), x[:, :3].astype("float32")),
        task="regression",
        fresh=case().fresh,
        recipe=uk.Recipe(),
    )
    with pytest.raises(UnlearnkitError, match="only classes can be voted for"):
        sharded(given, aggregation="vote").fit()
