"""Rounds, splits, aggregation and history of the federated core."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.core.data import View
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.runtime import Runtime
from unlearnkit.federated.aggregation import weighted_mean
from unlearnkit.federated.client_splits import dirichlet_split, iid_split
from unlearnkit.federated.federated_case import Client, federated_case
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.federated.rounds import train_in_rounds
from unlearnkit.federated.update_history import DiskHistory, MemoryHistory
from unlearnkit.oracles import original_key
from unlearnkit.testing.toy_cases import toy_case
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model

TASK = uk.Classification(3)
LOCAL = uk.Recipe(lr=0.05, epochs=2, batch_size=4)


def toy(**settings):
    federation = Federation(**{"rounds": 3, "recipe": LOCAL, **settings})
    return federated_case(toy_case(TASK), federation)


def start(seed=0, *, norm=False):
    rng = torch.Generator().manual_seed(seed)
    layers = [nn.Linear(6, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU(), nn.Linear(8, 3)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng) * 0.3)
    return model


def trained(case, model, *, rt=None, **how):
    clients = rows_by_client(View.all(case.train))
    federation = case.train_model.federation
    train_in_rounds(model, clients, case.task, federation, rt or Runtime(), **how)
    return {n: t.clone() for n, t in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


# splits


def test_an_iid_split_gives_each_client_the_same_number_of_rows():
    counts = torch.bincount(iid_split(103, 10))
    assert sorted(counts.tolist()) == [10] * 7 + [11] * 3


def test_a_dirichlet_split_gives_every_row_to_one_client_and_none_too_few():
    y = digits().train.y
    owner = dirichlet_split(y, 10, alpha=0.5, least=5)
    assert torch.bincount(owner, minlength=10).sum() == len(y)
    assert torch.bincount(owner, minlength=10).min() >= 5


@pytest.mark.parametrize("alpha", [0.2, 5.0])
def test_shares_of_a_dirichlet_split_have_the_variance_of_the_law(alpha):
    clients, per_class, classes = 5, 400, 400
    y = torch.arange(classes).repeat_interleave(per_class)
    owner = dirichlet_split(y, clients, alpha=alpha)
    shares = np.zeros((classes, clients))
    np.add.at(shares, (y.numpy(), owner.numpy()), 1 / per_class)
    variance = (1 / clients) * (1 - 1 / clients) / (clients * alpha + 1)
    # 400 draws: the standard error of a variance is at most 10 % of it here; 4 of them
    assert shares.var(axis=0).mean() == pytest.approx(variance, rel=0.2)
    assert shares.mean(axis=0) == pytest.approx(np.full(clients, 1 / clients), abs=0.1)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (lambda: iid_split(3, 4), "cannot give 4 clients"),
        (lambda: dirichlet_split(torch.rand(9), 2), "use iid_split"),
        (lambda: dirichlet_split(torch.arange(9) % 3, 2, alpha=0), "above 0"),
        (lambda: dirichlet_split(torch.arange(40) % 2, 10, alpha=0.001, least=4), "larger alpha"),
    ],
    ids=["too many", "targets", "alpha", "least"],
)
def test_a_split_that_cannot_be_made_says_what_can(split, message):
    with pytest.raises(InputError, match=message):
        split()


# aggregation


def test_the_mean_is_numpys():
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(4, 3, 2)).astype("float32")
    rows = [5, 1, 7, 2]
    states = {k: {"w": torch.tensor(p), "n": torch.tensor(k)} for k, p in enumerate(parts)}
    mean = weighted_mean(states, dict(enumerate(rows)))
    want = np.average(parts.astype("float64"), axis=0, weights=rows)
    np.testing.assert_allclose(mean["w"].numpy(), want, rtol=1e-6)
    assert mean["n"].item() == round((1 + 14 + 6) / 15)
    assert mean["n"].dtype == torch.long


def test_the_mean_of_equal_states_is_that_state_in_every_bit():
    state = {"w": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    mean = weighted_mean(dict.fromkeys(range(7), state), {k: k + 0.1 for k in range(7)})
    assert torch.equal(mean["w"], state["w"])


def test_unequal_architectures_are_named():
    states = {3: {"w": torch.zeros(2)}, 8: {"w": torch.zeros(3)}}
    with pytest.raises(InputError, match="client 8 has another architecture than client 3: w"):
        weighted_mean(states, {3: 1.0, 8: 1.0})


def test_no_update_is_no_mean():
    with pytest.raises(InputError, match="no client"):
        weighted_mean({}, {})


# rounds


def test_two_rounds_are_the_loop_written_out():
    case = toy(rounds=2)
    model, by_hand = start(), start()
    got = trained(case, model)
    rows = rows_by_client(View.all(case.train))
    for number in range(2):
        before = {n: t.clone() for n, t in by_hand.state_dict().items()}
        total = {n: torch.zeros_like(t, dtype=torch.float64) for n, t in before.items()}
        for k, view in rows.items():
            by_hand.load_state_dict(before)
            fit(by_hand, view, TASK, LOCAL, Runtime(), stream=f"federated/{number}/{k}")
            for n, t in by_hand.state_dict().items():
                total[n] += t.double() * len(view) / len(case.train)
        by_hand.load_state_dict({n: t.float() for n, t in total.items()})
    for n, t in by_hand.state_dict().items():
        torch.testing.assert_close(got[n], t, rtol=1e-6, atol=1e-7)


def test_one_client_in_one_round_is_plain_training_in_every_bit():
    federation = Federation(rounds=1, recipe=LOCAL)
    case = federated_case(toy_case(TASK), federation, clients=torch.full((60,), 4))
    got, plain = trained(case, start()), start()
    fit(plain, View.all(case.train), TASK, LOCAL, Runtime(), stream="federated/0/4")
    assert same(got, plain.state_dict())


@pytest.mark.parametrize("policy", ["average", "frozen"])
def test_a_training_that_goes_on_has_the_bits_of_one_that_was_not_interrupted(policy):
    case = toy(rounds=4, batch_norm=policy, share=0.5, dropout=0.2)
    whole = trained(case, start(norm=True))
    model = start(norm=True)
    trained(case, model, rounds=2)
    torch.rand(5)
    assert same(trained(case, model, first=2), whole)


def test_the_seed_decides_and_no_global_generator_does():
    case = toy()
    first = trained(case, start(), rt=Runtime(seed=1))
    torch.rand(7)
    assert same(trained(case, start(), rt=Runtime(seed=1)), first)
    assert not same(trained(case, start(), rt=Runtime(seed=2)), first)


def test_frozen_statistics_do_not_move_and_others_do():
    name = "1.running_mean"
    assert not trained(toy(batch_norm="frozen"), start(norm=True))[name].any()
    assert trained(toy(batch_norm="average"), start(norm=True))[name].any()


def test_local_statistics_go_on_from_the_clients_own():
    """Clients that sit out rounds come back with old statistics under the policy ``local``."""
    ends = {
        (policy, rounds): trained(
            toy(rounds=rounds, batch_norm=policy, share=0.5), start(norm=True)
        )
        for policy in ("average", "local")
        for rounds in (1, 3)
    }
    assert same(ends["average", 1], ends["local", 1])
    assert torch.equal(ends["average", 3]["0.weight"], ends["local", 3]["0.weight"])
    gap = ends["average", 3]["1.running_mean"] - ends["local", 3]["1.running_mean"]
    assert gap.abs().max() > 1e-3


def test_a_client_trains_by_its_own_recipe():
    other = LOCAL.model_copy(update={"lr": 0.5})
    plain, mixed = trained(toy(), start()), trained(toy(client_recipes=((2, other),)), start())
    assert not same(plain, mixed)
    same_as = trained(toy(client_recipes=((2, LOCAL),)), start())
    assert same(plain, same_as)


def test_the_schedule_runs_over_the_rounds():
    federation = Federation(rounds=4, recipe=uk.Recipe(lr=1.0, schedule="cosine", epochs=3))
    rates = [federation.recipe_of(0, r).lr for r in range(4)]
    assert rates == pytest.approx([0.5 * (1 + np.cos(np.pi * r / 4)) for r in range(4)])


def test_an_update_that_is_not_finite_is_refused_by_name():
    case = toy(client_recipes=((5, LOCAL.model_copy(update={"lr": 1e30})),))
    with pytest.raises(DivergedError, match=r"0\.weight of client 5 in round 0"):
        trained(case, start())


def test_an_update_that_is_not_finite_is_left_out_and_named():
    bad = ((5, LOCAL.model_copy(update={"lr": 1e30})),)
    rt = Runtime()
    got = trained(toy(client_recipes=bad, non_finite="leave_out"), start(), rt=rt)
    assert all(torch.isfinite(t).all() for t in got.values())
    assert any("client 5 left out of round 0" in note for note in rt.notes)


def test_a_client_that_drops_out_is_not_in_the_mean():
    case, seen = toy(dropout=0.5), []
    trained(case, start(), after_round=seen.append)
    lost = [k for sent in seen for k in sent.lost]
    assert 0 < len(lost) < 30
    for sent in seen:
        assert set(sent.lost) | set(sent.states) == set(range(10))
        assert not set(sent.lost) & set(sent.states)


def test_a_round_without_any_update_leaves_the_model():
    case, model, rt = toy(rounds=1, dropout=0.999), start(), Runtime()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    assert same(trained(case, model, rt=rt), before)
    assert any("no update arrived in round 0" in note for note in rt.notes)


# the case


def test_the_oracle_without_a_client_never_sees_its_rows():
    case = toy()
    poisoned = replace(case.train, x=case.train.x.clone())
    poisoned.x[case.train.group == 3] = 77.0
    one = uk.oracle(case, Client(3), seeds=1).models[0]
    two = uk.oracle(case.replace(train=poisoned), Client(3), seeds=1).models[0]
    assert same(one.state_dict(), two.state_dict())


def test_retrain_is_the_federated_training_of_those_who_stay():
    case, rt = toy(), Runtime(seed=7)
    done = uk.unlearn(uk.train_original(case).model, case, Client(3), "retrain", rt=rt)
    clients = rows_by_client(case.partition(Client(3)).retain)
    by_hand = fresh_model(case, rt.fork(7))
    train_in_rounds(by_hand, clients, case.task, case.train_model.federation, rt.fork(7))
    assert 3 not in clients
    assert same(done.model.state_dict(), by_hand.state_dict())


def test_another_split_of_the_same_rows_is_another_oracle():
    base, federation = toy_case(TASK), Federation(rounds=1, recipe=LOCAL)
    keys = []
    for seed in (0, 1):
        case = federated_case(base, federation, clients=iid_split(60, 5, seed=seed))
        keys.append(original_key(case, 0, Runtime()))
    assert keys[0] != keys[1]


def test_a_history_does_not_change_the_address_of_a_model(tmp_path):
    base, federation = toy_case(TASK), Federation(rounds=1, recipe=LOCAL)
    plain, kept = (
        federated_case(base, federation, history=history) for history in (None, MemoryHistory())
    )
    uk.train_original(kept, cache=uk.Cache(tmp_path))
    assert original_key(plain, 0, Runtime()) == original_key(kept, 0, Runtime())


def test_other_rounds_are_another_address():
    base = toy_case(TASK)
    one, two = (
        original_key(federated_case(base, Federation(rounds=r, recipe=LOCAL)), 0, Runtime())
        for r in (1, 2)
    )
    assert one != two


def test_clients_have_names():
    names = [f"hospital-{i % 4}" for i in range(60)]
    case = federated_case(toy_case(TASK), Federation(rounds=1, recipe=LOCAL), clients=names)
    assert len(case.partition(Client("hospital-3")).forget) == 15
    with pytest.raises(InputError, match="are no owner of the case"):
        case.partition(Client("hospital-9"))
    with pytest.raises(InputError, match="all rows"):
        case.partition(Client(*sorted(set(names))))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Client(10), "no row of group 10; there are"),
        (Client(*range(10)), "the request names all rows"),
    ],
)
def test_a_client_that_does_not_exist_and_all_clients_are_refused(request_, message):
    with pytest.raises(InputError, match=message):
        uk.unlearn(toy().fresh(), toy(), request_, "retrain")


def test_a_federated_model_is_audited():
    case = toy()
    model = uk.train_original(case).model
    done = uk.unlearn(model, case, Client(3), "retrain")
    report = uk.audit(done, oracle=uk.oracle(case, Client(3), seeds=2))
    assert report.tier == "reference"


def test_rows_without_clients_are_refused():
    bare = toy_case(TASK)
    bare = bare.replace(train=replace(bare.train, group=None))
    with pytest.raises(InputError, match="no owners"):
        federated_case(bare, Federation(rounds=1, recipe=LOCAL))


def test_a_recipe_for_a_client_without_rows_is_refused():
    with pytest.raises(InputError, match=r"clients \[99\] have no rows"):
        toy(client_recipes=((99, LOCAL),))


def test_clients_for_another_number_of_rows_are_refused():
    with pytest.raises(InputError, match="give one a row"):
        federated_case(
            toy_case(TASK), Federation(rounds=1, recipe=LOCAL), clients=torch.zeros(5).long()
        )


# history


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_history_gives_back_the_rounds_of_the_training_that_led_to_a_model(kind, tmp_path):
    history = MemoryHistory(every=2) if kind == "memory" else DiskHistory(tmp_path / "h", every=2)
    case = federated_case(toy_case(TASK), Federation(rounds=5, recipe=LOCAL), history=history)
    model = uk.train_original(case, cache=uk.Cache(tmp_path / "cache")).model
    kept = list(history.rounds(history.find(model)))
    assert [sent.round_number for sent in kept] == [0, 2, 4]
    assert same(weighted_mean(kept[-1].states, kept[-1].weights), model.state_dict())
    assert history.find(start()) is None


def test_memory_and_disk_keep_the_same(tmp_path):
    both = MemoryHistory(every=1), DiskHistory(tmp_path / "h", every=1)
    kept = []
    for i, history in enumerate(both):
        case = federated_case(toy_case(TASK), Federation(rounds=2, recipe=LOCAL), history=history)
        model = uk.train_original(case, cache=uk.Cache(tmp_path / f"cache{i}")).model
        kept.append(list(history.rounds(history.find(model))))
    for one, two in zip(*kept, strict=True):
        assert (one.round_number, one.weights, one.lost) == (
            two.round_number,
            two.weights,
            two.lost,
        )
        assert same(one.start, two.start)
        assert all(same(one.states[k], two.states[k]) for k in one.states)


def test_a_history_of_every_no_rounds_is_refused():
    with pytest.raises(InputError, match="at least 1 round"):
        MemoryHistory(every=0)
