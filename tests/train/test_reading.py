import torch
from torch import nn

from unlearnkit.core.data import TensorData, View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.features import lookup_by_row, row_losses, teacher_outputs
from unlearnkit.train.loop import augment


def rows(shape=(5,)):
    g = torch.Generator().manual_seed(0)
    return View.all(TensorData(torch.randn(9, *shape, generator=g), torch.arange(9) % 3))


def test_row_losses_are_cross_entropies_in_the_views_order():
    view = rows().pick(torch.tensor([4, 0, 7]))
    net = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.9))
    got = row_losses(net, view, Classification(3), Runtime())
    p = net.eval()(view.data.x[[4, 0, 7]]).softmax(1)
    want = -torch.stack([p[0, 1], p[1, 0], p[2, 1]]).log()
    torch.testing.assert_close(got, want.detach())


def test_values_are_found_again_by_row_in_any_order():
    view = rows().pick(torch.tensor([6, 2, 5, 1]))
    recall = lookup_by_row(view, torch.tensor([60.0, 20.0, 50.0, 10.0]), Runtime())
    for batch in view.batches(3, Runtime(), shuffle="x"):
        assert torch.equal(recall(batch), 10.0 * batch.row)


def test_answers_are_the_teachers_and_carry_no_gradient():
    view, net = rows(), nn.Linear(5, 3)
    ask = teacher_outputs(net, view, Classification(3), Runtime(), Recipe())
    for batch in view.batches(4, Runtime(), shuffle="x"):
        assert not ask(batch).requires_grad
        torch.testing.assert_close(ask(batch), net(batch.x).detach())


def test_answers_follow_inputs_that_change():
    view = rows((1, 8, 8))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    recipe = Recipe(augment="flip_crop")
    ask = teacher_outputs(net, view, Classification(3), Runtime(), recipe)
    batch = augment(next(view.batches(9, Runtime())), recipe, Runtime(), "a")
    torch.testing.assert_close(ask(batch), net(batch.x).detach())
    assert not torch.allclose(ask(batch), net(view.data.x))
