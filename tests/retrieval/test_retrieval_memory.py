"""Forgetting in a retrieval-augmented model: the store exactly, the weights by a method."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import unlearnkit as uk
from unlearnkit import catalog
from unlearnkit.cases.author_genres import author_genres, four_authors
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.retrieval import HashedWords, retrieval_case
from unlearnkit.testing import toy_case

STORE_ONLY = uk.method("retrieval_memory", weights="keep")


@pytest.fixture(scope="module")
def trained():
    asked = four_authors()
    case = asked.case.replace(recipe=None)
    how = asked.case.train_model
    short = asked.case.recipe.model_copy(update={"epochs": 6})
    case = case.replace(recipe=short, train_model=type(how)(task=case.task, how=short, settings=""))
    return uk.train_original(case).model, case, asked.request


def unlearned(trained, how, **more):
    model, case, request = trained
    return uk.unlearn(more.get("model", model), more.get("case", case), request, how)


def same_weights(one, other):
    theirs = dict(other.reader.named_parameters())
    return all(torch.equal(p, theirs[n]) for n, p in one.reader.named_parameters())


def test_the_store_is_that_of_a_retrained_model_bit_for_bit(trained):
    model, case, request = trained
    done = unlearned(trained, STORE_ONLY)
    (oracle,) = uk.oracle(case, request, seeds=1).runs
    assert done.model.store.digest == oracle.model.store.digest
    assert model.store.digest != oracle.model.store.digest


def test_either_part_can_be_unlearned_alone(trained):
    model = trained[0]
    store, weights = unlearned(trained, STORE_ONLY).model, unlearned(trained, "finetune").model
    assert same_weights(store, model)
    assert len(store.store) == 216
    assert not same_weights(weights, model)
    assert weights.store.digest == model.store.digest


def test_both_are_the_deletion_and_then_the_method_for_the_weights(trained):
    both = unlearned(trained, uk.method("retrieval_memory", weights="finetune"))
    after = unlearned(trained, STORE_ONLY).model
    twice = unlearned(trained, "finetune", model=after)
    assert same_weights(both.model, twice.model)
    assert both.model.store.digest == after.store.digest
    assert "retrieval_memory: 24 rows deleted from the store, 216 left" in both.notes


def test_settings_are_those_of_the_method_for_the_weights(trained):
    how = uk.method("retrieval_memory", weights="finetune", settings={"run": {"share": 0}})
    assert same_weights(unlearned(trained, how).model, trained[0])


def test_the_audit_tells_store_and_weights_apart_and_states_evidence_for_each(trained):
    done = unlearned(trained, STORE_ONLY)
    report = uk.audit(done)
    exact, measured = report.evidence
    assert (exact.kind, measured.kind) == ("exact", "empirical")
    assert "equals, bit for bit, the store" in exact.statement
    assert exact.numbers == {"rows deleted": 24, "copies left": 0}
    assert report.row("memory_in_weights").estimate.value == 0  # they are the original's still
    assert report.row("memory_in_store").estimate.value > 0


def test_a_store_that_still_holds_the_rows_is_not_called_exact(trained):
    report = uk.audit(unlearned(trained, "finetune"))
    assert [e.kind for e in report.evidence] == ["empirical"]
    assert report.row("memory_in_store").estimate.value == 0


def test_memory_is_what_scikit_learn_says_comes_back(trained):
    model, case, request = trained
    done = unlearned(trained, uk.method("retrieval_memory", weights="finetune"))
    parts = case.partition(request)
    views = {Split.FORGET: parts.forget, Split.HELD_OUT: View.all(case.held_out)}
    models = {"original": model, "unlearned": done.model}
    e = Evidence(models, views, case.task, Runtime())
    found = {n: catalog.metrics()[n](e).value for n in ("memory_in_store", "memory_in_weights")}

    def area(net):
        margins, member = [], []
        for view, label in ((parts.forget, 1), (views[Split.HELD_OUT], 0)):
            log_p = net.eval()(view.data.x[view.rows]).detach().double().log_softmax(-1).numpy()
            own = log_p[np.arange(len(view)), view.y.numpy()]
            margins += (own - np.log1p(-np.exp(own))).tolist()
            member += [label] * len(view)
        return roc_auc_score(member, margins)

    both = area(done.model)
    want = {
        "memory_in_store": area(done.model.with_store(model.store)) - both,
        "memory_in_weights": area(model.with_store(done.model.store)) - both,
    }
    assert found == pytest.approx(want, abs=1e-6)


def test_models_without_a_store_have_no_such_rows_in_their_report():
    case = toy_case(uk.Classification(3))
    done = uk.unlearn(uk.train_original(case).model, case, uk.Rows(0, 1), "retrieval_memory")
    names = {row.metric for row in uk.audit(done).rows}
    assert not names & {"memory_in_store", "memory_in_weights"}
    assert any("no retrieval store" in note for note in done.notes)


def test_a_copy_that_the_request_does_not_name_is_counted(trained):
    model, case, _ = trained
    x, y = case.train.x.clone(), case.train.y.clone()
    x[30], y[30] = x[0], y[0]
    again = model.with_store(model.store)
    again.store.delete(case.train.x[30:31], case.train.y[30:31])
    again.store.add(again.retriever, x[30:31], y[30:31])
    doubled = case.replace(train=type(case.train)(x, y))
    done = uk.unlearn(again, doubled, uk.Rows(0), STORE_ONLY)
    assert any("1 rows with the input of a forget row stay" in note for note in done.notes)
    exact = uk.audit(done).evidence[0]
    assert "1 copies of forget rows stay in it" in exact.statement


def test_a_store_with_fewer_rows_than_neighbours_is_said(trained):
    model, case, _ = trained
    few = model.with_store(model.store)
    few.store.delete(case.train.x[:235], case.train.y[:235])
    done = uk.unlearn(few, case, uk.Rows(*range(236)), STORE_ONLY)
    assert any("1 rows deleted" in n and "235 forget rows were not in it" in n for n in done.notes)
    assert any("fewer rows than the 5" in note for note in done.notes)


def test_corrected_labels_stand_in_the_store_as_in_one_that_is_built_with_them(trained):
    model, case, _ = trained
    right = (int(case.train.y[0]) + 1) % 4
    done = uk.unlearn(model, case, uk.Labels({0: right}), STORE_ONLY)
    y = case.train.y.clone()
    y[0] = right
    built = case.fresh().store
    built.add(HashedWords(4096), case.train.x, y)
    assert done.model.store.digest == built.digest


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"weights": "fine_tune"}, "Did you mean 'finetune'"),
        ({"weights": "unsir"}, "no retrieval_memory: method for the weights 'unsir'"),
        ({"weights": "finetune", "settings": {"rate": 1}}, "'rate'"),
    ],
)
def test_the_method_for_the_weights_is_checked(trained, how, message):
    with pytest.raises(UnknownNameError, match=message):
        unlearned(trained, uk.method("retrieval_memory", **how))


@pytest.mark.parametrize("method", ["ssd", "scrub", "salun", "influence_second", "neggrad_plus"])
def test_other_methods_work_on_the_reader(trained, method):
    done = unlearned(trained, method)
    assert done.model.store.digest == trained[0].store.digest
    assert torch.equal(done.model.retriever.weight, trained[0].retriever.weight)


def test_a_model_is_trained_alike_at_each_call(trained, tmp_path):
    again = uk.train_original(trained[1], cache=uk.Cache(tmp_path))
    assert same_weights(again.model, trained[0])
    assert again.model.store.digest == trained[0].store.digest


class Drawn(nn.Module):
    """A retriever with other weights at each call."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 4))

    def forward(self, x):
        return x.float() @ self.weight


