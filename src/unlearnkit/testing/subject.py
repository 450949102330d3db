"""Toy problems and trained models that the contract is checked on."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlearnkit import catalog
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError, UnlearnkitError
from unlearnkit.core.method import Method, Need, Problem
from unlearnkit.core.module_state import tensors
from unlearnkit.core.precision import Precision
from unlearnkit.core.request import Classes, ForgetRequest, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.testing.toy_cases import toy_case
from unlearnkit.train.loop import fit
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.unlearning.run_method import Unlearned, fresh_model, run_method

Inside = Callable[[Problem, Runtime], AbstractContextManager[object]]
"""What is done around a method's ``apply``, where its problem can be seen."""


class ContractError(UnlearnkitError, AssertionError):
    """A method or a metric does not keep its contract."""


def expect(holds: bool, sentence: str) -> None:
    """Raise a ``ContractError`` with the sentence if something does not hold."""
    if not holds:
        raise ContractError(sentence)


@dataclass(frozen=True)
class ToyProblem:
    """A method on a task's toy problem."""

    method: type[Method]
    task: str
    device: str = "cpu"

    @cached_property
    def case(self) -> Case:
        """Return the toy problem: the same rows at each access."""
        return toy(self.task)

    @property
    def request(self) -> ForgetRequest:
        """Return the request: 11 of 60 rows, so that batches of 16 leave one retained row over."""
        return self.asking(Rows(*range(11)))

    def asking(self, request: ForgetRequest) -> ForgetRequest:
        """Return a request of this size that the method serves: a class, where it needs classes."""
        if Need.CLASSES not in self.method.info.needs or isinstance(request, Classes):
            return request
        return Classes(len(getattr(request, request.kind)) % 3)

    def model(self) -> nn.Module:
        """Return a trained model, new at each call, always with the same weights."""
        return trained_model(self.case, self.task)

    def smoke(self) -> Method:
        """Return the method at its smoke settings."""
        return self.method.build(**self.method.info.smoke)

    def rt(self, *, seed: int = 0, precision: Precision = "fp32") -> Runtime:
        """Return a runtime on the subject's device."""
        return Runtime.on(self.device, seed=seed, precision=precision)

    def run(
        self,
        model: nn.Module | None = None,
        *,
        case: Case | None = None,
        request: ForgetRequest | None = None,
        method: Method | None = None,
        rt: Runtime | None = None,
    ) -> Unlearned:
        """Return what the method makes of a model; what is not given is the toy's."""
        where = case or self.case
        target = None if where.parts is not None else self.asking(request or self.request)
        return run_method(
            self.model() if model is None else model,
            where,
            target,
            method or self.smoke(),
            rt or self.rt(),
        )


def toy(name: str) -> Case:
    """Return the toy problem of a task.

    Raises:
        ContractError: If the task is fitted to none of the usual kinds of targets.
    """
    kind = catalog.tasks()[name]
    for y in (
        torch.arange(12) % 3,
        torch.eye(3).repeat(4, 1),
        torch.linspace(-1, 1, 24).view(12, 2),
        torch.arange(36).view(12, 3) % 5,
    ):
        try:
            task: Task = kind.infer(TensorData(torch.zeros(12, 1), y))
        except InputError:
            continue
        return toy_case(task)
    raise ContractError(f"{name}: no toy: the task takes neither classes, labels nor real targets")


def trained_model(case: Case, key: str) -> nn.Module:
    """Return a trained model, new at each call; its weights are trained once for a key."""
    model = fresh_model(case, Runtime())
    if key not in _weights():
        rt = Runtime()
        assert case.train is not None
        assert case.recipe is not None
        with seeded_global_rngs(rt, "contract"):
            fit(model, View.all(case.train), case.task, case.recipe, rt, stream="contract")
        _weights()[key] = {n: t.detach().clone() for n, t in model.state_dict().items()}
    model.load_state_dict(_weights()[key])
    return model


@cache
def _weights() -> dict[str, dict[str, Tensor]]:
    return {}


def with_inputs(case: Case, change: Callable[[Tensor], Any]) -> Case:
    """Return a case whose in-memory inputs ``(n, D)`` are changed in every set."""
    sets = {
        name: replace(data, x=change(data.x))
        for name in ("train", "test", "validation", "held_out")
        if isinstance(data := getattr(case, name), TensorData) and isinstance(data.x, Tensor)
    }
    return case.replace(**sets)


def with_probe(method: Method, inside: Inside) -> Method:
    """Return the same method, on no list, whose ``apply`` runs within ``inside(problem, rt)``."""

    class Probe(type(method)):  # type: ignore[misc]  # the base is known only now
        """The method, watched."""

        def apply(self, p: Problem, rt: Runtime) -> nn.Module:
            """Run the method in the context."""
            with inside(p, rt):
                out: nn.Module = super().apply(p, rt)
            return out

    probe: Method = Probe.model_construct(
        **{name: getattr(method, name) for name in type(method).model_fields}
    )
    return probe


def bits(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer, on the CPU."""
    return {name: t.detach().cpu().clone() for name, t in tensors(model).items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Return whether two models' tensors are the same: names, types and values."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


def generators() -> tuple[Any, ...]:
    """Return the states of all global generators, comparable."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002, TID251  # the global one
    assert isinstance(keys, np.ndarray)
    torches = [torch.get_rng_state()]
    if torch.cuda.is_available():
        torches += torch.cuda.get_rng_state_all()
    return (
        tuple(bytes(s.numpy()) for s in torches),
        (kind, keys.tobytes(), *rest),
        random.getstate(),
    )


def disturb() -> None:
    """Move all global generators, as other code would."""
    torch.rand(7)
    random.random()
    np.random.rand(7)  # noqa: NPY002, TID251  # the global one
