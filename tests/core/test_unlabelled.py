import pytest
import torch

import unlearnkit as uk
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import (
    InputError,
    NoTargetsError,
    UndeclaredReadError,
    UnsupportedError,
)
from unlearnkit.core.hidden_targets import no_targets
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case


@pytest.fixture(scope="module")
def toy():
    case = toy_case(Classification(3))
    return uk.train_original(case).model, case


@pytest.fixture
def bare(toy):
    _, case = toy
    x, go = case.train.x, torch.arange(60) < 12
    return uk.Case.from_parts(
        forget=(x[go], None),
        retain=(x[~go], None),
        test=(case.test.x, case.test.y),
        task=Classification(3),
        fresh=case.fresh,
        recipe=case.recipe,
    )


def test_rows_without_targets_have_a_length_and_an_address():
    x = torch.arange(12.0).view(6, 2)
    a, b = TensorData(x, no_targets(6)), TensorData(x, torch.zeros(6, dtype=torch.long))
    assert len(a) == 6
    assert a.key() != b.key()


@pytest.mark.parametrize("x", [torch.zeros(5, 2), {"a": torch.zeros(5, 2), "b": torch.zeros(5)}])
def test_a_pair_without_targets_is_a_case(x):
    case = uk.Case(train=(x, None), task=Classification(2))
    assert len(case.train) == 5
    assert not View.all(case.train).labelled


def test_a_task_by_name_cannot_be_fitted_to_no_targets():
    with pytest.raises(InputError, match=r"give a task such as Classification\(10\)"):
        uk.Case(train=(torch.zeros(4, 2), None), task="classification")


def test_a_class_cannot_be_asked_for_without_targets():
    case = uk.Case(train=(torch.zeros(4, 2), None), task=Classification(2))
    with pytest.raises(UnsupportedError, match="no targets; name rows or groups"):
        case.partition(uk.Classes(1))


@pytest.mark.parametrize(
    "read",
    [
        lambda b: b.y + 0,
        lambda b: b.y.tolist(),
        lambda b: b.y.to("cpu"),
        lambda b: b.pick(torch.tensor([True, False])).y.sum(),
        lambda b: torch.cat([b.y, b.y]).float(),
        lambda b: Classification(3).losses(torch.zeros(2, 3), b),
        lambda b: Classification(3).wrong(b, torch.Generator()),
    ],
)
@pytest.mark.parametrize(("why", "error"), [("", NoTargetsError), ("x", UndeclaredReadError)])
def test_a_target_that_is_not_there_cannot_be_read(read, why, error):
    y = no_targets(4) if not why else torch.arange(4)
    view = View.all(TensorData(torch.zeros(4, 6), y))
    view = view.without_targets(why) if why else view
    batch = next(view.batches(2, Runtime(), shuffle="s"))
    with pytest.raises(error):
        read(batch)
    with pytest.raises(error):
        _ = view.y
    assert view.data.y.numel() == 0


@pytest.mark.parametrize("method", ["finetune", "ssd", "relabel", "amnesiac"])
def test_a_method_that_reads_targets_refuses_and_names_one_that_does_not(toy, bare, method):
    with pytest.raises(UnsupportedError, match=rf"{method} needs labels.*bad_teacher"):
        uk.unlearn(toy[0], bare, None, method)


def test_no_oracle_can_be_trained_without_targets(bare):
    with pytest.raises(UnsupportedError, match="rows have no targets"):
        uk.oracle(bare, None, seeds=1)


def test_an_audit_without_targets_says_what_it_can(toy, bare):
    done = uk.unlearn(toy[0], bare, None, "bad_teacher")
    report = uk.audit(done)
    found = {r.metric: r.estimate for r in report.rows}
    assert found["accuracy_forget"].value is None
    assert "needs targets" in found["accuracy_forget"].note
    assert found["accuracy_test"].value is not None
    assert 0 <= found["zrf"].value <= 1
    assert any("no targets on forget, retain rows" in w for w in report.warnings)
