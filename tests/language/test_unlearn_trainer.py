"""The Trainer of transformers with an unlearning method as its loss."""

import copy
import math

import pytest
import torch

import unlearnkit as uk
from tests.language.tiny import questions, tokenizer, trained, transformers
from unlearnkit.core.errors import InputError, UnsupportedError

pytest.importorskip("accelerate", reason="accelerate is not installed")
peft = pytest.importorskip("peft", reason="peft is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning"),
]


def trainer(tmp_path, model=None, steps=6, lr=3e-3, checkpointing=False, **settings):
    from unlearnkit.hf import UnlearnTrainer

    more = {"activation_checkpointing": True} if checkpointing else {}
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=steps, learning_rate=lr, report_to=[],
        per_device_train_batch_size=2, use_cpu=True, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant", logging_strategy="no", **more,
    )  # fmt: skip
    usual = {
        "forget_dataset": questions(["anna"]),
        "retain_dataset": questions()[2:],
        "processing_class": tokenizer(),
    }
    return UnlearnTrainer(
        copy.deepcopy(trained()[1]) if model is None else model, args, **(usual | settings)
    )


def losses(model, rows):
    case = uk.Case(train=rows, task="causal_lm", processing_class=tokenizer())
    with torch.no_grad():
        return model.eval()(**case.train.x, labels=case.train.y).loss.item()


def test_it_forgets_and_evaluates_with_the_model_s_own_loss(tmp_path):
    held = questions(["otto", "paul"])
    t = trainer(tmp_path, eval_dataset=held)
    before = losses(t.model, questions(["anna"]))
    t.train()
    assert losses(t.model, questions(["anna"])) > before + 0.1
    assert t.evaluate()["eval_loss"] == pytest.approx(losses(t.model, held), rel=1e-4)


def test_the_first_loss_is_npo_at_the_reference_and_the_retain_loss(tmp_path):
    t = trainer(tmp_path, method=uk.method("npo", beta=0.2, retain_weight=0.5))
    t.model.eval()
    inputs = next(iter(t.get_train_dataloader()))
    total, terms = t.compute_loss(t.model, inputs, return_outputs=True)
    assert terms["forget"].item() == pytest.approx(2 / 0.2 * math.log(2), rel=1e-5)
    kept = inputs["retain"]
    own = t.model(
        input_ids=kept["input_ids"], attention_mask=kept["attention_mask"], labels=kept["labels"]
    ).loss
    assert terms["retain"].item() == pytest.approx(own.item(), rel=1e-5)
    assert total.item() == pytest.approx((terms["forget"] + 0.5 * own).item(), rel=1e-5)


def test_with_an_adapter_the_base_stays(tmp_path):
    t = trainer(tmp_path, peft_config=peft.LoraConfig(r=4), steps=3, lr=1e-2)
    before = {n: p.clone() for n, p in t.model.named_parameters() if not p.requires_grad}
    t.train()
    named = dict(t.model.named_parameters())
    assert before
    assert all(torch.equal(p, named[n]) for n, p in before.items())
    assert any(p.requires_grad and bool(p.any()) for n, p in named.items() if "lora_B" in n)


def test_adapters_are_trained_under_gradient_checkpointing(tmp_path):
    config = peft.LoraConfig(r=4)
    t = trainer(tmp_path, peft_config=config, steps=1, lr=1e-2, checkpointing=True)
    t.train()
    assert any(bool(p.any()) for n, p in t.model.named_parameters() if "lora_B" in n)


@pytest.mark.parametrize("method", ["finetune", "task_vector"])
def test_a_method_that_is_no_loss_is_refused(tmp_path, method):
    with pytest.raises(UnsupportedError, match="is no loss of a language model"):
        trainer(tmp_path, method=method)


def test_both_sets_are_needed(tmp_path):
    with pytest.raises(InputError, match="retain_dataset: give the rows"):
        trainer(tmp_path, retain_dataset=None)
