"""Federated methods: the acceptance checks of the method note, limits and identities."""

import math

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.data import View
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.federated.client_splits import iid_split
from unlearnkit.federated.federated_case import Client, federated_case
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.federated.memory_generator import debias, memory_targets, teacher_mean
from unlearnkit.federated.rounds import ClientUpdates, train_in_rounds
from unlearnkit.federated.update_history import DiskHistory, MemoryHistory
from unlearnkit.linalg.expected_fisher import expected_fisher, mean_one
from unlearnkit.methods.fed_eraser import FedEraser, rebuild_round, update_scales
from unlearnkit.methods.federated_active_forgetting import elastic_step
from unlearnkit.methods.federated_ascent import projection
from unlearnkit.testing.toy_cases import toy_case

TASK = uk.Classification(3)
LOCAL = Recipe(lr=0.05, epochs=2, batch_size=4)
FAF = "federated_active_forgetting"
METHODS = [FAF, "federated_ascent"]


def toy(history=None, clients=None, **settings):
    federation = Federation(**{"rounds": 4, "recipe": LOCAL, **settings})
    return federated_case(toy_case(TASK), federation, clients=clients, history=history)


@pytest.fixture(scope="module")
def model():
    net = toy().fresh()
    case = toy(rounds=8)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=rng))
    train_in_rounds(
        net, rows_by_client(View.all(case.train)), TASK, case.train_model.federation, Runtime()
    )
    return net


def distance(one, two):
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))


def same(one, two):
    a, b = one.state_dict(), two.state_dict()
    return all(torch.equal(a[n], b[n]) for n in a)


# check 1


@pytest.mark.parametrize("method", METHODS)
def test_no_rounds_leave_the_averaged_model_in_every_bit(method, model):
    how = uk.method(method, rounds=0, repair=0)
    assert same(uk.unlearn(model, toy(), Client(3), how).model, model)


@pytest.mark.parametrize("method", METHODS)
def test_rounds_change_it(method, model):
    how = uk.method(method, rounds=1, repair=0)
    assert not same(uk.unlearn(model, toy(), Client(3), how).model, model)


def test_without_clients_that_forget_repair_is_federated_averaging_in_every_bit(model):
    case = toy(rounds=2)
    done = uk.unlearn(model, case, Client(3), uk.method(FAF, rounds=0, repair=1))
    by_hand = done.original
    by_hand.requires_grad_(True)
    retain = rows_by_client(case.partition(Client(3)).retain)
    train_in_rounds(
        by_hand, retain, TASK, case.train_model.federation, Runtime(), stream=f"{FAF}/repair"
    )
    assert same(done.model, by_hand)


# check 2


def test_an_endless_penalty_holds_the_weights(model):
    settings = {"rounds": 1, "repair": 0, "local_epochs": 3}
    case = toy(clients=torch.zeros(60).long())
    request = uk.Rows(*range(10))
    held = uk.unlearn(model, case, request, uk.method(FAF, strength=1e12, **settings))
    free = uk.unlearn(model, case, request, uk.method(FAF, strength=0, **settings))
    assert distance(held.model, model) < 1e-4
    assert distance(free.model, model) > 0.1


def test_without_penalty_uniform_targets_are_learnt(model):
    how = uk.method(
        FAF, rounds=1, repair=0, local_epochs=300, lr=4, strength=0, preserve="plain",
        targets="uniform", clip=None,
    )  # fmt: skip
    case = toy(clients=torch.zeros(60).long())
    done = uk.unlearn(model, case, uk.Rows(*range(10)), how)
    logp = done.model.eval()(case.train.x[:10]).log_softmax(1)
    kl = (-math.log(3) - logp).mean(1)  # KL(uniform || p)
    assert kl.mean() < 0.05


def test_the_proximal_step_minimises_the_penalty_plus_the_step():
    layer = nn.Linear(3, 1, bias=False).double()
    before = layer.weight.detach().clone()
    anchor, fisher = torch.tensor([[1.0, 2.0, -1.0]]).double(), torch.tensor([[0.0, 2.0, 5.0]])
    lr, strength = 0.1, 3.0
    elastic_step(layer, {"weight": anchor}, {"weight": fisher.double()}, strength)(lr)
    gradient = strength * fisher * (layer.weight - anchor) + (layer.weight - before) / lr
    torch.testing.assert_close(gradient, torch.zeros(1, 3).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [3])
