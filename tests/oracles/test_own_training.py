"""A user's own training loop in the place of a recipe."""

import functools
import random
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset

from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.control_models import ControlModels
from unlearnkit.auditing.strong.cost_plan import plan
from unlearnkit.auditing.strong.train_ensembles import collect_margins, subject_of
from unlearnkit.cache import Cache
from unlearnkit.catalog import method as make
from unlearnkit.core.case import Case
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import DivergedError, InputError, UnsupportedError
from unlearnkit.core.evidence import Evidence
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.difficulty.training_dynamics import trainable
from unlearnkit.oracles import oracle, original_key, train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.train.learning_rate import estimate_learning_rate
from unlearnkit.unlearning.run_method import run_method

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
GO = Rows(0, 1, 2)
STAY = torch.arange(3, 40)


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def loop(model, data, seed):
    """Train for two epochs, as people write it."""
    x, y = (torch.as_tensor(t) for t in data)
    rng = torch.Generator().manual_seed(seed)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for rows in torch.randperm(len(x), generator=rng).split(8):
            opt.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            opt.step()
    return model


def case(train_model=loop, train=(X, Y), **more):
    task = Classification(3)
    return Case(**{"train": train, "task": task, "fresh": net, "train_model": train_model, **more})


def key(subject):
    return digest(original_key(subject, 0, Runtime()))


def seen_by(train, tmp_path, **more):
    """Return what a loop gets for the rows that stay."""
    got = []

    def keep(model, data, seed):
        got.append(data)
        with torch.no_grad():
            model[0].bias.add_(seed + 1)
        return model

    subject = case(keep, train, version="1", **more)
    oracle(subject, GO, seeds=1, cache=Cache(tmp_path))
    return got[0]


