"""FedRecover: equal to retraining where its estimate is exact, and where every round is."""

import math

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.federated.client_splits import iid_split
from unlearnkit.federated.federated_case import Client, federated_case
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.federated.rounds import ClientUpdates, load_state, train_in_rounds
from unlearnkit.federated.update_history import DiskHistory, MemoryHistory
from unlearnkit.methods.fed_recover import FedRecover, largest_usual_entry
from unlearnkit.testing.toy_cases import toy_case

CLIENTS, FEATURES, ROUNDS = 5, 4, 12


def spheres(every=1):
    """Return clients whose losses have the same curvature in all directions: each row a feature."""
    rng = torch.Generator().manual_seed(0)
    x = math.sqrt(FEATURES) * torch.eye(FEATURES).repeat(CLIENTS, 1).double()
    y = torch.randn(len(x), 1, generator=rng).double()
    recipe = Recipe(lr=0.05, epochs=2, batch_size=FEATURES)
    case = uk.Case(
        train=(x, y), task=uk.Regression(), recipe=recipe,
        fresh=lambda: nn.Linear(FEATURES, 1, bias=False).double(),
    )  # fmt: skip
    owners = torch.arange(CLIENTS).repeat_interleave(FEATURES)
    history = MemoryHistory(every=every)
    return federated_case(
        case, Federation(rounds=ROUNDS, recipe=recipe), clients=owners, history=history
    )


def trained(case, tmp_path):
    return uk.train_original(case, cache=uk.Cache(tmp_path)).model


def retrained(case, full):
    """Return the training without client 3, from the weights that the original started from."""
    history, model = case.train_model.history, case.fresh()
    load_state(model, next(iter(history.rounds(history.find(full)))).start)
    clients = rows_by_client(case.partition(Client(3)).retain)
    train_in_rounds(model, clients, case.task, case.train_model.federation, Runtime())
    return model


def same(one, two):
    a, b = one.state_dict(), two.state_dict()
    return all(torch.equal(a[n], b[n]) for n in a)


def test_on_spherical_losses_the_estimate_is_exact(tmp_path):
    case = spheres()
    full = trained(case, tmp_path)
    how = FedRecover(warm_up=0.2, every=20, final=0)
    done = uk.unlearn(full, case, Client(3), how)
    want = retrained(case, full)
    torch.testing.assert_close(done.model.weight, want.weight, rtol=1e-9, atol=1e-12)
    assert (done.model.weight - full.weight).abs().max() > 1e-3
    # Three rounds of warm-up, by four clients.
    assert any("12 of 48 updates were exact" in note for note in done.notes)


def test_the_last_of_each_so_many_rounds_after_the_warm_up_is_exact():
    how = FedRecover(warm_up=0.1, every=10, final=0.1)
    assert [n for n in range(30) if how.is_exact(n, 30)] == [0, 1, 2, 12, 22, 27, 28, 29]
    assert [n for n in range(20) if how.is_exact(n, 20)] == [0, 1, 11, 18, 19]


def test_at_its_defaults_clients_train_in_less_than_three_tenths_of_the_rounds():
    how = FedRecover()
    for rounds in (10, 20, 30, 50, 100, 1000):
        assert sum(how.is_exact(n, rounds) for n in range(rounds)) <= 0.3 * rounds


@pytest.mark.parametrize(
    "settings", [{"warm_up": 1}, {"every": 1}, {"final": 1}, {"tolerance": 0.999}]
)
def test_where_every_round_is_exact_it_is_retraining_in_every_bit(settings, tmp_path):
    recipe = Recipe(lr=0.05, epochs=1, batch_size=4)
    case = federated_case(
        toy_case(uk.Classification(3)), Federation(rounds=4, recipe=recipe),
        clients=iid_split(60, 4), history=MemoryHistory(every=1),
    )  # fmt: skip
    full = trained(case, tmp_path)
    done = uk.unlearn(full, case, Client(3), FedRecover(**{"warm_up": 0.3, **settings}))
    assert same(done.model, retrained(case, full))


def test_it_never_sees_the_client_that_left(tmp_path):
    ends = []
    for spoil in (False, True):
        case = spheres()
        full = trained(case, tmp_path / str(spoil))
        if spoil:
            case.train.x[case.train.group == 3] = 50.0
            for sent in case.train_model.history.rounds(case.train_model.history.find(full)):
                sent.states[3] = {n: t + 9 for n, t in sent.states[3].items()}
        ends.append(uk.unlearn(full, case, Client(3), FedRecover(every=20)).model)
    assert same(*ends)


def test_an_abnormal_estimate_is_replaced_by_an_exact_update(tmp_path):
    """Entries of one client's update are far above all others: its rows are far away."""
    case = spheres()
    case.train.y[case.train.group == 0] *= 100
    full = trained(case, tmp_path)
    notes = {
        share: uk.unlearn(full, case, Client(3), FedRecover(every=20, tolerance=share)).notes
        for share in (0.0, 0.5)
    }
    counts = {
        share: int(next(n for n in found if "were exact" in n).split()[1])
        for share, found in notes.items()
    }
    assert counts[0.0] < counts[0.5]


def test_the_threshold_is_the_largest_quantile_of_a_round():
    zero = {"w": torch.zeros(4)}
    rounds = [
        ClientUpdates(0, zero, {0: {"w": torch.tensor([1.0, -2.0, 3.0, -4.0])}}, {0: 1.0}),
        ClientUpdates(1, zero, {0: {"w": torch.tensor([0.0, 0.0, 0.0, 9.0])}}, {0: 1.0}),
        ClientUpdates(2, zero, {1: {"w": torch.full((4,), 99.0)}}, {1: 1.0}),
    ]
    assert largest_usual_entry(rounds, {0}, 0.0) == 9
    assert largest_usual_entry(rounds, {0}, 0.25) == 3


def test_a_history_of_every_second_round_is_refused(tmp_path):
    case = spheres(every=2)
    with pytest.raises(InputError, match="keeps every 2 rounds; train with"):
        uk.unlearn(trained(case, tmp_path), case, Client(3), "fed_recover")


def test_one_history_keeps_trainings_of_several_splits_and_federations(tmp_path):
    """Same rows and seed: the second training does not take the place of the first."""
    recipe = Recipe(lr=0.05, epochs=1, batch_size=4)
    history, made = DiskHistory(tmp_path / "history", every=1), []
    for clients, rounds in ((4, 3), (5, 3), (4, 2)):
        case = federated_case(
            toy_case(uk.Classification(3)), Federation(rounds=rounds, recipe=recipe),
            clients=iid_split(60, clients), history=history,
        )  # fmt: skip
        made.append((trained(case, tmp_path), case))
    for full, case in made:
        done = uk.unlearn(full, case, Client(3), FedRecover(warm_up=1))
        assert same(done.model, retrained(case, full))