def test_the_fisher_is_the_brute_force_expectation(classes, model):
    case = toy()
    view = View(case.train, torch.tensor([4, 9, 31]))
    got = expected_fisher(model, view, TASK, Runtime(), stream="f")
    want = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for row in view.rows:
        logp = model.eval()(case.train.x[row][None]).log_softmax(1)[0]
        for c in range(classes):
            grads = torch.autograd.grad(logp[c], list(model.parameters()), retain_graph=True)
            for n, g in zip(want, grads, strict=True):
                want[n] += logp[c].exp().detach() * g.square() / len(view)
    for n, t in want.items():
        torch.testing.assert_close(got[n], t, rtol=1e-4, atol=1e-8)


def test_a_scaled_fisher_has_mean_one_and_zeros_become_ones():
    scaled = mean_one({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([8.0])})
    assert torch.cat(list(scaled.values())).tolist() == pytest.approx([0.25, 0.75, 2.0])
    assert mean_one({"a": torch.zeros(2)})["a"].tolist() == [1.0, 1.0]


# check 3


@pytest.mark.parametrize("kind", ["teacher_soft", "teacher_hard", "random_label", "second_best"])
def test_targets_sum_to_one_and_leave_out_the_label_to_forget(kind, model):
    view = View(toy().train, torch.tensor([5, 2, 40, 7]))
    q = memory_targets(
        kind, model, model, view, TASK, Runtime(), teachers=3, strength=math.inf, stream="m"
    )
    torch.testing.assert_close(q.sum(1), torch.ones(4).double())
    assert not q[torch.arange(4), view.y].any()


def test_debiasing_interpolates_between_nothing_and_removal():
    q = torch.tensor([[0.5, 0.3, 0.2]]).double()
    label = torch.tensor([0])
    torch.testing.assert_close(debias(q, label, 0.0), q)
    half = debias(q, label, 2.0)  # 0.5 / (1 + 2 * 0.5) = 0.25, then over 0.75
    torch.testing.assert_close(half, torch.tensor([[0.25, 0.3, 0.2]]).double() / 0.75)
    torch.testing.assert_close(debias(q, label), torch.tensor([[0.0, 0.6, 0.4]]).double())
    sure = torch.tensor([[1.0, 0.0, 0.0]]).double()
    torch.testing.assert_close(debias(sure, label), torch.tensor([[0.0, 0.5, 0.5]]).double())


def test_more_teachers_are_nearer_to_no_knowledge(model):
    view = View.all(toy().train)
    entropies = []
    for teachers in (1, 4, 16):
        seeds = [
            teacher_mean(model, view, TASK, Runtime(seed=s), teachers=teachers, stream="m")
            for s in range(20)
        ]
        entropies.append(sum(float(-(q * q.log()).sum(1).mean()) for q in seeds))
    assert entropies == sorted(entropies)


def test_a_target_belongs_to_its_row_in_any_order(model):
    rows = torch.tensor([5, 2, 40, 7])
    order = torch.tensor([2, 0, 3, 1])
    data = toy().train
    one, two = (
        teacher_mean(model, View(data, r), TASK, Runtime(), teachers=2, stream="m")
        for r in (rows, rows[order])
    )
    torch.testing.assert_close(one[order], two)


