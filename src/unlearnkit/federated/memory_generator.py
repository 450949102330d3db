"""Memory generator: targets without knowledge for the rows that a client forgets."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from unlearnkit.core.data import Batch, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import predict
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.teachers import untrained_teacher

Targets = Literal["teacher_soft", "teacher_hard", "uniform", "random_label", "second_best"]


def teacher_mean(
    model: nn.Module, view: View, task: Task, rt: Runtime, *, teachers: int, stream: str
) -> Tensor:
    """Return the mean prediction of untrained teachers on each row ``(n, C)``; rows sum to 1.

    Args:
        model: Gives the architecture.
        view: The n rows; no target is read.
        task: With exclusive outcomes.
        rt: Seed, device, cost.
        teachers: How many (paper: Q).
        stream: First part of the names of random streams, one a teacher.

    Returns:
        Probabilities in float64, in the order of the view.

    Raises:
        InputError: If the task has no exclusive outcomes.
    """
    total = None
    for q in range(teachers):
        teacher = untrained_teacher(model, rt, f"{stream}/teacher/{q}")
        logp = task.log_probs(predict(teacher, view, task, rt))
        if logp is None:
            raise InputError(f"memory generator: {task.name} has no classes; use a classification")
        probs = logp.double().exp()
        total = probs if total is None else total + probs
    if total is None:
        raise InputError("memory generator: at least one teacher is needed")
    return total / total.sum(1, keepdim=True)


def debias(q: Tensor, label: Tensor, strength: float = math.inf) -> Tensor:
    """Return probabilities moved away from the label to forget: ``q_t / (1 + kappa q_t)``.

    Args:
        q: Probabilities ``(n, C)``.
        label: The label to forget of each row ``(n,)``.
        strength: kappa; 0 leaves all as it is, infinity sets the label's probability to 0.

    Returns:
        Probabilities ``(n, C)`` that sum to 1. Where nothing else is left, the other classes share
        equally.
    """
    rows = torch.arange(len(q), device=q.device)
    out, own = q.clone(), q[rows, label]
    out[rows, label] = 0.0 if math.isinf(strength) else own / (1 + strength * own)
    empty = out.sum(1) <= 0
    out[empty] = 1.0
    out[rows[empty], label[empty]] = 0.0
    return out / out.sum(1, keepdim=True)


def memory_targets(
    kind: Targets,
    model: nn.Module,
    original: nn.Module,
    view: View,
    task: Task,
    rt: Runtime,
    *,
    teachers: int,
    strength: float,
    stream: str,
) -> Tensor:
    """Return the soft target of each row ``(n, C)``, in the order of the view.

    Args:
        kind: ``teacher_soft``: the debiased mean of untrained teachers. ``teacher_hard``: its
            largest class. ``uniform``: the same for all classes. ``random_label``: a wrong class,
            drawn. ``second_best``: the original model's likeliest wrong class.
        model: Gives the teachers' architecture.
        original: The trained model.
        view: The n forget rows, with the labels to forget.
        task: A classification.
        rt: Seed, device, cost.
        teachers: How many.
        strength: Of the debiasing, see ``debias``.
        stream: First part of the names of random streams.

    Returns:
        Probabilities in float64.

    Raises:
        InputError: If the task has no classes.
    """
    label = view.y.to(rt.device)
    if kind in {"teacher_soft", "teacher_hard"}:
        mean = teacher_mean(model, view, task, rt, teachers=teachers, stream=stream)
        q = debias(mean.to(rt.device), label, strength)
        return q if kind == "teacher_soft" else _one_hot(q.argmax(1), q.shape[1])
    logp = task.log_probs(predict(original, view, task, rt))
    if logp is None:
        raise InputError(f"memory generator: {task.name} has no classes; use a classification")
    classes = logp.shape[1]
    if kind == "uniform":
        return torch.full((len(view), classes), 1 / classes, dtype=torch.float64).to(rt.device)
    if kind == "random_label":
        batch = Batch.of_targets(label.cpu(), view.rows)
        wrong = task.wrong(batch, rt.rng(f"{stream}/wrong")).y.to(rt.device)
        return _one_hot(wrong, classes)
    return _one_hot(debias(logp.double().exp().to(rt.device), label).argmax(1), classes)


def _one_hot(label: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(label, classes).double()
