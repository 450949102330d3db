"""JiT: closed forms on linear models, published ranges on digits, and what it refuses."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import unlearnkit as uk
from unlearnkit.cases.digits import one_class
from unlearnkit.catalog import cases
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.methods.jit import JiT, SmoothingSteps
from unlearnkit.train.early_stopping import OFF
from unlearnkit.train.input_noise import InputNoise, input_noise

PLAIN = {"unit": "one", "clip": "none", "reduction": "sum", "guard": OFF}


def sgd(lr, batch_size=32, **more):
    return FineTuneSchedule.exact(lr=lr, momentum=0.0, batch_size=batch_size, **more)


def slope_gradient(x, weight, draw, gradient, copies, power=1):
    """Return the objective's value and its gradient by a linear map's weight."""
    model = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weight)
    how = JiT(draw=draw, gradient=gradient, copies=copies, power=power, **PLAIN)
    task = uk.Classification(len(weight))
    nothing = View.all(TensorData(x, torch.zeros(len(x), dtype=torch.long)))
    p = Problem(model, model, task, nothing, nothing, None, uk.Recipe())
    noise = InputNoise({"x": torch.ones(())}, (), 0.3, paired=draw == "pairs")
    batch = Batch(x, nothing.y, nothing.rows)
    value = how.slope(p, batch, noise, torch.Generator().manual_seed(1))
    return value.item(), torch.autograd.grad(value, model.weight)[0]


def linear(seed=0, rows=3):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=g, dtype=torch.float64)
    return x, torch.randn(3, 4, generator=g, dtype=torch.float64)


def by_hand(x, weight, copies, gradient):
    """Return the gradients of single draws ``(copies, 3, 4)``, from their closed form."""
    g = torch.Generator().manual_seed(9)
    e = 0.3 * torch.randn(copies, len(x), 4, generator=g, dtype=torch.float64)
    unit = e @ weight.T
    unit = unit / unit.norm(dim=-1, keepdim=True) / e.norm(dim=-1, keepdim=True)
    other = -x.expand_as(e) if gradient == "clean" else e
    return torch.einsum("nbk,nbd->nkd", unit, other)


@pytest.mark.parametrize("gradient", ["clean", "both"])
def test_the_gradient_of_a_linear_model_is_its_closed_form(gradient):
    x, weight = linear()
    _, got = slope_gradient(x, weight, "independent", gradient, 10_000)
    draws = by_hand(x, weight, 10_000, gradient)
    error = 4 * 2**0.5 * draws.std(0) / 100
    want = torch.zeros(3, 4, dtype=torch.float64) if gradient == "clean" else draws.mean(0)
    assert bool(((got - want).abs() <= error).all())


def test_the_full_gradient_of_a_linear_model_does_not_know_its_rows():
    x, weight = linear()
    _, one = slope_gradient(x, weight, "independent", "both", 50)
    _, other = slope_gradient(x + 5, weight, "independent", "both", 50)
    torch.testing.assert_close(one, other)


def test_pairs_cancel_exactly_on_a_linear_model():
    x, weight = linear()
    size = slope_gradient(x, weight, "independent", "clean", 8)[1].abs().max()
    assert slope_gradient(x, weight, "pairs", "clean", 8)[1].abs().max() < 1e-12 * size


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("copies", [1, 7])
def test_a_scaling_has_its_factor_as_slope(copies, power):
    x, _ = linear(rows=5)
    weight = -1.7 * torch.eye(4, dtype=torch.float64)
    value, _ = slope_gradient(x, weight, "independent", "clean", copies, power)
    assert value == pytest.approx(5 * 1.7**power)


def state(model):
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


def test_accumulated_gradients_change_the_second_step_by_the_first_gradient(clouds):
    model, case = clouds()
    go = uk.Rows(*range(8))

    def after(reset, size):
        how = JiT(draw="independent", reset=reset, run=sgd(0.1, size), **PLAIN)
        return state(uk.unlearn(model, case, go, how).model)

    torch.testing.assert_close(after("run", 8), after("step", 8), rtol=0, atol=0)
    two = {r: after(r, 4) for r in ("run", "step")}
    first = JiT(draw="independent", run=sgd(0.1, 4), **PLAIN)
    order = View.all(case.train).pick(torch.arange(8)).shuffled_rows(uk.Runtime(), "jit/0")[:4]
    p = case.partition(uk.Rows(*order.tolist()))
    problem = Problem(model, model, case.task, p.forget, p.retain, None, case.recipe)
    noise = InputNoise({"x": torch.ones(())}, (), first.noise, paired=False)
    rows = View(case.train, order)
    batch = next(rows.batches(4, uk.Runtime()))
    slope = first.slope(problem, batch, noise, uk.Runtime().rng("jit/noise"))
    g = torch.cat([t.flatten() for t in torch.autograd.grad(slope, [*model.parameters()])])
    assert g.norm() > 0
    torch.testing.assert_close(two["run"] - two["step"], -0.1 * g, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("settings", [{"noise": 0.0}, {"run": SmoothingSteps(step=0.0)}])
def test_no_noise_or_no_step_changes_nothing(layered, settings):
    model, case = layered
    done = uk.unlearn(model, case, uk.Classes(1), JiT(guard=OFF, **settings))
    assert torch.equal(state(done.model), state(model))
    assert any("did nothing" in note for note in done.notes)


def test_statistics_of_batch_normalisation_stay(layered):
    model, case = layered
    got = uk.unlearn(model, case, uk.Classes(1), JiT(guard=OFF)).model
    assert all(torch.equal(a, b) for a, b in zip(got.buffers(), model.buffers(), strict=True))
    assert not torch.equal(state(got), state(model))


def test_a_linear_model_is_left_alone_with_a_note(clouds):
    model, case = clouds()
    done = uk.unlearn(model, case, uk.Classes(1), JiT(clip="none", guard=OFF))
    assert torch.equal(state(done.model), state(model))
    assert any("did nothing: " in note for note in done.notes)


def test_constant_inputs_do_not_divide_by_zero(toy):
    model, case = toy
    x = torch.ones_like(case.train.x)
    case = case.replace(train=TensorData(x, case.train.y))
    for unit in ("one", "spread"):
        done = uk.unlearn(model, case, uk.Classes(1), JiT(unit=unit, clip="batch", guard=OFF))
        assert torch.equal(state(done.model), state(model))
        assert any("did nothing" in note for note in done.notes)


class Tokens(nn.Module):
    """Tokens ``(B, 6)`` with positions; 0 is padding."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 8, padding_idx=0)
        self.places = nn.Embedding(6, 8)
        self.head = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, tokens):
        where = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head((self.tokens(tokens) + self.places(where)).mean(1))