def test_the_seed_decides_the_targets(model):
    view = View(toy().train, torch.tensor([5, 2, 40, 7]))
    first, again, other = (
        teacher_mean(model, view, TASK, Runtime(seed=s), teachers=2, stream="m") for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_batches_get_the_targets_of_their_own_rows(model):
    """Second-best targets learnt by rote: each row must end at its own."""
    case = toy(clients=torch.zeros(60).long())
    rows = tuple(range(0, 24, 2))
    how = uk.method(
        FAF, rounds=1, repair=0, local_epochs=200, lr=4, strength=0, preserve="plain",
        targets="second_best", clip=None,
    )  # fmt: skip
    done = uk.unlearn(model, case, uk.Rows(*rows), how)
    view = View(case.train, torch.tensor(rows))
    q = memory_targets(
        "second_best", model, model, view, TASK, Runtime(), teachers=1, strength=1, stream="m"
    )
    found = done.model.eval()(case.train.x[view.rows]).argmax(1)
    assert (found == q.argmax(1)).float().mean() >= 0.9


def test_a_cap_bounds_how_far_old_labels_are_pushed_away(model):
    case = toy(clients=torch.zeros(60).long())
    ends = []
    for cap in (1.0, 4.0):
        how = uk.method(FAF, rounds=1, repair=0, local_epochs=60, strength=0, cap=cap)
        done = uk.unlearn(model, case, uk.Classes(1), how)
        view = case.partition(uk.Classes(1)).forget
        out = done.model.eval()(case.train.x[view.rows])
        ends.append(nn.functional.cross_entropy(out, view.y).item())
    assert ends[0] < ends[1]


# check 6


def test_calibration_with_the_stored_data_rebuilds_federated_averaging(tmp_path):
    """Equal model, data and length: scales are 1, and the trajectory is the plain one."""
    history = MemoryHistory(every=1)
    case = toy(history=history)
    whole = uk.train_original(case, cache=uk.Cache(tmp_path)).model
    kept = list(history.rounds(history.find(whole)))
    retain = rows_by_client(View.all(case.train))
    rebuilt = case.fresh()
    rebuilt.load_state_dict(kept[0].start)
    for sent in kept:
        settings = FedEraser(calibration=1.0)
        rebuild_round(rebuilt, sent, case.train_model, retain, set(), settings, TASK, Runtime())
    assert distance(rebuilt, whole) < 1e-5
    short = case.fresh()
    short.load_state_dict(kept[0].start)
    for sent in kept:
        rebuild_round(short, sent, case.train_model, retain, set(), FedEraser(), TASK, Runtime())
    assert distance(short, whole) > 1e-3


def test_scales_are_ratios_of_lengths():
    zero = {"a": torch.zeros(2), "b": torch.zeros(1), "c": torch.zeros(1)}
    stored = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([12.0]), "c": torch.ones(1)}
    made = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([2.0]), "c": torch.zeros(1)}
    each = update_scales(zero, stored, zero, made, ["a", "b", "c"], "tensor")
    assert each == pytest.approx({"a": 5.0, "b": 6.0, "c": 0.0})
    whole = update_scales(zero, stored, zero, made, ["a", "b", "c"], "client")
    assert whole["b"] == pytest.approx(math.sqrt(170 / 5))


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_fed_eraser_never_sees_the_client_that_left(kind, tmp_path):
    """The rebuilt model is the same whatever the client's rows and stored updates are."""
    ends = []
    for spoil in (False, True):
        history = MemoryHistory(every=1) if kind == "memory" else DiskHistory(tmp_path / str(spoil))
        case = toy(history=history, rounds=2)
        full = uk.train_original(case, cache=uk.Cache(tmp_path / f"cache-{spoil}")).model
        if spoil:
            case.train.x[case.train.group == 3] = 50.0
            if kind == "memory":
                for sent in history.rounds(history.find(full)):
                    sent.states[3] = {n: t + 9 for n, t in sent.states[3].items()}
        ends.append(uk.unlearn(full, case, Client(3), "fed_eraser").model)
    assert same(*ends)


def test_a_history_of_other_models_is_refused(model, tmp_path):
    history = DiskHistory(tmp_path / "h")
    case = toy(history=history, rounds=1)
    uk.train_original(case, cache=uk.Cache(tmp_path / "cache"))
    with pytest.raises(InputError, match="no training that led to this model"):
        uk.unlearn(model, case, Client(3), "fed_eraser")


def test_a_history_of_another_architecture_is_refused(tmp_path):
    history = MemoryHistory(every=1)
    case = toy(history=history, rounds=1)
    full = uk.train_original(case, cache=uk.Cache(tmp_path)).model
    (sent,) = history.rounds(history.find(full))
    sent.states[4].pop("2.bias")
    with pytest.raises(InputError, match="client 4 has another architecture"):
        uk.unlearn(full, case, Client(3), "fed_eraser")


@pytest.mark.parametrize("lost", [0, 2, 4])
def test_a_history_without_one_of_its_rounds_is_refused(lost, tmp_path):
    history = DiskHistory(tmp_path / "h")
    case = toy(history=history, rounds=5)
    full = uk.train_original(case, cache=uk.Cache(tmp_path / "cache")).model
    (tmp_path / "h" / history.find(full) / f"round-{lost:06d}.safetensors").unlink()
    with pytest.raises(InputError, match=f"it has no round {lost}, where every 2 of 5 rounds"):
        uk.unlearn(full, case, Client(3), "fed_eraser")