def test_an_oracle_is_what_the_loop_makes_of_the_rows_that_stay(tmp_path):
    found = oracle(case(), GO, seeds=[5], cache=Cache(tmp_path)).models[0]
    start = Case(train=(X, Y), task=Classification(3), fresh=net, recipe=Recipe(epochs=1, lr=1e-30))
    untrained = oracle(start, GO, seeds=[5], cache=Cache(tmp_path)).models[0]
    by_hand = loop(untrained, (X[3:], Y[3:]), 5)
    for mine, theirs in zip(found.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_model_is_trained_once(tmp_path):
    calls = []

    def counted(model, data, seed):
        calls.append(seed)
        return loop(model, data, seed)

    subject = case(counted, version="1")
    first = oracle(subject, GO, seeds=2, cache=Cache(tmp_path))
    again = oracle(subject, GO, seeds=3, cache=Cache(tmp_path))
    assert calls == [1000, 1001, 1002]
    assert [r.cached for r in again.runs] == [True, True, False]
    assert torch.equal(first.models[0][0].weight, again.models[0][0].weight)


def test_retrain_uses_the_loop():
    calls = []

    def counted(model, data, seed):
        calls.append(len(data[0]))
        return loop(model, data, seed)

    done = run_method(net(), case(counted), GO, "retrain")
    assert calls == [37]
    assert not torch.equal(done.model[0].weight, done.original[0].weight)


class Pairs(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


@pytest.mark.parametrize(
    ("train", "kind"),
    [
        ((X, Y), torch.Tensor),
        ((X.numpy(), Y.numpy()), np.ndarray),
        (([r.tolist() for r in X], Y.tolist()), list),
    ],
    ids=["tensors", "arrays", "lists"],
)
def test_a_pair_comes_as_a_pair_of_the_same_kind(train, kind, tmp_path):
    x, y = seen_by(train, tmp_path)
    assert type(x) is kind
    assert type(y) is kind
    assert torch.equal(torch.as_tensor(x), X[3:])
    assert torch.equal(torch.as_tensor(y), Y[3:])


def test_named_inputs_come_as_named_inputs(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def __getitem__(self, _):
            return self.layer

        def forward(self, a, b):
            return self.layer(torch.cat([a, b], 1))

    x, y = seen_by(({"a": X[:, :2], "b": X[:, 2:].numpy()}, Y), tmp_path, fresh=Two)
    assert torch.equal(x["a"], X[3:, :2])
    assert isinstance(x["b"], np.ndarray)
    assert len(y) == 37


@pytest.mark.parametrize("data", [Pairs(), TensorDataset(X, Y)], ids=["own", "tensors"])
def test_a_data_set_comes_as_a_subset_of_itself(data, tmp_path):
    found = seen_by(data, tmp_path)
    assert isinstance(found, Subset)
    assert found.dataset is data
    assert found.indices == STAY.tolist()


def test_a_table_comes_as_a_table_with_all_columns(tmp_path):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X.numpy(), columns=list("abcdef")).assign(y=Y.numpy(), weight=1.0)
    columns = {"target": "y", "inputs": list("abcdef")}
    found = seen_by(frame, tmp_path, **columns)
    assert list(found.columns) == [*"abcdef", "y", "weight"]
    assert found.index.tolist() == STAY.tolist()
    heavier = frame.assign(weight=2.0)
    assert key(case(train=frame, **columns)) != key(case(train=heavier, **columns))


def test_a_hugging_face_set_comes_as_one(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    table = datasets.Dataset.from_dict({"x": X.tolist(), "y": Y.tolist()})
    found = seen_by(table, tmp_path, target="y")
    assert isinstance(found, datasets.Dataset)
    assert found["y"][:] == Y[3:].tolist()


def test_after_a_deletion_the_loop_gets_what_is_left(tmp_path):
    left = case(train=Pairs(), keys=range(len(Y))).after_deletion(GO)
    found = left.partition(left.rows([0])).retain.as_given()
    assert found.indices == STAY[1:].tolist()


def test_relabelled_rows_come_with_their_targets():
    subject = case(train=Pairs())
    other = subject.replace(train=subject.train.with_targets(2 - Y))
    given = other.partition(GO).retain.as_given()
    assert [int(y) for _, y in given] == (2 - Y)[3:].tolist()


def scaled(lr):
    def inner(model, data, seed):
        with torch.no_grad():
            model[0].bias.add_(lr)
        return model

    return inner


class Trainer:
    __slots__ = ("lr",)

    def __init__(self, lr):
        self.lr = lr

    def __call__(self, model, data, seed):
        return scaled(self.lr)(model, data, seed)


def by_module(factor):
    """Return a loop that calls a function of a module inside a module of the user's."""
    outer, inner = ModuleType("outer_of_mine"), ModuleType("outer_of_mine.inner")
    exec(f"def rate():\n    return {factor}", inner.__dict__)
    outer.inner = inner
    space = {"outer": outer}
    exec("def fn(model, data, seed):\n    return outer.inner.rate()", space)
    return space["fn"]


def holding(value):
    return lambda model, data, seed: (value, loop(model, data, seed))[1]


def frame(value):
    try:
        import pandas
    except ImportError:
        return value
    return pandas.DataFrame({"a": [value, 1.0], "b": ["x", None]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scaled(0.1), scaled(0.2)),
        (Trainer(0.1), Trainer(0.2)),
        (functools.partial(Trainer(0.1)), functools.partial(Trainer(0.2))),
        (Trainer(0.1).__call__, Trainer(0.2).__call__),
        (by_module(1), by_module(2)),
        (lambda m, d, s: loop(m, d, 1), lambda m, d, s: loop(m, d, 2)),
        (holding(np.exp), holding(np.sin)),
        (holding(torch.relu), holding(torch.sin)),
        (holding({"a": range(3)}), holding({"a": range(4)})),
        (holding(frame(0.1)), holding(frame(0.1 + 1e-12))),
    ],
    ids=[
        *("closure", "object", "partial", "bound", "module in a module", "lambda"),
        *("ufunc", "builtin", "range", "frame"),
    ],
)
def test_what_a_loop_reads_is_part_of_the_address(one, other):
    assert key(case(one)) == key(case(one))
    assert key(case(one)) != key(case(other))


def test_a_version_stands_for_all_that_a_loop_reads():
    one, other = scaled(0.1), scaled(0.2)
    assert key(case(one, version="1")) == key(case(other, version="1"))
    assert key(case(one, version="1")) != key(case(one, version="2"))


def importing():
    sys.modules["late_of_mine"] = ModuleType("late_of_mine")
    space = {}
    exec("def fn(model, data, seed):\n    import late_of_mine\n    return model", space)
    return space["fn"]


@pytest.mark.parametrize(
    ("loop_of_user", "named"),
    [
        (holding(torch.Generator()), "Generator"),
        (holding(np.random.default_rng(0)), "Generator"),
        (holding(random.Random(0)), "Random"),
        (holding(i for i in range(3)), "generator"),
        (holding(iter([1])), "list_iterator"),
        (holding(np.random.default_rng(0).normal), "getset|Generator"),
        (holding([1].append), "append"),
        (importing(), "late_of_mine"),
    ],
    ids=["torch", "numpy", "random", "generator", "iterator", "method", "builtin", "import"],
)
def test_a_loop_whose_inputs_cannot_be_read_is_refused_for_the_cache(loop_of_user, named, tmp_path):
    with pytest.raises(InputError, match=rf"cannot be cached.*{named}.*version='1'"):
        train_original(case(loop_of_user), cache=Cache(tmp_path))
    assert key(case(loop_of_user, version="1"))


def test_an_open_file_in_a_loop_is_refused_for_the_cache(tmp_path):
    with (tmp_path / "x").open("w") as f, pytest.raises(InputError, match="TextIOWrapper"):
        key(case(holding(f)))


def none(model, data, seed):
    loop(model, data, seed)


def another(model, data, seed):
    return nn.Linear(6, 3)


def text(model, data, seed):
    return "done"


def untrained(model, data, seed):
    return model


def infinite(model, data, seed):
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    return model


def failing(model, data, seed):
    return data.no_such_thing


def hooked(model, data, seed):
    model[0].register_forward_hook(lambda _m, _x, out: out)
    return loop(model, data, seed)


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (none, InputError, "none returned None; end it with: return model"),
        (text, InputError, "text returned a str, not a model"),
        (another, InputError, "another architecture than fresh builds.*model that it is given"),
        (untrained, InputError, "untrained model: no weight differs.*optimiser"),
        (infinite, DivergedError, "0.bias is not finite; use a smaller learning rate"),
        (failing, InputError, "failing raised AttributeError: .*no_such_thing.*mend it"),
        (hooked, InputError, "hooks left"),
    ],
)
@pytest.mark.parametrize("use", ["oracle", "retrain"])
def test_what_a_loop_must_not_return_is_refused_in_one_line(wrong, error, told, use, tmp_path):
    uses = {
        "oracle": lambda: oracle(case(wrong), GO, seeds=1, cache=Cache(tmp_path)),
        "retrain": lambda: run_method(net(), case(wrong), GO, "retrain"),
    }
    with pytest.raises(error, match=told) as e:
        uses[use]()
    assert "\n" not in str(e.value)


