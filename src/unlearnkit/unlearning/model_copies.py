"""Copies of models: their own memory, or a base that is shared under an adapter."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Method
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.wrapped_models import check_module
from unlearnkit.language.adapters import adapter_note, add_adapter
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.unlearning.result_checks import restore_form


def copy_model(model: nn.Module, *, shared: Iterable[nn.Parameter] = ()) -> nn.Module:
    """Return a copy; the given parameters are frozen in it and share their memory with it."""
    plain = (p for p in shared if type(p) is nn.Parameter)
    own: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in plain}
    try:
        return copy.deepcopy(model, own)
    except (RuntimeError, TypeError) as e:
        message = str(e).splitlines()[0]
        raise InputError(f"model: cannot be copied: {message}; detach what it keeps") from e


def with_adapter(model: nn.Module, how: Method, rt: Runtime) -> nn.Module:
    """Return a model with a new adapter, where a method asks for one; weights are shared."""
    settings = getattr(how, "peft_config", None)
    if settings is None:
        return model
    check_module(model)
    with seeded_global_rngs(rt, "adapter"):
        adapted = add_adapter(copy_model(model, shared=model.parameters()), settings)
    rt.note(adapter_note(adapted))
    return adapted.train(model.training)


def original_as_given(original: nn.Module, model: nn.Module, given: nn.Module) -> nn.Module:
    """Return the given model as it was, frozen: without an adapter that the run added."""
    kept = (
        copy_model(original)
        if given is model
        else copy_model(given).to(next(original.parameters()).device)
    )
    return restore_form(kept, given).eval().requires_grad_(False)


def frozen_base(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the weights of an adapter's base, which a run shares with the given model."""
    if hasattr(model, "peft_config"):
        yield from (p for p in model.parameters() if not p.requires_grad)


def with_own_base(model: nn.Module) -> nn.Module:
    """Return a model whose adapter's base is its own: to merge adapters changes it in place."""
    for p in frozen_base(model):
        p.data = p.detach().clone(memory_format=torch.preserve_format)
    return model
