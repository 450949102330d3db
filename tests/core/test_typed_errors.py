"""What cannot be used is refused by a typed error; the net beneath catches the rest."""

import itertools

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit import catalog
from unlearnkit.attacks.lira import lira
from unlearnkit.attacks.ulira import ulira
from unlearnkit.core.border import border
from unlearnkit.core.errors import (
    InputError,
    OutOfMemoryError,
    UnexpectedError,
    UnlearnkitError,
)
from unlearnkit.studies.spec import make_study

X, Y = torch.linspace(-1, 1, 360).reshape(60, 6), torch.arange(60) % 3


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def case(train=(X, Y), test=(X, Y), **more):
    given = {"fresh": network, "recipe": uk.Recipe(epochs=1), "task": uk.Classification(3)}
    return uk.Case(train=train, test=test, **(given | more))


def unlearned(its=None, model=None, method="finetune"):
    return uk.unlearn(model or network(), its or case(), "rows=0:6", method)


class Rows(torch.utils.data.Dataset):
    """Rows whose reading can be made to fail."""

    def __init__(self, *, item=None, length=60):
        self.item, self.length = item, length

    def __len__(self):
        return self.length() if callable(self.length) else self.length

    def __getitem__(self, i):
        return (X[i], int(Y[i])) if self.item is None else self.item(i)


def fails(*_):
    raise KeyError("no file")


class Huge(nn.Module):
    def forward(self, x):
        return x + torch.empty(2**48)


