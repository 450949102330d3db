"""Attribution by models of random subsets: streaming, resuming, refusing."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.attribution import trained_outputs
from unlearnkit.attribution.attributed_model import AttributedModel
from unlearnkit.attribution.back_ends import predict_shift
from unlearnkit.attribution.datamodel import DatamodelAttribution, subset_plan
from unlearnkit.attribution.leave_out_models import OracleAttribution
from unlearnkit.attribution.shift_quality import shift_quality
from unlearnkit.attribution.trained_outputs import TrainedOutputs
from unlearnkit.cache import Cache
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.ensemble import fit_together
from unlearnkit.train.loop import fit
from unlearnkit.train.training_guard import no_training


def test_subsets_have_one_size_and_a_longer_plan_begins_with_a_shorter_one():
    short, long = subset_plan(41, 6, 0.5), subset_plan(41, 9, 0.5)
    assert {len(p.rows) for p in long} == {20}
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(short, long, strict=False))
    assert len({tuple(p.rows.tolist()) for p in long}) == 9


@pytest.mark.parametrize("share", [0.01, 0.999])
def test_a_share_without_rows_or_of_all_rows_is_refused(share):
    with pytest.raises(InputError, match="takes some rows and leaves some"):
        subset_plan(40, 4, share if share < 0.5 else 1.0)


def test_outputs_are_those_of_models_trained_one_by_one(toy, tmp_path):
    subject, _ = toy
    plan = subset_plan(60, 3, 0.5)
    made = TrainedOutputs(subject, plan, subject.train, Runtime(), Cache(tmp_path))
    ((block, work),) = made.blocks()
    assert work == 3 * (3 * 10 * 30 + 60)  # epochs, rows and reading of all rows
    for one, out in zip(plan, block, strict=True):
        model, rt = subject.build(one.seed), Runtime(seed=one.seed)
        fit(
            model, subject.train.pick(one.rows), subject.task, subject.training, rt,
            stream=trained_outputs.STREAM,
        )  # fmt: skip
        want = predict(model, subject.train, subject.task, rt)
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-4)


def test_a_plan_goes_on_where_it_was_interrupted(toy, tmp_path, monkeypatch):
    subject, _ = toy
    monkeypatch.setattr(trained_outputs, "BLOCK", 2)
    plan, cache, trained = subset_plan(60, 6, 0.5), Cache(tmp_path), []

    def counting(members, task, recipe):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.extend(members)
        yield from fit_together(members, task, recipe)

    monkeypatch.setattr(trained_outputs, "fit_together", counting)
    made = TrainedOutputs(subject, plan, subject.train, Runtime(), cache)
    with pytest.raises(KeyboardInterrupt):
        list(made.blocks())
    trained.clear()
    whole = torch.cat([b for b, _ in made.blocks()])
    assert len(trained) == 2
    with no_training():
        assert torch.equal(whole, torch.cat([b for b, _ in made.blocks()]))


@pytest.fixture(scope="module")
def logistic(toy):
    """Return a logistic regression on the rows of the toy: its trainings differ little by seed."""
    _, case = toy
    plain = case.replace(fresh=lambda: nn.Linear(6, 3))
    return AttributedModel.of_case(uk.train_original(plain).model, plain, uk.Rows(*range(12)))


def test_ridge_predicts_the_shift_of_retraining(logistic):
    rt = Runtime()
    got = predict_shift(logistic, DatamodelAttribution(models=256), rt)
    truth = predict_shift(logistic, OracleAttribution(models=32), Runtime())
    assert truth.quality.correlation > 0.8  # of 16 models for 16 others
    found = shift_quality(got.shift[None].expand(2, -1, -1), truth.shift[None].expand(2, -1, -1))
    assert found.correlation > 0.9
    assert 0.7 < found.slope < 1.5
    assert got.quality.models == 26
    assert rt.cost.precomputation == got.work > 0
    assert rt.cost.work == 0
    assert any("retrainings a request" in n for n in rt.notes)


def test_without_models_of_all_rows_what_fewer_rows_do_is_not_seen(logistic):
    """The centred inclusions of subsets of one size sum to 0, whichever the row."""
    truth = predict_shift(logistic, OracleAttribution(models=32), Runtime()).shift
    errors = [
        (
            predict_shift(logistic, DatamodelAttribution(models=256, whole=w), Runtime()).shift
            - truth
        )
        .norm()
        .item()
        for w in (0, 64)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("estimator", ["lasso", "difference"])
def test_other_estimators_agree_with_ridge(toy, estimator):
    subject, _ = toy
    plain = {"models": 256, "whole": 0}
    ridge, other = (
        predict_shift(subject, DatamodelAttribution(estimator=e, **plain), Runtime())
        for e in ("ridge", estimator)
    )
    p, o = (t.shift.flatten() for t in (ridge, other))
    assert torch.corrcoef(torch.stack([p, o]))[0, 1] > 0.7


def test_a_shift_of_another_request_or_of_other_rows_is_refused(toy):
    subject, case = toy
    found = predict_shift(subject, DatamodelAttribution(models=8, whole=2), Runtime())
    found.check(subject, subject.train)
    other = AttributedModel.of_case(subject.model, case, uk.Rows(3))
    with pytest.raises(InputError, match="another request; predict the shift anew"):
        found.check(other, other.train)
    with pytest.raises(InputError, match="another rows to read"):
        found.check(subject, subject.train.pick(torch.arange(5)))
    moved = case.replace(train=TensorData(case.train.x + 1, case.train.y))
    strange = AttributedModel.of_case(subject.model, moved, uk.Rows(*range(6)))
    with pytest.raises(InputError, match="another training rows"):
        found.check(strange, strange.train)


def test_all_rows_and_no_row_are_refused(toy):
    subject, _ = toy
    for flags, whole in ((torch.ones(60).bool(), "all rows"), (torch.zeros(60).bool(), "no row")):
        with pytest.raises(InputError, match=f"names {whole}"):
            AttributedModel(subject.model, subject.task, subject.train, flags)


def test_a_request_for_rows_that_were_deleted_is_refused(toy):
    subject, case = toy
    owned = case.after_deletion(uk.Groups(0))
    with pytest.raises(InputError):
        AttributedModel.of_case(subject.model, owned, uk.Groups(0))
    AttributedModel.of_case(subject.model, owned, uk.Groups(1))


def test_without_a_model_factory_subset_models_are_refused(toy):
    subject, case = toy
    bare = AttributedModel.of_case(subject.model, case.replace(fresh=None), uk.Rows(0))
    with pytest.raises(UnsupportedError, match="trains models from scratch; give Case"):
        predict_shift(bare, DatamodelAttribution(models=8, whole=2), Runtime())


def test_rows_that_were_never_trained_on_can_be_read(toy):
    subject, case = toy
    read = View.all(case.test)
    got = predict_shift(subject, DatamodelAttribution(models=8, whole=2), Runtime(), read=read)
    assert got.shift.shape == (45, 3)
    assert got.shift.sum(1).abs().max() < 1e-4  # centred


def test_a_request_that_corrects_rows_is_refused():
    x, y = torch.randn(12, 3), torch.arange(12) % 2
    case = uk.Case(train=(x, y), task="classification", recipe=uk.Recipe())
    with pytest.raises(UnsupportedError, match="influence_second"):
        AttributedModel.of_case(torch.nn.Linear(3, 2), case, uk.Features(1))
