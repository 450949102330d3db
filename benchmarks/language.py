"""Language models: NPO against the plain two-model step, and an adapter's memory."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import Fact, against
from benchmarks.memory import peak
from unlearnkit.core.case import Case
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.npo import NegativePreference
from unlearnkit.tasks.causal_lm import CausalLM
from unlearnkit.train.early_stopping import OFF
from unlearnkit.unlearning.run_method import run_method

FASTER, SMALLER = 1 / 1.4, 0.6
"""Largest ratios of time and of memory that are good enough."""

VOCABULARY, PROMPT, ANSWER, EPOCHS = 8192, 40, 16, 3


def run() -> Iterator[Fact]:
    """Yield the ratio of times, with and without a retain term, and that of peak memory."""
    yield compare(0.0)
    yield compare(1.0)
    full, adapter = (child(kind) for kind in ("full", "adapter"))
    how = f"GPT-2 of 38 million weights, AdamW: {adapter:.2f} GB against {full:.2f} GB"
    yield Fact(
        "memory above the given model, adapter against all weights", adapter / full,
        goal=SMALLER, how=how,
    )  # fmt: skip


def gpt2(width: int, layers: int) -> nn.Module:
    """Return an untrained GPT-2 without dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model: nn.Module = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=PROMPT + ANSWER, n_embd=width, n_layer=layers,
            n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip
    return model


def questions(count: int) -> Case:
    """Return random prompts with random answers."""
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (count, PROMPT + ANSWER), generator=rng)
    labels = ids.clone()
    labels[:, :PROMPT] = -100
    x = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    recipe = Recipe(optimizer="adamw", lr=1e-4, epochs=EPOCHS, batch_size=8)
    return Case(train=(x, labels), task=CausalLM(VOCABULARY), recipe=recipe, name="questions")


def compare(retain_weight: float) -> Fact:
    """Return our time over that of a step that runs the original as well, for equal losses."""
    case, model = questions(64), gpt2(128, 2).eval()
    method = NegativePreference(retain_weight=retain_weight, guard=OFF)
    parts = case.partition(Rows(*range(24)))

    def ours() -> nn.Module:
        assert parts.forget is not None
        assert parts.retain is not None
        assert case.recipe is not None
        problem = Problem(
            model=copy.deepcopy(model),
            original=model,
            task=case.task,
            forget=parts.forget,
            retain=parts.retain,
            validation=None,
            recipe=case.recipe,
        )
        return method.apply(problem, Runtime())

    def theirs() -> nn.Module:
        return plain(model, case, retain_weight, method)

    a, b = ours().state_dict(), theirs().state_dict()
    for name, t in a.items():
        torch.testing.assert_close(t, b[name], rtol=1e-3, atol=1e-5)
    return against(
        f"npo against two models a step: {'with' if retain_weight else 'without'} retain term",
        ours,
        theirs,
        pairs=3,
        goal=FASTER,
        how=(
            f"GPT-2 of 2 blocks, width 128, {VOCABULARY} tokens; prompts of {PROMPT} tokens,"
            f" answers of {ANSWER}; {EPOCHS} epochs; weights equal at the end; processor time"
        ),
        clock=time.process_time,
    )


def plain(model: nn.Module, case: Case, retain_weight: float, how: NegativePreference) -> nn.Module:
    """Train as published: both models see every batch, and all their logits are computed."""
    rt, data = Runtime(), case.train
    assert data is not None
    parts = case.partition(Rows(*range(24)))
    assert parts.forget is not None
    assert parts.retain is not None
    reference, student = model, copy.deepcopy(model).train()
    assert case.recipe is not None
    recipe = how.run.resolve(case.recipe)
    assert recipe is not None
    opt = recipe.build(list(student.parameters()))
    drawn = parts.retain.endless_batches(recipe.batch_size, rt, shuffle="npo/retain")

    def sums(net: nn.Module, x: dict[str, Tensor], y: Tensor) -> Tensor:
        z = net(**x).logits[:, :-1].transpose(1, 2)
        return functional.cross_entropy(z, y[:, 1:], reduction="none").sum(1)

    for epoch in range(recipe.epochs):
        for batch in parts.forget.batches(recipe.batch_size, rt, shuffle=f"npo/forget/{epoch}"):
            assert isinstance(batch.x, dict)
            with torch.no_grad():
                kept = sums(reference, batch.x, batch.y)
            gap = sums(student, batch.x, batch.y) - kept
            loss = -2 / how.beta * functional.logsigmoid(how.beta * gap).mean()
            if retain_weight:
                keep = next(drawn)
                assert isinstance(keep.x, dict)
                loss = loss + retain_weight * student(**keep.x, labels=keep.y).loss
            opt.zero_grad()
            loss.backward()
            opt.step()
    return student


def child(kind: str) -> float:
    """Return the most that a process of its own holds above the given model, in GB."""
    command = [sys.executable, "-m", "benchmarks.language", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def held(kind: str) -> float:
    """Return the peak of a run above what the process held with the given model, in GB."""
    torch.set_num_threads(1)
    case, model = questions(8), gpt2(512, 11)
    settings = {"peft_config": {"r": 8}} if kind == "adapter" else {}
    method = NegativePreference.build(guard=OFF.model_dump(), **settings)
    if settings:
        import peft  # noqa: F401  # what it takes to import is no memory of the run
    before = peak()
    run_method(model, case, Rows(0, 1), method)
    return (peak() - before) / 1e9


if __name__ == "__main__":
    print(json.dumps(held(sys.argv[1])))