def plain():
    case = author_genres()
    return case.replace(fresh=case.fresh.reader, train_model=None)


def test_a_retriever_that_differs_at_each_call_is_refused():
    with pytest.raises(InputError, match="other weights at each call"):
        retrieval_case(plain(), retriever=Drawn)


@pytest.mark.parametrize("k", [0, 241])
def test_more_neighbours_than_training_rows_are_refused(k):
    with pytest.raises(InputError, match=f"1 to 240, the number of training rows, got {k}"):
        retrieval_case(plain(), retriever=lambda: HashedWords(4096), neighbours=k)


def test_a_case_without_a_recipe_is_refused():
    with pytest.raises(InputError, match="a reader and a recipe"):
        retrieval_case(plain().replace(recipe=None), retriever=lambda: HashedWords(4096))


def test_metrics_of_stored_outputs_are_undefined():
    out = {name: {s: torch.zeros(2, 3) for s in (Split.FORGET, Split.HELD_OUT)}
           for name in (ModelRole.ORIGINAL, ModelRole.UNLEARNED)}  # fmt: skip
    y = {s: torch.tensor([0, 1]) for s in (Split.FORGET, Split.HELD_OUT)}
    e = Evidence.from_outputs(out, y, uk.Classification(3), Runtime())
    assert math.isnan(catalog.metrics()["memory_in_store"](e).value)