def token_case(fresh):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randint(0, 4, (60, 6), generator=g) + 3 * y[:, None]
    return uk.Case(train=(x, y), task="classification", fresh=fresh, recipe=uk.Recipe(lr=0.1))


def test_tokens_are_perturbed_at_their_embedding_and_padding_is_not():
    case, model = token_case(Tokens), Tokens()
    rows = next(View.all(case.train).batches(60, uk.Runtime()))
    noise = InputNoise({}, (model.tokens, model.places), 0.5)
    seen = []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    padded = Batch(torch.zeros_like(rows.x), rows.y, rows.row)
    _, length = noise.outputs(model, padded, case.task, 2, torch.Generator())
    assert bool((length == 0).all())
    _, length = noise.outputs(model, rows, case.task, 2, torch.Generator().manual_seed(0))
    has_tokens = rows.x.count_nonzero(1) > 0
    assert bool((length[:, has_tokens] > 0).all())
    assert not torch.equal(seen[1][:60], seen[1][60:])
    assert not model.tokens._forward_hooks
    done = uk.unlearn(Tokens(), case, uk.Classes(1), JiT(guard=OFF))
    assert done.cost.backward > 0


def test_whole_numbers_without_an_embedding_are_refused():
    class Floats(nn.Sequential):
        def forward(self, x):
            return super().forward(x.float())

    case = token_case(lambda: Floats(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    with pytest.raises(UnsupportedError, match=r"jit: needs real inputs .* got .*int64.*x.float"):
        uk.unlearn(case.fresh(), case, uk.Classes(1), "jit")


def test_columns_of_categories_get_no_noise_and_others_their_own_scale(toy):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(500, 3, generator=g) * torch.tensor([1.0, 1000.0, 1.0])
    x[:, 2] = (x[:, 2] > 0).float()
    view = View.all(TensorData(x, torch.zeros(500, dtype=torch.long)))
    settings = {"size": 1.0, "unit": "spread", "clip": "none", "paired": True, "who": "x"}
    scale = input_noise(toy[0], view, uk.Runtime(), **settings).scales["x"]
    assert scale[2] == 0
    torch.testing.assert_close(scale[:2], x[:, :2].std(0, correction=0))


def test_it_reads_neither_retained_rows_nor_targets_and_costs_a_hundredth():
    asked = cases()["digits"].ask("random_hundredth")
    model = uk.train_original(asked.case).model
    retraining = 3 * asked.case.recipe.epochs * len(asked.case.partition(asked.request).retain)
    done = uk.unlearn(model, asked.case, asked.request, "jit")
    assert done.cost.work <= 0.01 * retraining
    to_the_end = JiT(guard={"stop": "never", "floor": 1e6}, run={"step": 1e-5})
    done = uk.unlearn(model, asked.case, asked.request, to_the_end)
    assert 0.005 * retraining <= done.cost.work <= 0.01 * retraining


@pytest.mark.parametrize("validated", [True, False])
def test_the_default_makes_a_class_less_sure_and_keeps_what_stays(validated):
    asked = one_class()
    case = asked.case if validated else asked.case.replace(validation=None)
    model = uk.train_original(case).model
    done = uk.unlearn(model, case, asked.request, "jit")
    x, y = case.train.x, case.train.y

    def right(net, rows):
        with torch.no_grad():
            return (net(x[rows]).argmax(1) == y[rows]).double().mean().item()

    assert right(done.model, y != 3) >= right(model, y != 3) - 0.03
    assert right(done.model, y == 3) <= right(model, y == 3) - 0.03
    assert any("stopped before" in note for note in done.notes)


def digits_case(seed):
    bunch = load_digits()
    x, y = torch.tensor(bunch.data / 16, dtype=torch.float32), torch.tensor(bunch.target)
    rows = torch.arange(len(y)).numpy()
    train, test = train_test_split(rows, train_size=0.7, stratify=y, random_state=seed)
    x = (x - x[train].mean()) / x[train].std()
    recipe = uk.Recipe(lr=0.1, weight_decay=5e-4, schedule="cosine", epochs=20, batch_size=64)
    return uk.Case(
        train=(x[train], y[train]),
        test=(x[test], y[test]),
        task="classification",
        fresh=lambda: nn.Sequential(
            *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
        ),
        recipe=recipe,
    )


@pytest.fixture(scope="module")
def trained():
    cases = [digits_case(seed) for seed in range(3)]
    return [(case, uk.train_original(case, seed=i).model) for i, case in enumerate(cases)]


@pytest.mark.parametrize(
    ("lr", "gradient", "forget", "retain"),
    [
        (0.005, "clean", (0.0, 0.15), (0.9, 1.0)),
        (0.001, "clean", (0.6, 0.9), (0.95, 1.0)),
        (0.005, "both", (0.9, 1.0), (0.9, 1.0)),
        (0.1, "both", (0.0, 0.4), (0.0, 0.85)),
    ],
)
def test_measured_ranges_on_digits(trained, lr, gradient, forget, retain):
    how = JiT.build("vgg_class", reset="step", mode="eval", gradient=gradient, run=sgd(lr))
    found = []
    for seed, (case, model) in enumerate(trained):
        got = uk.unlearn(model, case, uk.Classes(3), how, uk.Runtime(seed=seed)).model
        with torch.no_grad():
            right = (got(case.test.x).argmax(1) == case.test.y).double()
        found.append([right[case.test.y == 3].mean(), right[case.test.y != 3].mean()])
    go, stay = torch.tensor(found).mean(0).tolist()
    assert forget[0] <= go <= forget[1]
    assert retain[0] <= stay <= retain[1]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("case", "request_name"),
    [
        (c, r)
        for c in ("digits", "breast_cancer", "digits_half", "digits_backdoor", "digits_swapped")
        for r in cases()[c].requests
    ],
)
def test_no_bundled_case_is_harmed(case, request_name):
    asked = cases()[case].ask(request_name)
    model = uk.train_original(asked.case).model
    done = uk.unlearn(model, asked.case, asked.request, "jit")
    keep = asked.case.partition(asked.request).retain

    def right(net):
        out = predict(net, keep, asked.case.task, uk.Runtime())
        return (out.argmax(1) == keep.y).double().mean().item()

    assert right(done.model) >= right(model) - 0.03
    same = torch.equal(state(done.model), state(model))
    assert same == any("did nothing" in note for note in done.notes)
