"""UNSIR against a plain transcription of it: noise class by class, a list of tensors."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import Fact, against
from benchmarks.problems import images
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.unsir import Noise, Unsir
from unlearnkit.unlearning.run_method import fresh_model, run_method

GOAL = 0.5
MANY = 1.3
RATES = {"optimizer": "adam", "batch_size": 64}
METHOD = Unsir(
    batch_norm="keep",
    retain_rows=100,
    copies=16,
    least=0,
    noise=Noise(rows=16, each="class", steps=40, penalty=6.4, unit="one"),
    impair=FineTuneSchedule.exact(lr=0.002, **RATES),
    repair=FineTuneSchedule.exact(lr=0.001, **RATES),
)


def run() -> Iterator[Fact]:
    """Yield the ratio to the transcription for equal results, and what many classes cost."""
    yield compare(digits(), (0, 2, 4, 6, 8), pairs=11, goal=GOAL)
    yield compare(images(1000), (0, 2, 4, 6, 8), pairs=3)
    yield from many(digits(), pairs=15)


def compare(case: Case, gone: tuple[int, ...], *, pairs: int, goal: float | None = None) -> Fact:
    """Return the method's time over the transcription's, for equal weights at the end."""
    model = fresh_model(case, Runtime())

    def ours(start: nn.Module, rows: Case) -> nn.Module:
        return run_method(start, rows, Classes(*gone), METHOD).model

    def theirs(start: nn.Module, rows: Case) -> nn.Module:
        return plain(start, rows, gone)

    # Adam makes steps out of rounding, so that only float64 tells whether two do the same.
    wide, twin = doubled(case), copy.deepcopy(model).double()
    a, b = ours(twin, wide).state_dict(), theirs(twin, wide).state_dict()
    for name, t in a.items():
        torch.testing.assert_close(t, b[name], rtol=1e-5, atol=1e-6)
    return against(
        f"unsir against a plain transcription: {case.name}, {len(gone)} classes",
        lambda: ours(model, case),
        lambda: theirs(model, case),
        pairs=pairs,
        goal=goal,
        how="16 noise inputs a class, 40 steps, 16 copies; in float64 weights equal to 1e-5",
    )


def doubled(case: Case) -> Case:
    """Return a case whose training rows are in float64."""
    x, y = case.train.x, case.train.y  # type: ignore[union-attr]  # in memory
    return case.replace(train=TensorData(x.double(), y))


def many(case: Case, *, pairs: int) -> Iterator[Fact]:
    """Yield what nine classes of ten cost at the defaults, over what one costs."""
    model = fresh_model(case, Runtime())

    def rows(*gone: int) -> int:
        return run_method(model, case, Classes(*gone), "unsir").cost.backward

    what = f"unsir, nine classes against one: {case.name}"
    yield Fact(f"rows backward of {what}", rows(*range(9)) / rows(9), goal=MANY, how="defaults")
    yield against(
        f"seconds of {what}",
        lambda: rows(*range(9)),
        lambda: rows(9),
        pairs=pairs,
        goal=MANY,
        how="defaults",
    )


def plain(model: nn.Module, case: Case, gone: tuple[int, ...]) -> nn.Module:
    """Follow the paper's three steps as one writes them down, in the order that the method draws.

    Args:
        model: The trained model.
        case: Its rows, in memory.
        gone: Classes that go.

    Returns:
        The unlearned copy.
    """
    rt, noise = Runtime(), METHOD.noise
    model = copy.deepcopy(model)
    x, y = case.train.x, case.train.y  # type: ignore[union-attr]  # in memory
    kept = chosen(y, gone, rt)
    shape = (len(gone) * noise.rows, *x.shape[1:])
    drawn = torch.randn(shape, generator=rt.rng("unsir/noise"), dtype=x.dtype)
    items: list[tuple[Tensor, int]] = [(x[i], int(y[i])) for i in kept]
    made: list[tuple[Tensor, int]] = []
    model.eval()
    for k, c in enumerate(gone):
        learned = drawn[k * noise.rows : (k + 1) * noise.rows].clone().requires_grad_()
        labels = torch.full((noise.rows,), c)
        opt = torch.optim.Adam([learned], lr=noise.recipe.lr)
        for _ in range(noise.steps):
            size = learned.flatten(1).square().sum(1).mean() / learned[0].numel()
            loss = -functional.cross_entropy(model(learned), labels) + noise.penalty * size
            opt.zero_grad()
            loss.backward()
            opt.step()
        made += [(one.detach(), c) for one in learned]
    copies = METHOD.copies or 0
    dirty = items + [pair for _ in range(copies) for pair in made]
    order = torch.randperm(copies * len(made), generator=rt.rng("unsir/copies")) % len(made)
    share = len(order) / len(items)
    size = round(64 / (1 + share))
    kept_order = torch.randperm(len(items), generator=rt.rng("unsir/impair/0")).split(size)
    pieces = order.tensor_split(len(kept_order))
    mixed = [
        a.tolist() + (len(items) + b).tolist() for a, b in zip(kept_order, pieces, strict=True)
    ]
    train(model, dirty, mixed, 0.002)
    last = torch.randperm(len(items), generator=rt.rng("unsir/repair/0")).split(64)
    train(model, items, [part.tolist() for part in last], 0.001)
    return model


def chosen(y: Tensor, gone: tuple[int, ...], rt: Runtime) -> list[int]:
    """Return up to 100 positions of each class that stays, in the order of the method's draw."""
    stay = [i for i, c in enumerate(y.tolist()) if c not in gone]
    count: dict[int, int] = {}
    out = []
    for k in torch.randperm(len(stay), generator=rt.rng("unsir/retain")).tolist():
        c = int(y[stay[k]])
        count[c] = count.get(c, 0) + 1
        if count[c] <= METHOD.retain_rows:
            out.append(stay[k])
    return sorted(out)


def train(
    model: nn.Module, items: list[tuple[Tensor, int]], batches: list[list[int]], lr: float
) -> None:
    """Take a step of Adam on each batch of a list of pairs."""
    model.train()
    opt = torch.optim.Adam(model.parameters(), lr=lr)
    for batch in batches:
        x = torch.stack([items[i][0] for i in batch])
        labels = torch.tensor([items[i][1] for i in batch])
        loss = functional.cross_entropy(model(x), labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
