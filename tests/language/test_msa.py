"""Model state arithmetic: the published identities, on states that are known."""

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import people_case
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.checkpoint_history import Checkpoint
from unlearnkit.train.early_stopping import OFF, snapshot
from unlearnkit.train.loop import fit

ANNA = uk.Groups("anna")
CASE = people_case(recipe=uk.Recipe(optimizer="adamw", lr=0.01, epochs=3, batch_size=8))
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Given(uk.MemoryCheckpoints):
    """States of a training that led to any model, with the rows that each had not read."""

    def __init__(self, *states):
        super().__init__()
        for i, (state, unread) in enumerate(states):
            self.add("t", Checkpoint(i, state, torch.tensor(unread)))

    def find(self, model):
        return "t"


def start(seed=0):
    torch.manual_seed(seed)
    return CASE.fresh()


def trained_on(model, rows, stream):
    """Return the state of a model after the method's training on some rows."""
    fit(model, rows, CASE.task, uk.method("msa").run.resolve(CASE.recipe), Runtime(), stream=stream)
    return snapshot(model)


def result(model, history, guard=OFF, **settings):
    case = uk.with_checkpoints(CASE, history)
    return uk.unlearn(model, case, ANNA, uk.method("msa", guard=guard, **settings))


def test_a_model_that_is_the_trained_checkpoint_becomes_the_checkpoint():
    model = start()
    first = snapshot(model)
    trained_on(model, CASE.partition(ANNA).forget, "msa/forget")
    assert any(not torch.equal(t, first[n]) for n, t in model.state_dict().items())
    got = result(model, Given((first, [0, 1])), alpha=1.0, beta=0.0).model.state_dict()
    for n, t in first.items():
        torch.testing.assert_close(got[n], t, **CLOSE)


def test_both_vectors_are_what_training_adds_to_the_checkpoint():
    first, parts, model = snapshot(start()), CASE.partition(ANNA), start(1)
    one = trained_on(start(), parts.forget, "msa/forget")
    two = trained_on(start(), parts.retain, "msa/retain")
    got = result(model, Given((first, [0, 1])), alpha=2.0, beta=0.5).model.state_dict()
    for n, t in model.state_dict().items():
        want = t - 2.0 * (one[n] - first[n]) + 0.5 * (two[n] - first[n])
        torch.testing.assert_close(got[n], want, **CLOSE)


def test_nothing_taken_and_nothing_added_is_the_model_itself():
    model = start()
    got = result(model, Given((snapshot(start(1)), [0, 1])), alpha=0.0).model.state_dict()
    assert all(torch.equal(t, got[n]) for n, t in model.state_dict().items())


def test_the_checkpoint_is_the_last_that_had_read_no_forget_row():
    model, states = start(), [snapshot(start(s)) for s in (1, 2, 3)]
    unread = ([0, 1, 5], [0, 1], [0])
    many = result(model, Given(*zip(states, unread, strict=True))).model.state_dict()
    second = result(model, Given((states[1], [0, 1]))).model.state_dict()
    assert all(torch.equal(t, many[n]) for n, t in second.items())


def test_where_every_state_had_read_them_the_first_is_taken_and_named():
    done = result(start(), Given((snapshot(start(1)), [])))
    assert "msa: every kept state had read forget rows: the first is taken" in done.notes


def test_the_guard_goes_no_farther_than_it_may():
    model = start()
    trained_on(model, CASE.partition(ANNA).forget, "msa/forget")
    guard = uk.method("msa").guard
    done = result(model, Given((snapshot(start()), [0, 1])), guard=guard, alpha=10.0)
    far = result(model, Given((snapshot(start()), [0, 1])), alpha=10.0)
    moved = [
        sum(float((t - model.state_dict()[n]).abs().sum()) for n, t in d.model.state_dict().items())
        for d in (done, far)
    ]
    assert moved[0] < moved[1]


def test_without_kept_states_it_is_refused():
    with pytest.raises(UnsupportedError, match="checkpoint"):
        uk.unlearn(start(), CASE, ANNA, "msa")