class Packs(nn.Module):
    """Packs its sequences, which no per-row gradient survives."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(self.rnn(packed)[1][0])


def packed():
    rows = case(train=(X.reshape(60, 2, 3).repeat(1, 1, 2), Y), test=None, fresh=Packs)
    return unlearned(rows, Packs(), "ssd")


DATA = {
    "an item that raises": (lambda: case(Rows(item=fails)), "row 0 cannot be read: KeyError"),
    "a length that raises": (lambda: case(Rows(length=fails)), "length of the data set"),
    "a negative length": (lambda: case(Rows(length=-1)), "length of the data set"),
    "a length that is too long": (lambda: case(Rows(length=100)), "row 60 is not there.* of 100"),
    "1e300 in test rows": (lambda: case(test=(X.double() * 1e300, Y)), "test: x is beyond"),
    "sparse inputs": (lambda: case((X.to_sparse(), Y)), "x.to_dense"),
    "complex inputs": (lambda: case((X.to(torch.complex64), Y)), "view_as_real"),
    "a task that is a number": (lambda: case(task=3), "task: give a task .* got int"),
    "a recipe that is a mapping": (lambda: case(recipe={"lr": 1}), "recipe: give a Recipe"),
    "a factory that is a number": (lambda: case(fresh=3), "fresh: give a function"),
}
SETTINGS = {
    "a negative rate": (lambda: uk.Recipe(lr=-1), "Recipe: lr: .* got -1"),
    "a budget of 2": (lambda: uk.Localizer(budget=2), "budget: .* got 2"),
    "a method built by hand": (lambda: catalog.methods()["ssd"](dampening=-1), "got -1"),
    "a method named by a number": (lambda: uk.method(3), "names are texts, got 3"),
}
VERBS = {
    "a scripted model": (lambda: unlearned(model=torch.jit.script(network())), "ScriptModule"),
    "packed sequences with ssd": (packed, "pack_padded_sequence.*finetune"),
    "a case that is a number": (lambda: uk.unlearn(network(), 3, None, "ssd"), "case: got int"),
    "a method that is a number": (lambda: unlearned(method=3), "method: got int"),
    "a factory that raises": (
        lambda: uk.oracle(case(fresh=fails), "rows=0:3", seeds=1),
        "fresh: raised KeyError",
    ),
    "a plain module to audit": (lambda: uk.audit(network()), "by itself needs its circumstances"),
    "modules as oracle": (lambda: uk.audit(unlearned(), oracle=[network()]), "got list; pass"),
    "a tier that there is not": (lambda: uk.audit(unlearned(), tier="x"), "There are: fast"),
}
ATTACKS = {
    "ulira on one dimension": (lambda: ulira(torch.rand(9), torch.rand(9)), "got shape"),
    "lira on one dimension": (lambda: lira(torch.rand(9), torch.rand(4, 9)), "got shape"),
    "lira without shadows": (lambda: lira(torch.rand(1, 9), torch.rand(0, 9)), "train shadow"),
    "lira with None": (lambda: lira(torch.rand(1, 9), None), "must be a tensor"),
}
ALL = {**DATA, **SETTINGS, **VERBS, **ATTACKS}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("name", ALL)
def test_a_wrong_input_is_refused_with_what_is_wrong_and_what_to_do(name):
    do, told = ALL[name]
    with pytest.raises(UnlearnkitError, match=told) as error:
        do()
    assert not isinstance(error.value, UnexpectedError)
    assert "\n" not in str(error.value)


SEEDS = [-1, 1.5, True, 2**63, 2**70, "1", None]
USES = {
    "runtime": lambda seed: uk.Runtime(seed=seed),
    "place": lambda seed: uk.Runtime.on(seed=seed),
    "original": lambda seed: uk.train_original(case(), seed=seed),
    "oracle": lambda seed: uk.oracle(case(), "rows=0:3", seeds=[seed]),
}


@pytest.mark.parametrize(("use", "seed"), list(itertools.product(USES, SEEDS)))
def test_a_seed_that_is_no_whole_number_below_2_to_63_is_refused(use, seed):
    with pytest.raises(InputError, match=r"seed.* from 0 to 2\^63 - 1, got"):
        USES[use](seed)


def test_the_largest_seed_works():
    assert uk.Runtime(seed=2**63 - 1).rng("x").initial_seed() >= 0


def test_inputs_that_require_gradients_give_what_plain_ones_give():
    model = network()
    want, got = (
        unlearned(case((x, Y)), model).model.state_dict() for x in (X, X.clone().requires_grad_())
    )
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_no_memory_for_a_batch_says_to_make_it_smaller():
    with pytest.raises(OutOfMemoryError, match="batch_size"):
        unlearned(model=nn.Sequential(network(), Huge()))


def test_a_range_of_targets_as_a_mapping_is_a_request_of_a_study():
    found = make_study(
        {"name": "x", "cases": "diabetes", "requests": [{"target": {"below": 30}}],
         "methods": ["finetune"]}
    )  # fmt: skip
    assert found.requests["diabetes"] == ("target<30",)


def test_an_unknown_exception_names_the_step_and_leaves_its_traceback_in_a_file(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UnexpectedError, match="oracle: unexpected KeyError: 'no file'") as error:
        border("oracle")(fails)()
    (kept,) = tmp_path.iterdir()
    assert str(kept) in str(error.value)
    assert "in fails" in kept.read_text()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, InputError])
def test_the_border_lets_interrupts_exits_and_typed_errors_through(kind):
    def ends():
        raise kind("x")

    with pytest.raises(kind, match="x"):
        border("x")(ends)()


def test_arguments_that_do_not_fit_the_signature_are_python_s_own_error():
    with pytest.raises(TypeError, match="missing"):
        uk.unlearn()


def test_a_plug_in_that_raises_on_import_is_named_and_all_else_is_listed(tmp_path, monkeypatch):
    (tmp_path / "broken_plug_in.py").write_text("raise RuntimeError('boom')\n")
    folder = tmp_path / "broken_package-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-package\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[unlearnkit.methods]\nx = broken_plug_in\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = catalog.methods()
    catalog.methods.cache_clear()
    try:
        with pytest.warns(catalog.PluginWarning, match="'broken-package'.*RuntimeError: boom"):
            assert catalog.methods() == before
    finally:
        catalog.methods.cache_clear()
