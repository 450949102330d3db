"""Masks on the command line: found, drawn, kept with the run, handed on, refused."""

import json
from xml.etree import ElementTree

import pytest
import torch
import yaml

from unlearnkit.checkpoint import load_weights
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.store import Store
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case

ASK = ["--forget", "class=1"]
ODD = """
import torch
from torch import nn
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
        self.change()
    def change(self):
        pass
    def forward(self, x):
        return self.head(torch.relu(self.down(torch.relu(self.up(x)))))

class Frozen(Net):
    def change(self):
        self.down.requires_grad_(False)

class Tied(Net):
    def change(self):
        self.down.weight = self.up.weight

class Still(nn.Module):
    def forward(self, x):
        return x[:, :3]

class Called(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 3))
    def forward(self, x):
        return x @ self.table

def case(net):
    return lambda: toy_case(Classification(3)).replace(fresh=net)

plain, frozen, tied, still, called = map(case, (Net, Frozen, Tied, Still, Called))
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "odd_case.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    return "odd_case"


def weights(folder, name):
    return load_weights(toy_case(Classification(3)).fresh(), folder / name).state_dict()


def test_a_mask_is_found_saved_drawn_and_handed_on(run, small, tmp_path):
    said = run("localize", small, *ASK, "--fraction", 0.4, "--out", "m.safetensors", "--plot",
               "m.svg", "--quiet")  # fmt: skip
    assert (said.code, said.err) == (0, "")
    mask = Mask.load(tmp_path / "m.safetensors")
    for layer in mask.layers():
        assert f"{100 * layer.share:.1f} %" in said.out
    ElementTree.parse(tmp_path / "m.svg")
    assert run("unlearn", small, *ASK, "--mask", "m.safetensors", "--name", "a").code == 0
    folder = tmp_path / "runs" / "a"
    before, after = weights(folder, "original.safetensors"), weights(folder, "model.safetensors")
    changed = {n: before[n] != after[n] for n in before}
    assert any(bool(m.any()) for m in changed.values())
    assert not any(bool((m & ~mask.chosen[n]).any()) for n, m in changed.items())
    assert Mask.load(folder / "mask.safetensors").digest() == mask.digest()
    record = json.loads((folder / "run.json").read_text())
    assert record["mask"] == mask.facts()
    assert (record["mask"]["criterion"], record["mask"]["budget"]) == ("weighted_grad", 0.4)
    with Store(tmp_path / "runs" / "unlearnkit.sqlite") as store:
        (row,) = store.runs()
        assert json.loads(store.facts(row.key)["mask"]) == mask.facts()


def test_json_has_every_layer(run, small):
    data = run("localize", small, *ASK, "--criterion", "random", "--json", "-q").data
    assert data["criterion"] == "random"
    assert sum(x["chosen"] for x in data["layers"]) == data["scalars"]


def test_words_find_the_same_mask_as_the_command(run, small, tmp_path):
    words = ["--seed", 2, "-q"]
    run("localize", small, *ASK, "--criterion", "grad", "--fraction", 0.2, "--granularity",
        "parameter", "--out", "m.safetensors", *words)  # fmt: skip
    record = run(
        "unlearn", small, *ASK, "--mask", "grad:0.2:parameter", "--name", "a", "--json", *words
    ).data
    assert record["mask"] == Mask.load(tmp_path / "m.safetensors").facts()
    assert record["job"]["mask"] == Localizer.read("grad:0.2:parameter").model_dump(mode="json")
    again = run(
        "unlearn", "--trust", "--config", "runs/a/run.json", "--name", "b", "--json", "-q"
    ).data
    own = {again["digests"].pop("record"), record["digests"].pop("record")}
    assert again["digests"] == record["digests"]
    assert len(own) == 2
    assert again["mask"] == record["mask"]


def test_yaml_says_the_same_as_the_option(run, small, tmp_path):
    job = {"case": small, "forget": "class=1", "mask": {"criterion": "weight", "budget": 0.5}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    record = run("unlearn", "--config", "job.yaml", "--json").data
    assert (record["mask"]["criterion"], record["mask"]["budget"]) == ("weight", 0.5)


@pytest.mark.parametrize("words", [["--mask", "weighted_grad:0.4"], ["--method", "salun"]])
def test_the_report_of_a_run_says_what_might_move(run, small, tmp_path, words):
    run("unlearn", small, *ASK, *words, "--name", "a")
    said = run("audit", "--trust", "a", "--tier", "fast", "--full")
    mask = Mask.load(tmp_path / "runs/a/mask.safetensors")
    assert f"{mask.size:,} of" in said.out
    report = json.loads((tmp_path / "runs/a/report.json").read_text())
    got = [(x["name"], x["scalars"], x["chosen"]) for x in report["mask"]["layers"]]
    assert got == [tuple(x) for x in mask.layers()]
    page = (tmp_path / "runs/a/report.html").read_text()
    assert 'id="mask-title"' in page


def test_a_mask_that_was_changed_after_the_run_is_told(run, small, tmp_path):
    run("unlearn", small, *ASK, "--mask", "weighted_grad:0.4", "--name", "a")
    path = tmp_path / "runs/a/mask.safetensors"
    mask = Mask.load(path)
    Mask(**{**vars(mask), "chosen": {n: ~m for n, m in mask.chosen.items()}}).save(path)
    said = run("audit", "--trust", "a", "--tier", "fast")
    assert said.code == 1
    assert "mask.safetensors' was changed after the run" in said.err


def told(said, why):
    assert (said.code, said.out) == (1, "")
    assert why in said.err
    assert said.err.startswith("unlearnkit: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--mask", "weighted_grad:0"], "mask: budget: input should be greater than 0, got '0'"),
        (["--mask", "weighted_grad:1.1"], "budget: input should be less than or equal to 1"),
        (["--mask", "wieghted_grad"], "Did you mean 'weighted_grad'"),
        (["--mask", "grad:0.1:head:x"], "expected criterion:budget:granularity"),
        (["--mask", "none.safetensors"], "cannot read 'none.safetensors'"),
        (["--mask", "grad:0.3", "--method", "retrain"], "a mask cannot hold"),
        (["--mask", "grad:0.3", "--method", "auto"], "auto: chooses among methods without a mask"),
    ],
)
def test_a_wrong_mask_is_one_line_and_nothing_is_written(run, small, tmp_path, words, why):
    told(run("unlearn", small, *ASK, *words), why)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--fraction", 0], "localize: --fraction: must be above 0 and at most 1, got 0"),
        (["--fraction", 1.5], "localize: --fraction: must be above 0 and at most 1, got 1.5"),
        (["--criterion", "gradient"], "Did you mean 'grad'"),
        (["--granularity", "head", "-q"], "the model has no nn.MultiheadAttention"),
        (["--fraction", 0.0001, "-q"], "holds no channel that the criterion chooses; raise it"),
        (["--out", "mask.pt"], "ends in .safetensors, got 'mask.pt'"),
        (["--plot", "mask.png"], "ends in .svg, got 'mask.png'"),
        (["--out", "there.safetensors"], "is there; choose another place"),
    ],
)
def test_localize_refuses_in_one_line(run, small, tmp_path, words, why):
    (tmp_path / "there.safetensors").write_text("mine")
    told(run("localize", small, *ASK, *words), why)
    assert (tmp_path / "there.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("frozen", "got down.bias, which the model has frozen or tied to another"),
        ("tied", "got down.weight, which the model has frozen or tied to another"),
        ("called", "got down.bias, which the model does not have"),
    ],
)
def test_a_mask_of_another_architecture_names_the_tensor(run, odd, tmp_path, case, why):
    run("localize", f"{odd}:plain", *ASK, "--out", "m.safetensors", "-q")
    told(run("unlearn", f"{odd}:{case}", *ASK, "--mask", "m.safetensors"), why)
    assert not (tmp_path / "runs").exists()


def test_a_mask_for_other_rows_or_weights_is_refused(run, small):
    run("localize", small, *ASK, "--out", "m.safetensors", "-q")
    words = ["unlearn", small, "--mask", "m.safetensors", "-q", "--forget"]
    told(run(*words, "class=2"), "made for other forget rows than the request's")
    told(run(*words, "class=1", "--seed", 1), "made for a model with other weights")


def test_a_mask_of_nothing_is_refused(run, small, tmp_path):
    run("localize", small, *ASK, "--out", "m.safetensors", "-q")
    mask = Mask.load(tmp_path / "m.safetensors")
    none = {n: torch.zeros_like(m) for n, m in mask.chosen.items()}
    Mask(**{**vars(mask), "chosen": none}).save(tmp_path / "m.safetensors")
    told(run("unlearn", small, *ASK, "--mask", "m.safetensors"), "selects no parameter")


def test_a_model_without_weights_is_told(run, odd):
    said = run("localize", f"{odd}:still", *ASK, "-q")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "parameter" in said.err


def test_a_head_that_is_not_found_is_told(run, odd):
    words = ["unlearn", f"{odd}:called", *ASK, "--method", "del_localized", "-q"]
    told(run(*words), "calls no linear or convolutional layer, so its head was not found")
    told(run(*words, "-p", "head=[tail]"), "head 'tail' is no layer with parameters")