def test_the_same_object_twice_is_refused(tmp_path):
    held = net()

    def same(model, data, seed):
        return loop(held, data, seed)

    with pytest.raises(InputError, match="same object as in a call before"):
        oracle(case(same, version="1"), GO, seeds=2, cache=Cache(tmp_path))


def rude(model, data, seed):
    """Train, and leave every setting of the process changed."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global one
    torch.manual_seed(1)
    loop(model, data, seed)
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    return model


def state():
    return (
        *(torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        torch.are_deterministic_algorithms_enabled(),
        *(torch.get_rng_state().tolist(), random.getstate()),
        np.random.get_state()[1].tolist(),  # noqa: NPY002  # the global one
    )


def test_global_state_is_restored_after_each_call(tmp_path):
    before = state()
    first, second = oracle(case(rude), GO, seeds=2, cache=Cache(tmp_path)).models
    assert state() == before
    alone = oracle(case(rude), GO, seeds=[1001], cache=Cache(tmp_path / "alone")).models[0]
    assert torch.equal(second[0].weight, alone[0].weight)
    assert first[0].weight.dtype == torch.float32


def test_draws_from_global_generators_follow_the_seed(tmp_path):
    def drawing(model, data, seed):
        with torch.no_grad():
            noise = torch.randn(8) + random.random()
            model[0].bias.add_(noise + np.random.rand())  # noqa: NPY002  # the global one
        return model

    models = []
    for k in range(2):
        torch.manual_seed(k)
        random.seed(k)
        models.append(
            oracle(case(drawing), GO, seeds=[4], cache=Cache(tmp_path / str(k))).models[0]
        )
    assert torch.equal(models[0][0].bias, models[1][0].bias)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"train_model": net()}, "give a function fn"),
        ({"train_model": 3}, "give a function fn"),
        ({"train_model": lambda model: model}, r"called as fn\(model, data, seed\)"),
        ({"train_model": loop, "version": 2}, "give a text such as '1', got 2"),
        ({"train_model": None, "version": "2"}, "leave it out"),
    ],
)
def test_what_is_no_loop_is_refused(given, told):
    with pytest.raises(InputError, match=told):
        case(**given)


def test_a_case_without_training_names_both_ways(tmp_path):
    with pytest.raises(UnsupportedError, match=r"recipe=Recipe.*train_model=fn"):
        oracle(case(None), GO, seeds=1, cache=Cache(tmp_path))


def test_the_recipe_is_a_hint_for_methods_and_the_result_says_so():
    hint = case(recipe=Recipe(lr=0.05, epochs=4))
    told = run_method(net(), hint, GO, "finetune").notes
    assert any("lr 0.05, 4 epochs" in t and "hint" in t for t in told)


def test_without_a_hint_a_learning_rate_is_estimated_and_the_result_says_so():
    told = run_method(net(), case(), GO, "finetune").notes
    assert any("estimated by a range test" in t and "Case(recipe=" in t for t in told)


def test_a_method_that_needs_no_learning_rate_estimates_none():
    done = run_method(net(), case(), GO, "ssd")
    assert not any("range test" in t for t in done.notes)


def test_the_estimated_rate_is_stable_on_a_quadratic_and_not_idle():
    # SGD with momentum m diverges on a quadratic of curvature c from 2 (1 + m) / c on.
    x = torch.randn(256, 5, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 6)
    y = x.sum(1, keepdim=True)
    subject = Case(train=(x, y), task=Regression(1), fresh=lambda: nn.Linear(5, 1, bias=False))
    top = float(torch.linalg.eigvalsh(x.double().T @ x.double() / len(x)).max()) * 2
    recipe = Recipe(batch_size=256)
    rate = estimate_learning_rate(
        subject.fresh(), subject.partition(Rows(0)).retain, subject.task, recipe, Runtime()
    )
    limit = 2 * (1 + recipe.momentum) / top
    assert 0.002 * limit < rate < 0.5 * limit


def test_the_strong_tier_trains_by_the_loop_one_at_a_time_and_says_the_cost(tmp_path):
    held = (torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), Y)
    subject = case(test=held)
    how = subject_of(subject, GO, make("finetune"), Runtime(), Cache(tmp_path))
    told = str(plan(how, 4))
    assert "12 to train" in told
    assert "one at a time, because train_model cannot be stacked" in told
    found = collect_margins(how, 4)
    assert found.margins.isfinite().all()
    assert plan(how, 4).train == 0


@pytest.mark.parametrize("hint", [None, Recipe(epochs=5, lr=0.1)], ids=["alone", "with a hint"])
def test_a_control_model_is_trained_by_the_loop_on_a_tenth_of_the_rows(hint, tmp_path):
    sizes = []

    def counted(model, data, seed):
        sizes.append(len(data[0]))
        return loop(model, data, seed)

    subject = case(counted, version="1", recipe=hint)
    controls = ControlModels(subject, subject.partition(GO), Runtime(), Cache(tmp_path))
    like = Evidence({}, {}, subject.task, Runtime())
    assert isinstance(controls.without_forget_set(like), Evidence)
    assert isinstance(controls.with_forget_set(like), Evidence)
    assert sizes == [4, 4]


def test_oracles_of_another_loop_are_refused(tmp_path):
    done = run_method(net(), case(test=(X, Y)), GO, "ssd")
    other = oracle(case(scaled(0.1)), GO, seeds=1, cache=Cache(tmp_path))
    with pytest.raises(InputError, match="another recipe or train_model than the original"):
        audit(done, oracle=other)


def test_rows_of_a_retraining_by_a_loop_are_not_known_and_not_those_of_the_hint(tmp_path):
    subject = case(test=(X, Y), recipe=Recipe(epochs=3))
    truth = oracle(subject, GO, seeds=1, cache=Cache(tmp_path))
    report = audit(run_method(net(), subject, GO, "ssd"), oracle=truth)
    assert report.cost.retrain_forward is report.cost.ratio is None
    assert report.cost.retrain_seconds > 0
    assert "content" in report.provenance.training


def test_difficulty_refuses_a_loop_whose_epochs_it_cannot_follow():
    with pytest.raises(UnsupportedError, match="train_model does not show its own"):
        trainable(case(recipe=Recipe()))
