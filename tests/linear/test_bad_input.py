"""Requests and settings that make no sense are refused with the remedy, and change nothing."""

import numpy as np
import pandas as pd
import pytest

from tests.linear.problems import METHODS, made, model, weights
from unlearnkit.core.errors import InputError


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "name exactly one of rows, labels and features"),
        ({"rows": [1], "features": [2]}, "name exactly one of rows, labels and features"),
        ({"rows": [1, 5, 1]}, "row 1 is named twice; name each row once"),
        ({"rows": [3]}, "row 3 is removed already; leave it out"),
        ({"rows": [300]}, "no row 300; name rows from 0 to 299"),
        ({"rows": [-1]}, "no row -1"),
        ({"rows": [0.5]}, "rows must be a list of row numbers"),
        ({"features": [6]}, "no feature 6; columns go from 0 to 5"),
        ({"features": [2]}, "feature 2 is removed already"),
        ({"features": [1, 1]}, "feature 1 is named twice"),
        ({"features": ["age"]}, "the model knows no feature names, got 'age'"),
        ({"labels": {9: 7}}, "label 7 is no class of the model; there are: 0, 1"),
        ({"labels": {3: 1}}, "row 3 is removed already"),
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(method, request_, message):
    x, y = made("logistic")
    done = model("logistic", method=method).fit(x, y)
    done.unlearn(rows=[3])
    done.unlearn(features=[2])
    before = weights(done), done.certificate()
    with pytest.raises(InputError, match=message):
        done.unlearn(**request_)
    assert np.array_equal(weights(done), before[0])
    assert done.certificate() == before[1]


def test_a_label_that_is_right_already_is_refused():
    x, y = made("logistic")
    done = model("logistic").fit(x, y)
    with pytest.raises(InputError, match=f"row 4 has the label {y[4]} already"):
        done.unlearn(labels={4: int(y[4])})


def test_features_go_by_the_names_of_a_table():
    x, y = made("logistic")
    table = pd.DataFrame(x, columns=["age", "b", "c", "d", "e", "income"])
    done = model("logistic").fit(table, y)
    with pytest.raises(InputError, match=r"no feature 'incme'. Did you mean 'income'"):
        done.unlearn(features=["incme"])
    assert done.unlearn(features=["income"]).features == (5,)
    assert abs(done.coef_[0, 5]) < 1e-10


def test_a_removed_feature_no_longer_moves_a_prediction():
    x, y = made("logistic")
    done = model("logistic").fit(x, y)
    done.unlearn(features=[5])
    other = x.copy()
    other[:, 5] = 1e6
    assert np.array_equal(done.decision_function(other), done.decision_function(x))


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_no_penalty_and_dependent_columns_have_no_unique_minimum(kind):
    x, y = made(kind)
    x[:, 1] = x[:, 0]
    with pytest.raises(InputError, match=r"Hessian is singular.*set alpha above 0"):
        model(kind, 0.0).fit(x, y)


def test_no_penalty_and_independent_columns_are_least_squares():
    x, y = made("ridge")
    done = model("ridge", 0.0, fit_intercept=False).fit(x, y)
    done.unlearn(rows=range(30))
    np.testing.assert_allclose(done.coef_, np.linalg.lstsq(x[30:], y[30:])[0], atol=1e-10)
    with pytest.raises(InputError, match="weight of a removed feature is not determined"):
        done.unlearn(features=[0])


@pytest.mark.parametrize("method", METHODS)
def test_removing_the_only_row_that_determines_a_weight_is_a_singular_hessian(method):
    x, y = made("ridge")
    x[:, 2] = 0
    x[7, 2] = 1
    done = model("ridge", 0.0, fit_intercept=False, method=method).fit(x, y)
    before = weights(done)
    if method == "infinitesimal_jackknife":
        done.unlearn(rows=[7])  # its Hessian is that of all rows
        assert not np.array_equal(weights(done), before)
    else:
        with pytest.raises(InputError, match="Hessian is singular"):
            done.unlearn(rows=[7])
        assert np.array_equal(weights(done), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1.0}, "alpha must be at least 0"),
        ({"l1_ratio": 2.0}, "l1_ratio between 0 and 1"),
        ({"method": "guess"}, "method must be one of newton_removal"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    x, y = made("logistic")
    with pytest.raises(InputError, match=message):
        model("logistic").set_params(**settings).fit(x, y)


def test_counts_below_zero_and_targets_without_end_are_refused():
    x, y = made("poisson")
    done = model("poisson").fit(x, y)
    with pytest.raises(InputError, match="at least 0"):
        done.unlearn(labels={0: -1})
    with pytest.raises(InputError, match="finite"):
        done.unlearn(labels={0: np.inf})


def test_a_model_without_data_says_what_to_bring():
    x, y = made("logistic")
    done = model("logistic", method="newton_step", keep_data=False).fit(x, y)
    with pytest.raises(InputError, match="give X and y of the rows of the request"):
        done.unlearn(rows=[1])
    with pytest.raises(InputError, match="must have 2 rows each"):
        done.unlearn(rows=[1, 2], X=x[[1]], y=y[[1]])
    with pytest.raises(InputError, match="call attach with the data of the fit first"):
        done.unlearn(features=[1])
    done.attach(x, y)
    assert done.unlearn(features=[1]).features == (1,)
