"""What kind of request it is, read from the rows and the original alone."""

import pytest
import torch
from scipy.stats import mannwhitneyu

from experiments.small_cases import mixture_sgd, wrong_rows
from unlearnkit.auto.case_profile import ROWS, profile_case
from unlearnkit.core.case import Case
from unlearnkit.core.request import Classes, Groups, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import train_original
from unlearnkit.train.features import row_losses


def seen(model, case, request, rt=None):
    return profile_case(model, case, request, case.partition(request), rt or Runtime())


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (Classes(1), "class"),
        (Groups(2), "group"),
        (Rows(range(0, 60, 7)), "random"),
    ],
)
def test_the_kind_of_a_request(clouds, request_, kind):
    assert seen(*clouds, request_).kind == kind


def test_all_rows_of_a_class_named_one_by_one_are_a_class(clouds):
    model, case = clouds
    rows = (case.train.y == 2).nonzero()[:, 0]
    assert seen(model, case, Rows(rows)).kind == "class"


def test_a_class_named_along_with_more_other_rows_is_no_class(clouds):
    model, case = clouds
    rows = torch.cat([(case.train.y == 2).nonzero()[:, 0], (case.train.y != 2).nonzero()[:30, 0]])
    assert seen(model, case, Rows(rows)).kind != "class"


def test_rows_with_wrong_labels_are_atypical_and_the_share_is_the_mann_whitney_statistic():
    asked = wrong_rows(mixture_sgd, 0.05, "test")
    model = train_original(asked.case).model.eval()
    found = seen(model, asked.case, asked.request)
    assert found.kind == "atypical"
    parts = asked.case.partition(asked.request)
    drawn = (parts.forget, parts.retain.sample(ROWS, Runtime(), "auto/retain"))
    go, stay = (row_losses(model, v, asked.case.task, Runtime()).double().numpy() for v in drawn)
    want = mannwhitneyu(go, stay).statistic / (len(go) * len(stay))
    assert found.atypicality == pytest.approx(want, abs=1e-12)


def test_one_atypical_row_is_not_enough_to_call_the_forget_set_atypical(clouds):
    model, case = clouds
    losses = row_losses(model, case.partition(Rows(0)).retain, case.task, Runtime())
    worst = 1 + int(losses.argmax())
    found = seen(model, case, Rows(worst))
    assert found.atypicality > 0.95
    assert found.kind == "random"


def test_the_look_is_metered_and_the_share_is_of_all_rows(clouds):
    model, case = clouds
    rt = Runtime()
    assert seen(model, case, Rows(range(6)), rt).share == pytest.approx(0.1)
    assert (rt.cost.forward, rt.cost.backward) == (60, 0)


def test_weight_matrices_are_counted_and_biases_are_not(clouds):
    model, case = clouds
    deeper = torch.nn.Sequential(model, torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    matrices = sum(len(p.shape) >= 2 for p in model.parameters())
    assert seen(model, case, Rows(0)).layers == matrices
    assert seen(deeper.eval(), case, Rows(0)).layers == matrices + 1


def test_batch_normalisation_is_seen(clouds):
    model, case = clouds
    with_norm = torch.nn.Sequential(model, torch.nn.BatchNorm1d(3))
    assert not seen(model, case, Rows(0)).batch_norm
    assert seen(with_norm.eval(), case, Rows(0)).batch_norm


def test_without_retained_rows_nobody_can_tell(clouds):
    model, case = clouds
    x, y = case.train.x[:6], case.train.y[:6]
    parts = Case.from_parts(forget=(x, y), task=case.task)
    found = seen(model, parts, None)
    assert (found.kind, found.share, found.atypicality) == ("unknown", None, None)