@pytest.mark.parametrize(("rounds", "message"), [(2, "it has a round 2"), (7, "it has no round 6")])
def test_a_history_of_other_rounds_is_refused(rounds, message, tmp_path):
    history = MemoryHistory()
    case = toy(history=history, rounds=5)
    full = uk.train_original(case, cache=uk.Cache(tmp_path)).model
    with pytest.raises(InputError, match=message):
        uk.unlearn(full, toy(history=history, rounds=rounds), Client(3), "fed_eraser")


def test_without_a_history_it_says_what_it_is(model):
    done = uk.unlearn(model, toy(), Client(3), "fed_eraser")
    assert any("no update history" in note for note in done.notes)


def test_stored_rounds_have_only_clients_that_stay():
    case = toy(clients=iid_split(60, 3))
    retain = rows_by_client(case.partition(Client(1)).retain)
    net = case.fresh()
    sent = ClientUpdates(0, {}, {}, {0: 20.0, 1: 20.0, 2: 20.0})
    how, rt = case.train_model, Runtime()
    rebuild_round(net, sent, how, retain, {1}, FedEraser(), TASK, rt)
    assert rt.cost.backward == 40  # one epoch over the rows of two clients


# federated ascent


def test_the_projection_is_onto_the_ball():
    layer = nn.Linear(2, 1, bias=False)
    centre = {"weight": torch.tensor([[3.0, 4.0]])}
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 14.0]]))
    projection(layer, centre, 0.2)(0.1)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[3.0, 5.0]]))
    projection(layer, centre, 0.2)(0.1)
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[3.0, 5.0]]))


def test_a_radius_of_none_holds_the_model(model):
    how = uk.method("federated_ascent", radius=0, repair=0)
    assert distance(uk.unlearn(model, toy(), Client(3), how).model, model) == 0


def test_ascent_raises_the_loss_of_the_forget_rows(model):
    case = toy()
    how = uk.method("federated_ascent", repair=0, rounds=1)
    done = uk.unlearn(model, case, uk.Classes(1), how)
    view = case.partition(uk.Classes(1)).forget
    x, y = case.train.x[view.rows], view.y
    losses = [nn.functional.cross_entropy(m.eval()(x), y).item() for m in (model, done.model)]
    assert losses[1] > 2 * losses[0]


@pytest.mark.parametrize("method", [*METHODS, "fed_eraser", "fed_recover"])
def test_rows_without_clients_are_refused(method, model):
    given = toy()
    case = uk.Case(train=(given.train.x, given.train.y), task=TASK, fresh=given.fresh, recipe=LOCAL)
    with pytest.raises(uk.UnlearnkitError, match="needs rows with owners"):
        uk.unlearn(model, case, uk.Classes(1), method)


def test_an_update_that_is_not_finite_is_refused_by_name_in_unlearning_rounds(model):
    how = uk.method(FAF, lr=1e30, clip=None, cap=math.inf, strength=0)
    with pytest.raises(DivergedError, match="client 3 in round 0 is not finite"):
        uk.unlearn(model, toy(), Client(3), how)


def test_an_update_that_is_not_finite_is_left_out_by_choice_in_unlearning_rounds(model):
    how = uk.method(FAF, rounds=1, repair=0, lr=1e30, clip=None, cap=math.inf, strength=0)
    done = uk.unlearn(model, toy(non_finite="leave_out"), Client(3), how)
    assert any("client 3 left out of round 0" in note for note in done.notes)
    assert all(torch.isfinite(t).all() for t in done.model.state_dict().values())


@pytest.mark.parametrize("method", METHODS)
def test_a_client_of_the_request_that_drops_out_is_named(method, model):
    how = uk.method(method, rounds=20, local_epochs=1, repair=0)
    done = uk.unlearn(model, toy(dropout=0.5), Client(3), how)
    missed = [n for n in done.notes if "clients [3] of the request are not in" in n]
    assert 0 < len(missed) < 20


@pytest.mark.parametrize("method", [*METHODS, "fed_eraser", "fed_recover"])
def test_a_client_of_one_row_or_one_class_is_served(method, model):
    owners = torch.arange(60) % 4
    owners[owners == 0] = 1
    owners[0] = 0  # one row
    owners[toy().train.y == 2] = 3  # client 2 has no third class
    case = toy(clients=owners, rounds=2)
    done = uk.unlearn(model, case, Client(0), method)
    assert all(torch.isfinite(t).all() for t in done.model.state_dict().values())
