"""Data that cannot be used is refused in one line, before any work, with the remedy."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import unlearnkit as uk
from unlearnkit.core.data import MapData, TensorData, View
from unlearnkit.core.errors import InputError, UnlearnkitError

N, D = 12, 3
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3


def holed(value, *rows):
    x = X.clone()
    x[list(rows), 1] = value
    return x


class Pairs(Dataset):
    def __init__(self, x=X, y=Y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0])])


class Triples(Pairs):
    def __getitem__(self, i):
        return self.x[i], self.y[i], i


class Mappings(Pairs):
    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i]}


class Pictures(Pairs):
    def __getitem__(self, i):
        return object(), self.y[i]


class Ragged(Pairs):
    def __getitem__(self, i):
        return self.x[i][: 1 + i % 2], self.y[i]


class RaggedTargets(Pairs):
    def __getitem__(self, i):
        return self.x[i], torch.zeros(1 + i // 8)


def frame(**change):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(X.numpy(), columns=["age", "height", "weight"])
    return table.assign(**{"label": Y.numpy()} | change)


def doubled():
    table = frame()
    table.columns = ["age", "age", "weight", "label"]
    return table


def splits():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"x": X.numpy(), "label": Y.numpy()})
    return datasets.DatasetDict({"train": rows, "test": rows})


def streamed():
    return splits()["train"].to_iterable_dataset()


def texts():
    datasets = pytest.importorskip("datasets")
    return datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})


CASES = {
    "not a number": ({"train": (holed(float("nan"), 4, 7), Y)}, "train: x is not finite in 2 of 12"
                     " rows, first row 4; remove or impute them"),
    "infinity": ({"train": ({"a": X, "b": holed(float("inf"), 0)}, Y)}, "train: b is not finite in"
                 " 1 of 12 rows, first row 0"),
    "targets not finite": ({"train": (X, holed(float("nan"), 2)[:, 1]), "task": "regression"},
                           "train: y is not finite in 1 of 12 rows, first row 2"),
    "test not finite": ({"test": (holed(float("nan"), 1), Y)}, "test: x is not finite in 1 of 12"),
    "counts": ({"train": (X, Y[:5])}, "train: x has 12 rows and y has 5; give one target a row"),
    "counts of a dict": ({"train": ({"a": X, "b": X[:3]}, Y)}, "train: b has 3 rows and y has 12"),
    "a scalar target": ({"train": (X, 3)}, "train: x has 12 rows and y has 0"),
    "rows in memory, not finite": ({"train": TensorData(holed(float("nan"), 4), Y)}, "train: x is"
                                   " not finite in 1 of 12 rows, first row 4"),
    "targets in memory": ({"train": TensorData(X, holed(float("inf"), 2)[:, 1]), "task":
                           "regression"}, "train: y is not finite in 1 of 12 rows, first row 2"),
    "test rows in memory": ({"test": TensorData(holed(float("nan"), 1), Y)}, "test: x is not"
                            " finite in 1 of 12"),
    "counts in memory": ({"train": TensorData(X, Y[:5])}, "train: x has 12 rows and y has 5"),
    "owners in memory": ({"train": TensorData(X, Y, Y[:2])}, "group has shape (2,) for 12 rows"),
    "owners beside": ({"train": TensorData(X, Y), "group": [1, 2]}, "group has shape (2,) for 12"),
    "a column in memory": ({"train": TensorData(X, Y), "target": "label"}, "'label' names a column,"
                           " but the rows are no table, got TensorData"),
    "targets of a map-style set": ({"train": MapData(Pairs(), holed(float("nan"), 3)[:, 1]), "task":
                                    "regression"}, "train: y is not finite in 1 of 12 rows"),
    "empty": ({"train": (X[:0], Y[:0])}, "train: the data set is empty"),
    "empty map-style set": ({"train": Pairs(X[:0], Y[:0])}, "train: the data set is empty"),
    "inputs alone": ({"train": X}, "train: expected a pair (x, y), a map-style Dataset"),
    "inputs alone, array": ({"train": X.numpy()}, "got ndarray"),
    "three of them": ({"train": (X, X, Y)}, "got tuple"),
    "mapping": ({"train": {"x": X, "y": Y}}, "got dict"),
    "a path": ({"train": "train.csv"}, "got str"),
    "nothing": ({"train": None}, "got NoneType"),
    "a loader": ({"train": DataLoader(Pairs())}, "got DataLoader; give its .dataset"),
    "a stream": ({"train": Stream()}, "got Stream"),
    "rows of three": ({"train": Triples()}, "train: rows must be pairs (x, y), row 0 is a tuple"),
    "rows of names": ({"train": Mappings()}, "rows: a row has no 'labels'; name the target"),
    "rows of pictures": ({"train": Pictures()}, "train: x of row 0 cannot be made a tensor, got"
                         " object; transform it to numbers"),
    "ragged targets": ({"train": RaggedTargets(), "task": "regression"}, "train: targets differ in"
                       " shape: (1,) in row 0, (2,) in row 8; give each row the same"),
    "text": ({"train": (["a", "b"], [0, 1])}, "x: cannot be made a tensor, got list"),
    "class names": ({"train": (X[:2], ["cat", "dog"])}, "train y: cannot be made a tensor"),
    "class names of an array": ({"train": (X[:2], np.array(["cat", "dog"]))}, "train y: cannot be"
                                " made a tensor, got dtype <U3; encode text and categories as"
                                " numbers first, such as pandas.factorize(y)[0]"),
    "ragged lists": ({"train": ([[1.0], [1.0, 2.0]], [0, 1])}, "x: cannot be made a tensor"),
    "fractional classes": ({"train": (X, Y + 0.5)}, "y: classes must be whole numbers; for real"
                           " targets use regression"),
    "negative classes": ({"train": (X, Y - 1)}, "y: classes must be numbered from 0, got -1"),
    "several targets": ({"train": (X, X > 0)}, "y: classification needs one class a row, got shape"
                        " (12, 3); for several yes-or-no labels a row use the multilabel task"),
    "a class that no row shows": ({"test": (X, Y + 1)}, "test: y: class 3 is not among 0 to 2"),
    "strange task": ({"task": "clasification"}, "no task 'clasification'. Did you mean"
                     " 'classification'?"),
    "a task's class": ({"task": uk.Classification}, "task: give a task such as Classification(10)"),
    "group too short": ({"group": [1, 2]}, "train: group has shape (2,) for 12 rows"),
    "group of a matrix": ({"group": Y[:, None]}, "train: group has shape (12, 1) for 12 rows"),
    "group of fractions": ({"group": X[:, 0]}, "train: group: owners must be integers, got"),
    "group of nothing": ({"group": [None] * N}, "train group: cannot be made a tensor, got list"),
    "group by name without a table": ({"group": "person"}, "got 'person', needs a table"),
    "group of a map-style set": ({"train": Pairs(), "group": [1]}, "group has shape (1,) for 12"),
    "target without a table": ({"target": "label"}, "train: 'label' names a column, but the rows"
                               " are no table, got tuple"),
    "a model for a factory": ({"fresh": nn.Linear(3, 3)}, "fresh: give a function that builds"),
}  # fmt: skip

TABLES = {
    "no target": (frame, {}, "train: target: name the target column, got None; there are: age,"
                  " height, weight, label"),
    "strange target": (frame, {"target": "lable"}, "train: target: name the target column, got"
                       " 'lable'"),
    "strange input": (frame, {"target": "label", "inputs": ["agee"]}, "train: no column 'agee';"
                      " there are: age, height, weight, label"),
    "strange group": (frame, {"target": "label", "group": "person"}, "train: no group column"
                      " 'person'; there are: age"),
    "target as input": (frame, {"target": "label", "inputs": ["age", "label"]}, "inputs: 'label' is"
                        " the target; it cannot be an input too"),
    "only a target": (lambda: frame()[["label"]], {"target": "label"}, "train: no input column"),
    "text column": (lambda: frame(name=["x"] * N), {"target": "label"}, "train: column 'name' is"
                    " not numeric ("),
    "column twice": (doubled, {"target": "label"}, "train: column 'age' is there twice"),
    "hole": (lambda: frame(height=holed(float("nan"), 3)[:, 1].numpy()), {"target": "label"},
             "train: x is not finite in 1 of 12 rows, first row 3"),
    "text target": (lambda: frame(label=["x"] * N), {"target": "label"}, "train label: cannot be"
                    " made a tensor"),
    "all splits": (splits, {"target": "label"}, "got all splits of a data set; give one: train,"
                   " test"),
    "streamed hub set": (streamed, {"target": "label"}, "got IterableDataset, which has no length"),
    "hub text": (texts, {"target": "label"}, "train text: cannot be made a tensor"),
}  # fmt: skip


def refused(told, **how):
    with pytest.raises(UnlearnkitError) as error:
        uk.Case(**{"train": (X, Y), "task": "classification"} | how)
    assert isinstance(error.value, InputError)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_unusable_data_is_told_in_a_line(case):
    how, told = CASES[case]
    refused(told, **how)


@pytest.mark.parametrize("case", TABLES)
def test_an_unusable_table_is_told_in_a_line(case):
    make, how, told = TABLES[case]
    refused(told, train=make(), **how)


def test_a_test_table_must_have_the_training_columns():
    refused(
        "test: no column 'height'; there are: age, weight, label",
        train=frame(),
        test=frame()[["age", "weight", "label"]],
        target="label",
    )


def test_without_data_the_task_cannot_be_a_name():
    with pytest.raises(InputError, match=r"give a task such as Classification\(10\), got 'class"):
        uk.Case.without_data(task="classification", input_shape=(3,))


def test_parts_of_different_targets_are_refused():
    with pytest.raises(InputError, match=r"y: targets of the parts differ in shape"):
        uk.Case.from_parts(forget=(X, X), retain=(X, Y.float()), task="regression")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_hole_in_a_map_style_set_is_found_when_it_is_read(workers):
    source = Pairs(holed(float("nan"), 5))
    case = uk.Case(train=source, task="classification", workers=workers)
    view = View(case.train, torch.tensor([1, 0, 3, 5, 2]))
    with pytest.raises(InputError, match="data: x is not finite in 1 of 2 rows, first row 5"):
        list(view.batches(2, uk.Runtime()))


@pytest.mark.parametrize("workers", [0, 1])
def test_ragged_rows_of_a_map_style_set_are_told_in_a_line(workers):
    case = uk.Case(train=Ragged(), task="classification", workers=workers)
    with pytest.raises(InputError, match=r"data: rows 0 and on .* batch .*stack expects each") as e:
        list(View.all(case.train).batches(2, uk.Runtime()))
    assert "\n" not in str(e.value)


def test_a_set_with_a_bug_of_its_own_names_that_bug_and_keeps_it_as_the_cause():
    class Broken(Pairs):
        def __getitem__(self, i):
            return (self.x[i], self.y[i]) if i in {0, N - 1} else self.missing

        targets = Y

    with pytest.raises(InputError, match=r"row 1 cannot be read: AttributeError.*missing") as error:
        uk.Case(train=Broken(), task="classification")
    assert isinstance(error.value.__cause__, AttributeError)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (
            {"train": (X[:, :2], Y)},
            "retain: the model does not take this input, shape (2, 2): mat1",
        ),
        ({"test": (X[:, :2], Y)}, "test: the model does not take this input, shape (2, 2): mat1"),
        ({"validation": (X[:, :2], Y)}, "validation: the model does not take this input"),
        ({"held_out": (X[:, :2], Y)}, "held_out: the model does not take this input"),
        ({"train": ({"a": X, "b": X}, Y)}, "retain: the model does not take this input, shape {a:"),
        ({"train": ((X, X), Y)}, "retain: the model does not take this input, shape {0: (2, 3)"),
    ],
    ids=["train", "test", "validation", "held out", "dict", "two arguments"],
)
def test_rows_that_the_model_does_not_take_are_told_before_it_runs(how, told):
    net = nn.Linear(D, 3)
    before = {k: t.clone() for k, t in net.state_dict().items()}
    case = uk.Case(**{"train": (X, Y), "task": "classification"} | how)
    with pytest.raises(InputError) as error:
        uk.unlearn(net, case, uk.Rows(0), "finetune")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(t, before[k]) for k, t in net.state_dict().items())


def test_rows_of_a_changed_case_are_read_as_those_of_a_new_one():
    case = uk.Case(train=(torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])), task="classification")
    other = case.replace(test=(torch.ones(2, 2), torch.tensor([0, 1], dtype=torch.int32)))
    assert other.test.y.dtype == torch.long
    assert len(other.test) == 2
    with pytest.raises(InputError, match="test: y: class 7 is not among 0 to 2"):
        case.replace(test=(torch.ones(2, 2), torch.tensor([0, 7])))


def test_truth_values_between_the_numbers_of_a_frame_are_0_and_1():
    x = frame(tall=X[:, 1].numpy() > 0).drop(columns="label")
    got = uk.Case(train=(x, Y), task="classification").train.x
    assert got.dtype == torch.float32
    assert torch.equal(got, torch.cat([X, (X[:, 1:2] > 0).float()], 1))


def test_a_column_of_text_in_the_inputs_is_named():
    x = frame(city=["Ulm"] * N).drop(columns="label")
    with pytest.raises(InputError, match=r"not numeric are 1 of 4 columns, first 'city' \(.*get_d"):
        uk.Case(train=(x, Y), task="classification")


@pytest.mark.parametrize(
    ("width", "case", "told"),
    [
        (3, {"train": (X, Y + 1)}, "classes go from 0 to 3: number the targets from 0, or give a"),
        (1, {"train": (X, Y)}, "3 classes; give a model with 3 outputs"),
        (2, {"train": (X, X[:, :1]), "task": "regression"}, "give a model with as many outputs"),
        (2, {"train": (X, X > 0), "task": "multilabel"}, "give a model with as many outputs"),
    ],
    ids=["classes from 1", "one logit", "regression", "labels"],
)
def test_a_model_of_other_outputs_is_refused_with_the_remedy(width, case, told):
    case = uk.Case(**{"task": "classification"} | case)
    with pytest.raises(UnlearnkitError, match=told):
        uk.unlearn(nn.Linear(D, width), case, uk.Rows(1), "finetune")


def test_a_model_of_other_inputs_is_refused_with_the_remedy():
    case = uk.Case(train=(X, Y), task="classification")
    with pytest.raises(InputError, match="give x in the shape and dtype that the model was trai"):
        uk.unlearn(nn.Linear(D + 1, 3), case, uk.Rows(1), "finetune")
