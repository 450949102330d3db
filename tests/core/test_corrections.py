"""Requests for features and labels: rows stay, corrected."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.errors import InputError, UnlearnkitError, UnsupportedError
from unlearnkit.core.request import parse_request

N = 12
X = torch.arange(N * 3, dtype=torch.float32).reshape(N, 3) - 4
Y = torch.arange(N) % 3
CASE = uk.Case(train=(X, Y), test=(X + 0.5, Y), task="classification")
TABLE = pd.DataFrame(X.numpy(), columns=["age", "height", "weight"]).assign(sick=Y.numpy() % 2)
TABLE_CASE = uk.Case(train=TABLE, task="classification", target="sick")


def parts_of(request, case=CASE):
    return case.partition(parse_request(request))


@pytest.mark.parametrize(
    "words",
    [
        uk.Features(1),
        uk.Features([1]),
        uk.Features(features=1),
        "feature=1",
        "features=1",
        {"features": [1]},
        {"feature": 1},
        {"kind": "features", "features": [1]},
    ],
    ids=repr,
)
def test_a_column_in_all_words(words):
    assert parse_request(words) == uk.Features(1)
    retain = parts_of(words).retain
    want = X.clone()
    want[:, 1] = 0
    assert torch.equal(retain.data.x, want)
    assert torch.equal(retain.y, Y)


def test_columns_have_the_names_of_the_table():
    retain = parts_of("feature=height,weight", TABLE_CASE).retain
    assert torch.equal(retain.data.x[:, 1:], torch.zeros(N, 2))
    assert torch.equal(retain.data.x[:, 0], X[:, 0])


def test_an_unknown_column_is_refused_with_those_that_are_there():
    with pytest.raises(InputError, match="no column 'ages'; there are: age, height, weight"):
        parts_of("feature=ages", TABLE_CASE)
    with pytest.raises(InputError, match="columns have no names: give positions"):
        parts_of(uk.Features("age"))
    with pytest.raises(InputError, match="column 3 is out of range; there are columns 0 to 2"):
        parts_of("feature=3")
    with pytest.raises(InputError, match="1 is named twice"):
        parts_of(uk.Features(1, 1))


def test_the_mean_of_the_training_rows_takes_the_place_everywhere():
    parts = parts_of("feature=2,value=mean")
    mean = X[:, 2].mean()
    torch.testing.assert_close(parts.retain.data.x[:, 2], mean.expand(N))
    torch.testing.assert_close(parts.as_used(CASE.test).x[:, 2], mean.expand(N))


def test_the_forget_rows_are_those_that_change_and_line_up_with_their_corrections():
    x = X.clone()
    x[::2, 0] = 0  # nothing to remove there
    parts = parts_of("feature=0", uk.Case(train=(x, Y), task="classification"))
    assert parts.forget.rows.tolist() == list(range(1, N, 2))
    assert torch.equal(parts.corrections.rows, parts.forget.rows)
    assert len(parts.retain) == N
    assert parts.unchanged_rows.rows.tolist() == list(range(0, N, 2))


def test_a_feature_of_some_rows_leaves_rows_in_use_alone():
    parts = parts_of(uk.Features(0, rows=[2, 5]))
    assert parts.forget.rows.tolist() == [2, 5]
    assert parts.retain.data.x[[2, 5], 0].tolist() == [0, 0]
    assert torch.equal(parts.retain.data.x[3], X[3])
    assert parts.as_used(CASE.test) is CASE.test


def test_a_region_of_images():
    images = torch.rand(N, 1, 4, 4) + 1
    case = uk.Case(train=(images, Y), task="classification")
    x = parts_of("region=0:2,1:4", case).retain.data.x
    assert bool((x[:, :, :2, 1:4] == 0).all())
    assert torch.equal(x[:, :, 2:], images[:, :, 2:])
    assert torch.equal(x[..., 0], images[..., 0])
    with pytest.raises(InputError, match="outside images of 4 rows"):
        parts_of("region=0:5,0:1", case)
    with pytest.raises(InputError, match="is no box"):
        parts_of("region=2:2,0:1", case)


def test_tokens_are_replaced_wherever_they_stand():
    tokens = torch.tensor([[1, 7, 2], [7, 7, 3], [4, 5, 6]])
    case = uk.Case(train=(tokens, torch.tensor([0, 1, 0])), task="classification")
    parts = parts_of("token=7", case)
    assert parts.retain.data.x.tolist() == [[1, 0, 2], [0, 0, 3], [4, 5, 6]]
    assert parts.forget.rows.tolist() == [0, 1]
    with pytest.raises(InputError, match="token 9 is in no row"):
        parts_of("token=9", case)


def test_named_inputs_are_removed_whole():
    x = {"income": torch.rand(N) + 1, "image": torch.rand(N, 2, 2)}
    case = uk.Case(train=(x, Y), task="classification")
    after = parts_of("feature=income", case).retain.data.x
    assert not after["income"].any()
    assert torch.equal(after["image"], x["image"])


@pytest.mark.parametrize(
    "words",
    [
        uk.Labels({0: 1, 4: 2}),
        uk.Labels([(0, 1), (4, 2)]),
        "labels=0:1,4:2",
        "label=0:1, 4:2",
        {"labels": {0: 1, 4: 2}},
        {"kind": "labels", "labels": [[0, 1], [4, 2]]},
    ],
    ids=repr,
)
def test_labels_in_all_words(words):
    parts = parts_of(words)
    want = Y.clone()
    want[0], want[4] = 1, 2
    assert torch.equal(parts.retain.y, want)
    assert parts.forget.rows.tolist() == [0, 4]
    assert parts.forget.y.tolist() == [0, 1]
    assert parts.corrections.y.tolist() == [1, 2]


@pytest.mark.parametrize("head", ["", "key,label\n", "id\tright\n"])
def test_labels_come_from_a_file(tmp_path, head):
    mark = "\t" if "\t" in head else ","
    file = tmp_path / "corrections.csv"
    file.write_text(f"{head}a0{mark}1\na4{mark}2\n")
    case = uk.Case(train=(X, Y), keys=[f"a{i}" for i in range(N)], task="classification")
    assert parts_of(f"labels=@{file}", case).corrections.y.tolist() == [1, 2]


def test_labels_follow_keys_and_survive_a_deletion():
    case = uk.Case(train=(X, Y), keys=[f"a{i}" for i in range(N)], task="classification")
    left = case.after_deletion(uk.Rows("a0", "a1"))
    parts = parts_of(uk.Labels({"a4": 2}), left)
    assert parts.forget.rows.tolist() == [2]
    with pytest.raises(InputError, match="already deleted"):
        parts_of(uk.Labels({"a0": 2}), left)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({0: 0}, "1 of 1 rows have the given target already, such as row 0"),
        ({0: 7}, "labels"),
        ({0: 1.5}, "classes are whole numbers"),
        ({N: 1}, "12 is out of range"),
        ({0: "cat"}, "must be a number"),
        ({}, "empty"),
        (3, "give a mapping"),
    ],
)
def test_wrong_labels_are_refused(labels, told):
    case = uk.Case(train=(X, Y), task=uk.Classification(3))
    with pytest.raises(UnlearnkitError, match=told):
        parts_of(uk.Labels(labels), case)


def test_a_label_that_is_no_class_names_its_row():
    with pytest.raises(InputError, match="labels: row 4: class 7 is not among 0 to 2"):
        parts_of(uk.Labels({2: 1, 4: 7}))
    with pytest.raises(InputError, match="labels: row 4: class -1 is not among 0 to 2"):
        parts_of(uk.Labels({4: -1, 2: 1}))
    keyed = uk.Case(train=(X, Y), task="classification", keys=[f"patient-{i}" for i in range(N)])
    with pytest.raises(InputError, match="labels: row 'patient-4': class 7 is not among 0 to 2"):
        keyed.partition(uk.Labels({"patient-2": 1, "patient-4": 7}))
    with pytest.raises(InputError, match="target already, such as row 'patient-3'"):
        keyed.partition(uk.Labels({"patient-2": 1, "patient-3": 0}))


def test_a_request_that_changes_nothing_is_refused():
    x = X.clone()
    x[:, 1] = 0
    with pytest.raises(InputError, match="changes no row"):
        parts_of("feature=1", uk.Case(train=(x, Y), task="classification"))


@pytest.mark.parametrize(
    "request_",
    [
        uk.Features(1),
        uk.Features("age", "height", value=2.5),
        uk.Features("age", value="mean"),
        uk.Features(tokens=(3, 4)),
        uk.Features(region="0:2,1:3"),
        uk.Labels({3: 1, 5: 0}),
    ],
    ids=lambda r: r.words,
)
def test_words_and_records_mean_the_request_again(request_):
    assert parse_request(request_.words) == request_
    assert parse_request(request_.model_dump(mode="json")) == request_


@pytest.mark.parametrize(
    "given", [{}, {"features": 1, "tokens": 2}, {"tokens": 1, "value": "mean"}, {"value": np.inf}]
)
def test_a_request_names_one_kind_of_feature(given):
    with pytest.raises(InputError):
        uk.Features(**({"features": 1} if list(given) == ["value"] else {}), **given)


def test_after_a_correction_the_case_has_the_corrected_rows_and_old_positions():
    after = CASE.after_deletion(uk.Features(1))
    assert not after.train.x[:, 1].any()
    assert not after.test.x[:, 1].any()
    assert parts_of(uk.Rows(3), after).forget.rows.tolist() == [3]
    again = CASE.after_deletion(uk.Labels({0: 1}))
    assert again.train.y[0] == 1
    with pytest.raises(InputError, match="changes no row"):
        parts_of("feature=1", after)


def test_rows_that_are_read_on_demand_keep_their_features_but_not_their_labels():
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return N

        def __getitem__(self, i):
            return X[i], Y[i]

    case = uk.Case(train=Pairs(), task="classification")
    assert parts_of(uk.Labels({0: 1}), case).retain.y[0] == 1
    with pytest.raises(UnsupportedError, match="read on demand"):
        parts_of(uk.Features(0), case)


def test_an_own_training_loop_gets_the_corrected_rows():
    seen = {}

    def train_model(model, data, seed):
        seen["x"], seen["y"] = data
        with torch.no_grad():
            model.weight += 1e-3 * torch.randn(model.weight.shape)
        return model

    case = uk.Case(
        train=(X.numpy(), Y.numpy()),
        task="classification",
        fresh=lambda: nn.Linear(3, 3),
        train_model=train_model,
        version="1",
    )
    uk.oracle(case, uk.Features(1), seeds=1)
    assert isinstance(seen["x"], np.ndarray)
    assert not seen["x"][:, 1].any()
    uk.oracle(case, uk.Labels({0: 1}), seeds=1)
    assert seen["y"][0] == 1
    assert np.array_equal(seen["x"], X.numpy())


def test_an_oracle_of_a_correction_is_trained_on_the_corrected_rows():
    recipe = uk.Recipe(epochs=2, lr=0.1)
    case = CASE.replace(fresh=lambda: nn.Linear(3, 3), recipe=recipe)
    edited = X.clone()
    edited[:, 1] = 0
    by_hand = uk.Case.from_parts(
        forget=(X[:1], Y[:1]), retain=(edited, Y), task=uk.Classification(3),
        fresh=lambda: nn.Linear(3, 3), recipe=recipe,
    )  # fmt: skip
    oracle = uk.oracle(case, uk.Features(1), seeds=[5]).models[0]
    same = uk.oracle(by_hand, None, seeds=[5]).models[0]
    assert torch.equal(oracle.weight, same.weight)


def test_input_moments_are_not_carried_over_a_correction():
    torch.manual_seed(0)
    model = nn.Linear(3, 3)
    moments = uk.InputMoments.of_case(model, CASE)
    case = CASE.replace(input_moments=moments)
    gone = uk.unlearn(model, case, uk.Rows(0), "influence_first")
    assert gone.case_after_deletion().input_moments.rows == N - 1
    done = uk.unlearn(model, case, uk.Features(1), "influence_first")
    assert done.case_after_deletion().input_moments is None
