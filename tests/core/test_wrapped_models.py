"""Models as they come: wrapped, pruned, with adapters; and what is no model at all."""

import copy

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import unlearnkit as uk
from unlearnkit.core.errors import InputError
from unlearnkit.core.wrapped_models import strip_prefixes
from unlearnkit.testing import toy_case

CASE = toy_case(uk.Classification(3))
GO = uk.Classes(1)


def net():
    torch.manual_seed(0)
    return CASE.fresh()


def compiled(model):
    return torch.compile(model, backend="eager")


WRAPPERS = {
    "compiled": compiled,
    "parallel": nn.DataParallel,
    "both": lambda m: compiled(nn.DataParallel(m)),
    "other way": lambda m: nn.DataParallel(compiled(m)),
}


def weights(model):
    return {n: t.clone() for n, t in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


@pytest.mark.parametrize("method", ["finetune", "ssd", "retrain"])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_is_unlearned_as_the_module_inside(wrap, method):
    given = WRAPPERS[wrap](net())
    before = weights(given)
    done = uk.unlearn(given, CASE, GO, method)
    assert same(weights(done.model), weights(uk.unlearn(net(), CASE, GO, method).model))
    assert same(weights(given), before)
    name = type(given).__name__
    assert f"the model was taken out of {name}, and is returned without it" in done.notes


def test_a_wrapped_factory_builds_the_module_inside(tmp_path):
    case = CASE.replace(fresh=lambda: compiled(CASE.fresh()))
    # The shared cache may hold a model of this seed that was trained with others: it rounds apart.
    own = [uk.Cache(tmp_path / name) for name in ("plain", "wrapped")]
    plain, wrapped = (
        uk.train_original(c, seed=3, cache=k).model for c, k in zip((CASE, case), own, strict=True)
    )
    assert same(weights(plain), weights(wrapped))


def test_a_mask_of_a_wrapped_model_fits_it():
    mask = uk.Localizer(budget=0.3).find(compiled(net()), CASE, GO)
    done = uk.unlearn(compiled(net()), CASE, GO, "finetune", mask=mask)
    assert set(done.mask.chosen) == {n for n, _ in net().named_parameters()}


PREFIXES = ["module.", "_orig_mod.", "model.", "_module.", "module._orig_mod.", "model.module."]


class Noted:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def progress(self, what, done, total):
        pass


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_are_taken_off_and_named(tmp_path, prefix):
    state = {prefix + name: t for name, t in net().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    model, said = CASE.fresh(), Noted()
    uk.load_weights(model, tmp_path / "w.ckpt", reporter=said)
    assert same(weights(model), weights(net()))
    assert said.notes == [
        f"checkpoint w.ckpt: names were read without {prefix}, which a wrapper adds"
    ]


def test_names_that_are_the_model_s_own_stay(tmp_path):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.ModuleDict({"module": nn.Linear(2, 2)})

    given, said = Outer(), Noted()
    uk.save_weights(given, tmp_path / "w.safetensors")
    uk.load_weights(Outer(), tmp_path / "w.safetensors", reporter=said)
    assert said.notes == []
    found = {"module." + n: t for n, t in given.state_dict().items()}
    assert strip_prefixes(found, given.state_dict())[1] == "module."


def test_a_compiled_part_is_recognised_inside_of_names():
    names = {"model.0._orig_mod.weight": torch.zeros(1), "model.0._orig_mod.bias": torch.ones(1)}
    found, prefix = strip_prefixes(names, ["0.weight", "0.bias"])
    assert (set(found), prefix) == ({"0.weight", "0.bias"}, "model. and _orig_mod. inside")


def test_a_prefix_that_only_some_names_have_is_another_architecture(tmp_path):
    state = {f"module.{n}" if "0" in n else n: t for n, t in net().state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"has no 0.weight, .* another architecture"):
        uk.load_weights(CASE.fresh(), tmp_path / "w.pt")


def test_weights_of_a_wrapped_model_are_saved_under_plain_names(tmp_path):
    uk.save_weights(compiled(net()), tmp_path / "w.safetensors")
    assert same(weights(uk.load_weights(CASE.fresh(), tmp_path / "w.safetensors")), weights(net()))


class Keep(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def test_zeros_of_a_parametrised_mask_stay():
    model = net()
    mask = (torch.rand(16, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    parametrize.register_parametrization(model[0], "weight", Keep(mask))
    for method in ("finetune", "ssd", "scrub"):
        after = uk.unlearn(model, CASE, GO, method).model[0].weight.detach()
        assert torch.equal(after == 0, mask == 0), method


def pruned():
    model = net()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def old_norm(name):
    model = net()
    getattr(nn.utils, name)(model[0])
    return model


def scripted():
    return torch.jit.script(net())


def exported():
    return torch.export.export(net(), (CASE.train.x[:2],))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (pruned, r"'0' is pruned by a hook.*prune\.remove\(layer, 'weight'\)"),
        (lambda: old_norm("weight_norm"), r"call torch\.nn\.utils\.remove_weight_norm\(layer\)"),
        (lambda: old_norm("spectral_norm"), r"torch\.nn\.utils\.remove_spectral_norm\(layer\)"),
        (scripted, "a ScriptModule cannot be trained further here; pass the nn.Module"),
        (exported, "got ExportedProgram; pass the nn.Module that it was exported from"),
        (lambda: exported().module(), "a model of torch.export cannot be trained further"),
        (
            LogisticRegression,
            r"LogisticRegression of scikit-learn; no method .* Fit it again .*unlearnkit\.linear",
        ),
        (lambda: "w.pt", r"got str; pass uk\.load_weights\(make_model\(\), path\)"),
        (lambda: net().state_dict(), "got OrderedDict; load the state dict into the module"),
        (lambda: nn.Linear, "got the class Linear; pass an instance"),
        (lambda: None, "got NoneType; pass the torch.nn.Module that was trained"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_mends_it(make, told):
    with pytest.raises(InputError, match=told):
        uk.unlearn(make(), CASE, GO, "finetune")


def test_boosted_trees_are_named():
    booster = type("XGBClassifier", (), {"fit": None, "__module__": "xgboost.sklearn"})()
    with pytest.raises(InputError, match="got XGBClassifier of XGBoost; no method changes such"):
        uk.unlearn(booster, CASE, GO, "finetune")


def test_the_call_that_mends_a_pruned_model_mends_it():
    model = pruned()
    prune.remove(model[0], "weight")
    assert uk.unlearn(model, CASE, GO, "ssd").model[0].weight.shape == (16, 6)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrised_norms_are_unlearned(norm):
    model = net()
    getattr(parametrizations, norm)(model[0])
    assert uk.unlearn(model, CASE, GO, "ssd").cost.forward > 0


class Adapted(nn.Module):
    """A frozen layer, plus a product of two small matrices: LoRA, Hu et al., 2021."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, base.in_features) * 0.3)
        self.b = nn.Parameter(torch.randn(base.out_features, rank) * 0.3)

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


def base():
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(16)
    layers = nn.Sequential(nn.Linear(6, 16), norm, nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        layers(CASE.train.x)
    return layers.requires_grad_(False)


def adapted():
    layers = base()
    layers[0], layers[3] = Adapted(layers[0]), Adapted(layers[3])
    return layers


def peft_adapted():
    peft = pytest.importorskip("peft", reason="peft is not installed")
    how = peft.LoraConfig(r=2, target_modules=["0", "3"], init_lora_weights=False)
    return peft.get_peft_model(base(), how)


def moved(done):
    before = done.original.state_dict()
    return {n for n, t in done.model.state_dict().items() if not torch.equal(t, before[n])}


SLOW = CASE.replace(recipe=CASE.recipe.model_copy(update={"lr": 0.01}))
METHODS = ["finetune", "ssd", "scrub", "relabel", "bad_teacher", "l1_sparse", "unsir"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [adapted, peft_adapted], ids=["by hand", "peft"])
def test_only_the_weights_of_an_adapter_move(make, method):
    model = make()
    model.peft_config = getattr(model, "peft_config", {})
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    how = uk.method("ssd", selection=0.1, dampening=0.0) if method == "ssd" else method
    done = uk.unlearn(model, SLOW.replace(fresh=make), GO, how)
    assert len(trained) == 4
    assert set() < moved(done) <= trained


def test_statistics_of_a_frozen_layer_move_with_a_note_or_are_held():
    told = "layer '1' has frozen weights but moving statistics; to hold these too, call model.train"
    done = uk.unlearn(adapted(), SLOW, GO, "finetune")
    assert "1.running_mean" in moved(done)
    assert any(told in note for note in done.notes)
    held = adapted().train()
    held[1].eval()
    done = uk.unlearn(held, SLOW, GO, "finetune")
    assert "1.running_mean" not in moved(done)
    assert not any(told in note for note in done.notes)


def test_originals_and_oracles_of_an_adapter_leave_its_base_alone():
    def make():
        model = adapted()
        model.peft_config = {}
        return model

    case, start = SLOW.replace(fresh=make), adapted().state_dict()
    for trained in (uk.train_original(case), *uk.oracle(case, GO, seeds=2).runs):
        after = trained.model.state_dict()
        assert all(torch.equal(after[n], start[n]) for n in start if n[-1:] not in "ab" or "_" in n)
        assert copy.deepcopy(trained.model)[0].base.weight.requires_grad is False
