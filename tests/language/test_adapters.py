"""Adapters: only they are trained, the base stays, the result is shipped, merged or revoked."""

import copy

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import trained
from unlearnkit.core.errors import InputError
from unlearnkit.language.adapters import LowRankAdapter, negated_adapter

peft = pytest.importorskip("peft", reason="peft is not installed")

# PEFT 0.21 asks transformers 5 for a flag by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

ANNA = uk.Groups("anna")
LORA = peft.LoraConfig(r=4, lora_alpha=8)
QUICK = {"share": 0.2, "lr": 1.0}


def run(method="npo", model=None, config=LORA, **settings):
    case, usual = trained()
    how = uk.method(method, peft_config=config, **({"run": QUICK} | settings))
    return uk.unlearn(usual if model is None else model, case, ANNA, how)


def logits(model):
    case, _ = trained()
    x = {n: t[:4] for n, t in case.train.x.items()}
    with torch.no_grad():
        return model.eval()(**x).logits


def test_only_the_adapter_moves_and_off_it_is_the_given_model():
    _, model = trained()
    before = copy.deepcopy(model.state_dict())
    done = run()
    moved = {n for n, p in done.model.named_parameters() if p.requires_grad}
    assert isinstance(done.model, peft.PeftModel)
    assert moved
    assert all(".lora_" in n for n in moved)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not torch.equal(logits(done.model), logits(model))
    with done.model.disable_adapter():
        assert torch.equal(logits(done.model), logits(model))
    torch.testing.assert_close(logits(done.original), logits(model), rtol=0, atol=0)


def test_merging_the_result_gives_its_outputs_and_leaves_the_given_model_alone():
    _, model = trained()
    done, before = run(), logits(model)
    want = logits(done.model)
    merged = done.model.merge_and_unload()
    assert not hasattr(merged, "peft_config")
    torch.testing.assert_close(logits(merged), want, rtol=1e-5, atol=1e-5)
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(done.original), before)


def test_the_adapter_is_saved_and_loaded_alone(tmp_path):
    _, model = trained()
    done = run()
    done.model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(done.model), rtol=0, atol=0)


def test_the_result_says_that_the_base_holds_the_forget_set():
    (told,) = [n for n in run().notes if "only an adapter was trained" in n]
    assert "the base model under it still holds the forget set" in told


def test_an_adapter_that_is_there_is_trained_and_a_second_is_refused():
    _, model = trained()
    given = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, fan_in_fan_out=True))
    before = copy.deepcopy(given.state_dict())
    done = run(model=given, config=None)
    moved = {n for n, t in done.model.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    assert all(".lora_" in n for n in moved)
    assert all(torch.equal(t, before[n]) for n, t in given.state_dict().items())
    with pytest.raises(InputError, match="has an adapter already; leave peft_config out"):
        run(model=given)


def test_the_task_vector_of_an_adapter_is_its_product_negated():
    one, two = (
        run("task_vector", alpha=a, guard={"stop": "never", "floor": float("inf")}).model
        for a in (1.0, 2.5)
    )
    products = []
    for model in (one, two):
        layers = [m for m in model.modules() if hasattr(m, "lora_A") and len(m.lora_A)]
        products.append([m.get_delta_weight("default") for m in layers])
    assert any(bool(d.any()) for d in products[0])
    for a, b in zip(*products, strict=True):
        torch.testing.assert_close(b, 2.5 * a, rtol=1e-5, atol=1e-8)


def test_the_negated_adapter_has_minus_alpha_times_the_tuned_product():
    rng = torch.Generator().manual_seed(0)
    names = "x.lora_A.default.weight", "x.lora_B.default.weight"
    a, b = torch.randn(2, 5, generator=rng), torch.randn(3, 2, generator=rng)
    start = {names[0]: torch.randn(2, 5, generator=rng), names[1]: torch.zeros(3, 2)}
    got = negated_adapter(start, {names[0]: a, names[1]: b}, 1.5)
    torch.testing.assert_close(got[names[1]] @ got[names[0]], -1.5 * b @ a)


def test_the_task_vector_of_a_trained_adapter_is_refused():
    with pytest.raises(uk.UnlearnkitError, match=r"twice their rank; call model.merge_and_unload"):
        run("task_vector", model=run().model, config=None)


def test_a_config_is_read_and_survives_json():
    config = peft.LoraConfig(r=8, target_modules=["c_fc", "c_attn"], task_type="CAUSAL_LM")
    how = uk.method("npo", peft_config=config)
    assert how.peft_config == LowRankAdapter(r=8, lora_alpha=8, target_modules=("c_attn", "c_fc"))
    assert type(how).model_validate_json(how.model_dump_json()) == how
    assert uk.method("npo", peft_config={"r": 2}).peft_config.r == 2


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (peft.LoraConfig(bias="all"), "LoraConfig with bias is not supported"),
        (peft.IA3Config(), "must be a LoraConfig"),
        ({"r": 0}, "peft_config.r: input should be greater than or equal to 1"),
        ({"rank": 3}, "peft_config: no setting 'rank'"),
        ("lora", "peft_config"),
    ],
)
def test_a_config_that_is_none_is_refused(config, told):
    with pytest.raises(InputError, match=told):
        uk.method("npo", peft_config=config)


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(InputError, match=r"peft_config: Target modules .*nothing.* not found"):
        run(config=peft.LoraConfig(target_modules=["nothing"]))
