"""Class-discriminative pruning: scores, reports of clients, what is pruned and what stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.data import View
from unlearnkit.core.runtime import Runtime
from unlearnkit.federated.federated_case import Client, federated_case
from unlearnkit.federated.federation import Federation, rows_by_client
from unlearnkit.methods.class_pruning import activation_sums, discrimination, hidden_layers
from unlearnkit.testing.toy_cases import toy_case

TASK = uk.Classification(3)
LOCAL = uk.Recipe(lr=0.05, epochs=2, batch_size=4)
CLASS = uk.Classes(1)


def toy(**how):
    return federated_case(toy_case(TASK), Federation(rounds=4, recipe=LOCAL), **how)


@pytest.fixture(scope="module")
def model():
    return uk.train_original(toy()).model


def conv_net(classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.LeakyReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 4 * 4, 5), nn.ReLU(), nn.Linear(5, classes),
    )  # fmt: skip


def image_case(rows=48):
    rng = torch.Generator().manual_seed(1)
    y = torch.arange(rows) % 3
    x = torch.randn(rows, 1, 8, 8, generator=rng) + y.view(-1, 1, 1, 1)
    case = uk.Case(
        train=(x, y), group=torch.arange(rows) % 4, task=TASK, fresh=conv_net, recipe=LOCAL
    )
    return federated_case(case, Federation(rounds=4, recipe=LOCAL))


def pruned(net, name):
    return (dict(net.named_parameters())[name].flatten(1) == 0).all(1)


def test_scores_are_tf_idf_by_hand():
    rng = np.random.default_rng(0)
    means = rng.exponential(size=(7, 5))
    means[3] = 0  # a dead channel
    want = np.zeros_like(means)
    for f in range(7):
        common = sum(means[f, c] >= means[f].mean() for c in range(5))
        for c in range(5):
            want[f, c] = means[f, c] / means[:, c].sum() * np.log(5 / (1 + common))
    np.testing.assert_allclose(discrimination(torch.tensor(means)).numpy(), want, rtol=1e-12)


def test_a_channel_that_only_one_class_uses_is_the_most_discriminative():
    means = torch.ones(4, 6, dtype=torch.float64)
    means[2] = torch.tensor([0.0, 0, 0, 9, 0, 0])
    scores = discrimination(means)
    assert scores[:, 3].argmax() == 2
    assert scores[2, 3] == pytest.approx(9 / 12 * np.log(6 / 2))


def test_reports_of_clients_add_up_to_the_means_of_all_rows():
    case, net = image_case(), conv_net().eval()
    layers = hidden_layers(net)
    whole = View.all(case.train)
    reports = [
        activation_sums(net, layers, v, TASK, Runtime()) for v in rows_by_client(whole).values()
    ]
    with torch.no_grad():
        inner = net[:2](case.train.x)
        seen = [inner, net[2:4](inner)]
    for i, out in enumerate(seen):
        rows = out.double().clamp(min=0).mean((2, 3))
        for c in range(3):
            got = sum(r[i][0][:, c] for r in reports) / sum(r[i][1][c] for r in reports)
            torch.testing.assert_close(got, rows[case.train.y == c].mean(0), rtol=1e-5, atol=1e-7)


def test_layers_are_convolutions_with_their_batch_normalisation():
    layers = hidden_layers(conv_net())
    assert {name: block.count for name, block in layers.items()} == {"1": 6, "3": 4}
    assert {p.name for p in layers["1"].parts} == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_without_convolutions_hidden_linear_layers_are_pruned_and_never_the_last(model):
    layers = hidden_layers(model)
    last = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
    assert layers
    assert last not in layers


def test_the_share_of_each_layer_is_zero_and_stays_so_through_repair():
    case = image_case()
    net = conv_net()
    done = uk.unlearn(net, case, CLASS, uk.method("class_pruning", share=0.5, repair=1.0)).model
    for name, count in (("0.weight", 3), ("3.weight", 2)):
        assert int(pruned(done, name).sum()) == count
    gone = pruned(done, "0.weight")
    state = done.state_dict()
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(state[name] == 0, gone)
    assert not pruned(done, "6.weight").any()
    assert done(case.train.x).isfinite().all()


def test_the_channel_of_the_class_goes_first():
    case = toy()
    net = case.fresh()
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    mean = torch.stack([case.train.x[case.train.y == c].mean(0) for c in range(3)])
    with torch.no_grad():
        layers[0].weight.mul_(1e-2)
        layers[0].weight[2] = 10 * (mean[1] - mean[[0, 2]].mean(0))
        layers[0].bias.fill_(1.0)
        layers[0].bias[2] = -10 * (mean[1] - mean[[0, 2]].mean(0)) @ mean.mean(0)
    units = layers[0].out_features
    how = uk.method("class_pruning", share=1.01 / units, repair=0)
    done = uk.unlearn(net, case, CLASS, how).model
    first = next(m for m in done.modules() if isinstance(m, nn.Linear))
    assert (first.weight == 0).all(1).nonzero().flatten().tolist() == [2]


def test_no_share_and_no_repair_change_nothing(model):
    done = uk.unlearn(model, toy(), CLASS, uk.method("class_pruning", share=0, repair=0))
    before = model.state_dict()
    assert all(torch.equal(t, before[n]) for n, t in done.model.state_dict().items())


def test_repair_sees_no_row_of_the_class(model):
    case = toy()
    how = uk.method("class_pruning", share=0, repair=1.0)
    one = uk.unlearn(model, case, CLASS, how).model.state_dict()
    x = case.train.x.clone()
    x[case.train.y == 1] = 0.0
    other = case.replace(train=replace(case.train, x=x))
    two = uk.unlearn(model, other, CLASS, how).model.state_dict()
    assert all(torch.equal(t, two[n]) for n, t in one.items())


def test_all_units_may_go(model):
    done = uk.unlearn(model, toy(), CLASS, uk.method("class_pruning", share=1, repair=0))
    out = done.model(toy().train.x)
    assert torch.equal(out, out[:1].expand_as(out))


def test_a_request_for_a_client_is_refused(model):
    with pytest.raises(uk.UnlearnkitError, match="whole classes"):
        uk.unlearn(model, toy(), Client(3), "class_pruning")


def test_rows_without_clients_are_refused(model):
    given = toy()
    case = uk.Case(train=(given.train.x, given.train.y), task=TASK, fresh=given.fresh, recipe=LOCAL)
    with pytest.raises(uk.UnlearnkitError, match="needs rows with owners"):
        uk.unlearn(model, case, CLASS, "class_pruning")


def test_a_network_of_one_layer_is_refused():
    case = toy().replace(fresh=lambda: nn.Linear(6, 3))
    with pytest.raises(uk.UnlearnkitError, match="no hidden convolution or linear layer"):
        uk.unlearn(case.fresh(), case, CLASS, "class_pruning")
