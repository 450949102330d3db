"""Gated transfer, beside a plain transcription of its published loop."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import Fact, against
from unlearnkit.catalog import methods
from unlearnkit.core.case import Case
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.data_free.generator import generator
from unlearnkit.unlearning.run_method import fresh_model, run_method

BATCHES = 5
GOAL = 0.5
SETTINGS = {
    "gate": "sample",
    "threshold": 1.0,
    "attention": 0.0,
    "average": 0.0,
    "schedule": "constant",
    "student_lr": 1e-3,
    "leak": float("inf"),
    "batches": BATCHES,
}


def network() -> nn.Module:
    """Return an untrained convolutional network for 8x8 images."""
    layers: list[nn.Module] = []
    for before, stride in ((1, 1), (16, 2), (16, 1), (16, 2)):
        layers += [nn.Conv2d(before, 16, 3, stride, 1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def perceptron() -> nn.Module:
    """Return an untrained perceptron for vectors of 64 numbers."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def run() -> Iterator[Fact]:
    """Yield our wall time over the transcription's, and how far apart the students are."""
    for name, build, shape in (
        ("convolutional network, 8x8", network, (1, 8, 8)),
        ("perceptron, 64 inputs", perceptron, (64,)),
    ):
        case = Case.without_data(task=Classification(10), input_shape=shape, fresh=build)
        teacher = fresh_model(case, Runtime(seed=1)).eval()
        how = methods()["gated_transfer"].build(**SETTINGS)

        def ours(case: Case = case, teacher: nn.Module = teacher, how: object = how) -> nn.Module:
            return run_method(teacher, case, Classes(3), how).model

        def theirs(case: Case = case, teacher: nn.Module = teacher) -> nn.Module:
            return plain(teacher, case)

        how_told = f"{BATCHES} pseudo-batches of 128, 10 student steps each"
        yield against(
            f"gated_transfer against a plain transcription: {name}",
            ours,
            theirs,
            pairs=3,
            goal=GOAL,
            how=how_told,
        )
        pairs = zip(ours().parameters(), theirs().parameters(), strict=True)
        gap = max(float((a - b).detach().abs().max()) for a, b in pairs)
        yield Fact(f"largest difference of a student's weight: {name}", gap, "", how=how_told)


def plain(teacher: nn.Module, case: Case) -> nn.Module:
    """Return a student taught by the published loop: everything anew at every step."""
    rt = Runtime()
    assert case.input_shape is not None
    student = fresh_model(case, rt).train()
    made = generator(case.input_shape, rt, "gated_transfer/generator")
    opt_g = torch.optim.Adam(made.parameters(), lr=1e-3)
    opt_s = torch.optim.Adam(student.parameters(), lr=1e-3)
    for k in range(BATCHES):
        z = torch.randn(128, 128, generator=rt.rng(f"gated_transfer/numbers/0/{k}"))
        for step in range(11):
            x = made(z)
            with torch.set_grad_enabled(step == 0):
                out = teacher(x)
            keep = out.softmax(-1)[:, 3] <= 1.0
            loss = distance(student(x[keep]), out[keep])
            opt, params = (opt_s, student) if step else (opt_g, made)
            opt.zero_grad()
            (loss if step else -loss).backward()
            nn.utils.clip_grad_norm_(params.parameters(), 5.0)
            opt.step()
    return student


def distance(out: Tensor, goal: Tensor) -> Tensor:
    """Return the divergence as published: the mean over rows and classes."""
    total = functional.kl_div(out.log_softmax(-1), goal.softmax(-1), reduction="sum")
    return total / out.numel()
