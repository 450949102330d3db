"""SCRUB, SSD, SalUn and DEL against plain loops of the published algorithms, at equal work."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.measure import Fact, against
from benchmarks.plain_loops import Loops, RowPasses, Settings
from benchmarks.problems import images
from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.method import Method
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.request import Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.localize.localizer import Localizer
from unlearnkit.methods.del_localized import DelLocalized
from unlearnkit.methods.salun import SalUn
from unlearnkit.methods.scrub import Scrub
from unlearnkit.methods.ssd import SSD
from unlearnkit.train.loop import fit
from unlearnkit.train.teachers import untrained_teacher
from unlearnkit.unlearning.run_method import fresh_model, run_method

GOAL = 1 / 1.2
"""Largest share of the loop's processor time that is good enough: 1.2 times as fast."""

NEAR = 1e-6
"""Largest distance of a tensor from the loop's in float64, as a share of its norm."""


@dataclass(frozen=True)
class Problem:
    """A trained model, its case, and settings that suit both sides."""

    case: Case
    model: nn.Module
    settings: Settings
    drop: Tensor
    keep: Tensor

    @classmethod
    def make(cls, case: Case, settings: Settings) -> "Problem":
        """Train a model for an epoch; the first tenth of the rows is to be forgotten.

        Validation and test rows are left out: where a case has some, our driver reads them with
        both models after the run, to note a loss of utility, and the loops evaluate nothing.
        """
        case = case.replace(validation=None, test=None)
        assert isinstance(case.train, TensorData)
        count, rt = len(case.train), Runtime()
        model = fresh_model(case, rt)
        recipe = Recipe(lr=0.05, momentum=0.9, epochs=1, batch_size=64)
        fit(model, View.all(case.train), case.task, recipe, rt, stream="first")
        return cls(
            case, model, settings, torch.arange(count // 10), torch.arange(count // 10, count)
        )

    def double(self) -> "Problem":
        """Return the same in float64."""
        assert isinstance(self.case.train, TensorData)
        x, y = self.case.train.x, self.case.train.y
        assert isinstance(x, Tensor)
        twin = fresh_model(self.case, Runtime()).double()
        twin.load_state_dict(self.model.state_dict())
        wide = self.case.replace(train=TensorData(x.double(), y))
        return replace(self, case=wide, model=twin)

    def loops(self, *, drawn_alike: bool = False) -> Loops:
        """Return the plain loops; where asked for, with the labels and weights that ours draws."""
        data, rt, task = self.case.train, Runtime(), self.case.task
        assert isinstance(data, TensorData)
        assert isinstance(data.x, Tensor)
        loops = Loops(data.x, data.y, self.drop, self.keep, self.settings)
        if not drawn_alike:
            return loops
        rng = rt.rng("relabel/targets")

        def wrong(y: Tensor) -> Tensor:
            return task.wrong(Batch.of_targets(y, torch.arange(len(y))), rng).y

        def untrained(model: nn.Module) -> nn.Module:
            return untrained_teacher(model, rt, "del_localized/reset")

        return replace(loops, wrong=wrong, untrained=untrained)

    def ours(self, method: Method) -> tuple[nn.Module, RowPasses]:
        """Return what the library makes of the model, and the row passes that it counted."""
        done = run_method(self.model, self.case, Rows(self.drop.tolist()), method)
        return done.model, RowPasses(done.cost.backward, done.cost.forward - done.cost.backward)

    def theirs(self, name: str) -> tuple[nn.Module, RowPasses]:
        """Return what a plain loop makes of the model, and the row passes seen by hooks."""
        passes = RowPasses(0, 0)

        def count(_: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            if out.requires_grad:
                passes.backward += len(args[0])
            else:
                passes.read += len(args[0])

        hook = self.model.register_forward_hook(count)
        try:
            model: nn.Module = getattr(self.loops(drawn_alike=True), name)(self.model)
        finally:
            hook.remove()
        return model, passes


def run() -> Iterator[Fact]:
    """Yield the ratio of processor times, one thread, of each method on two problems."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        small = Problem.make(digits(), Settings())
        large = Problem.make(images(1024), Settings(epochs=3, forget_epochs=2, decay_after=2))
        for problem, pairs in ((small, 31), (large, 5)):
            for name in METHODS:
                yield compare(problem, name, pairs=pairs)
    finally:
        torch.set_num_threads(threads)


def compare(problem: Problem, name: str, *, pairs: int) -> Fact:
    """Return our processor time over the plain loop's, once both are seen to do the same.

    Args:
        problem: What both work on.
        name: Of the comparison, as in ``METHODS``.
        pairs: Repetitions of each.

    Returns:
        The ratio. Where row passes or results differ, an assertion fails instead.
    """
    loop, make = METHODS[name]
    method = make(problem.settings)
    passes, apart = checked(problem, name)
    fast: Callable[[nn.Module], nn.Module] = getattr(problem.loops(), loop)
    request = Rows(problem.drop.tolist())
    fact = against(
        f"{name} against a plain loop: {problem.case.name}",
        lambda: run_method(problem.model, problem.case, request, method),
        lambda: fast(problem.model),
        pairs=pairs,
        goal=GOAL,
        how=f"{passes}; weights in float64 equal to {apart:.0e} of a tensor's norm; processor time",
        clock=time.process_time,
    )
    assert fact.value is not None
    return replace(fact, how=f"{1 / fact.value:.2f} times as fast; {fact.how}")


def checked(problem: Problem, name: str, *, method: Method | None = None) -> tuple[str, float]:
    """Return the row passes in words, and how far apart both ends are in float64.

    Both must make equally many passes, and read equally many rows besides; but ours asks SCRUB's
    teacher once a row, and DEL's model for one row more, to see which layer is its head.

    Args:
        problem: What both work on.
        name: Of the comparison, as in ``METHODS``.
        method: Ours; that of the problem's settings when None.

    Returns:
        Both. Where passes or results differ, an assertion fails instead.
    """
    loop, make = METHODS[name]
    wide, how = problem.double(), method or make(problem.settings)
    (a, mine), (b, other) = wide.ours(how), wide.theirs(loop)
    assert mine.backward == other.backward, (name, mine, other)
    fewest = {"scrub": len(problem.drop) + len(problem.keep), "del_localized": 1}
    assert mine.read == fewest.get(name, other.read), (name, mine, other)
    words = f"{mine.backward} rows forward and backward"
    if mine.read or other.read:
        words += f", {mine.read} rows read besides against {other.read}"
    return words, apart(a, b)


def apart(a: nn.Module, b: nn.Module) -> float:
    """Return the largest distance of two models' tensors, as a share of the norm of the first's."""
    other, most = b.state_dict(), 0.0
    for name, t in a.state_dict().items():
        gap = float((t.double() - other[name].double()).norm() / t.double().norm().clamp(min=1e-12))
        assert gap <= NEAR, (name, gap)
        most = max(most, gap)
    return most


def _schedule(s: Settings, **more: object) -> FineTuneSchedule:
    return FineTuneSchedule.exact(
        lr=s.lr,
        momentum=s.momentum,
        weight_decay=s.weight_decay,
        epochs=s.epochs,
        batch_size=s.batch_size,
        **more,
    )


def _scrub(s: Settings, augment: object = "none") -> Scrub:
    return Scrub(
        batch_norm="keep",
        retain_loss=s.retain_loss,
        retain_divergence=s.retain_divergence,
        temperature=s.temperature,
        early=s.forget_epochs / s.epochs,
        cap=float("inf"),
        nudge=0.0,
        run=_schedule(s, schedule="step", step_epochs=s.decay_after, augment=augment),
    )


def _as_they_are(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return inputs as they are; a run with a transform asks its teacher at each step."""
    del rng
    return x


def _ssd(s: Settings) -> SSD:
    return SSD(
        batch_norm="keep",
        selection=s.selection,
        dampening=s.dampening,
        unit="batch",
        batches="mixed",
        batch_size=s.batch_size,
        rows=None,
    )


def _salun(s: Settings) -> SalUn:
    return SalUn(
        batch_norm="keep",
        mask=Localizer(
            budget=s.salient, criterion="grad", granularity="parameter", batch_size=s.batch_size
        ),
        targets="uniform",
        passes="in turn",
        early=1.0,
        run=_schedule(s),
    )


def _del(s: Settings) -> DelLocalized:
    return DelLocalized(
        batch_norm="keep",
        mask=Localizer(
            budget=s.critical,
            criterion="weighted_grad",
            granularity="parameter",
            batch_size=s.batch_size,
        ),
        reset="fresh",
        run=_schedule(s),
    )


METHODS: dict[str, tuple[str, Callable[[Settings], Method]]] = {
    "scrub": ("scrub", _scrub),
    "scrub, both with a teacher at each step": ("scrub", lambda s: _scrub(s, _as_they_are)),
    "ssd": ("ssd", _ssd),
    "salun": ("salun", _salun),
    "del_localized": ("localized", _del),
}
"""By name: the plain loop, and the method with the same settings."""
