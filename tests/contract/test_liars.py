"""Each check goes red: methods that break the contract on purpose, on no list."""

import random
import time
from typing import Annotated, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import nn

from unlearnkit.core.errors import UnlearnkitError
from unlearnkit.core.method import Info, Method, Need, Problem
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.testing import check_method
from unlearnkit.testing.methods import METHOD_CHECKS
from unlearnkit.testing.subject import ToyProblem
from unlearnkit.testing.zoo import AWKWARD_MODELS
from unlearnkit.train.loop import descend, fit

BOTH = frozenset({Need.FORGET, Need.RETAIN, Need.LABELS})


class Honest(Method):
    """Train on the kept rows: what every liar below is made of."""

    id: ClassVar[str] = "liar"
    info: ClassVar[Info] = Info(
        title="A liar", cite="nobody", needs=BOTH, tasks=frozenset({"classification"})
    )

    recipe: Recipe = Recipe(lr=0.05, epochs=1, batch_size=16)
    """How it trains."""

    passes: Annotated[int, SearchRange(1, 3)] = Field(1, ge=1)
    """For how long."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        recipe = self.recipe.model_copy(update={"epochs": self.passes})
        fit(p.model, p.retain, p.task, recipe, rt, stream="liar")
        return p.model


def _scrub(p, rt, student, teacher, trained):
    def loss(batch):
        with torch.no_grad():
            goal = p.task.outputs(teacher, batch)
        return (
            p.task.divergence(p.task.outputs(student, batch), goal).mean()
            + p.task.losses(p.task.outputs(trained, batch), batch).mean()
        )

    descend(trained, p.retain, loss, Recipe(lr=0.05, batch_size=16), rt, stream="scrub")
    return student


class ScrubWithItsOptimiserOnTheTeacher(Honest):
    """The student never moves."""

    def apply(self, p, rt):
        return _scrub(p, rt, p.model, p.original, p.original.requires_grad_(True))


class ScrubOnACopiedTeacher(Honest):
    """The optimiser moves a second model and the first is returned."""

    info: ClassVar[Info] = Info(
        title="x", cite="x", needs=BOTH | {Need.FRESH}, tasks=frozenset({"classification"})
    )

    def apply(self, p, rt):
        return _scrub(p, rt, p.model, p.original, p.fresh())


class ScrubWhoseTeacherIsTheStudent(Honest):
    """The teacher's tensors are the student's."""

    def apply(self, p, rt):
        for teacher, student in zip(p.original.parameters(), p.model.parameters(), strict=True):
            teacher.data = student.data
        return _scrub(p, rt, p.model, p.original, p.model)


class ScrubThatReturnsItsTeacher(Honest):
    """The result is the original."""

    def apply(self, p, rt):
        return p.original


class MovesBatchNormAlone(Honest):
    """Forward passes in train mode, and nothing else."""

    def apply(self, p, rt):
        p.model.train()
        with torch.no_grad():
            for batch in p.retain.batches(16, rt):
                p.task.outputs(p.model, batch)
        return p.model


class DrawsFromTorch(Honest):
    """An order from the global generator."""

    def apply(self, p, rt):
        torch.randperm(5)
        return super().apply(p, rt)


class DrawsFromNumpy(Honest):
    """An order from NumPy's generator."""

    def apply(self, p, rt):
        np.random.rand()  # noqa: NPY002  # the lie
        return super().apply(p, rt)


class DrawsFromPython(Honest):
    """An order from Python's generator."""

    def apply(self, p, rt):
        random.random()
        return super().apply(p, rt)


class NotDeterministic(Honest):
    """A generator that is seeded by the machine."""

    def apply(self, p, rt):
        rng = torch.Generator()
        rng.seed()
        with torch.no_grad():
            for t in p.model.parameters():
                t.add_(0.01 * torch.randn(t.shape, generator=rng))
        return super().apply(p, rt)


def _only(*needs: Need) -> Info:
    return Info(
        title="x",
        cite="x",
        needs=frozenset({*needs, Need.LABELS}),
        tasks=frozenset({"classification"}),
    )


class ReadsRetain(Honest):
    """Undeclared."""

    info: ClassVar[Info] = _only(Need.FORGET)


class ReadsForget(Honest):
    """Undeclared."""

    info: ClassVar[Info] = _only(Need.RETAIN)

    def apply(self, p, rt):
        next(p.forget.batches(4, rt))
        return super().apply(p, rt)


class ReadsValidation(Honest):
    """Undeclared."""

    def apply(self, p, rt):
        if p.validation is not None:
            fit(p.model, p.validation, p.task, self.recipe, rt, stream="liar")
        return super().apply(p, rt)


class BuildsFresh(Honest):
    """Undeclared."""

    def apply(self, p, rt):
        return p.fresh()


class LooksBehindTheSeal(Honest):
    """Takes the rows out of a sealed view."""

    info: ClassVar[Info] = _only(Need.RETAIN)

    def apply(self, p, rt):
        x = p.forget.data.x[p.forget.rows]
        p.model(x).mean().backward()
        return super().apply(p, rt)


class LeavesAHook(Honest):
    """On a layer."""

    def apply(self, p, rt):
        p.model[0].register_forward_hook(lambda *_: None)
        return super().apply(p, rt)


class LeavesATensorHook(Honest):
    """On a parameter."""

    def apply(self, p, rt):
        p.model[0].weight.register_hook(lambda g: g)
        return super().apply(p, rt)


class ThawsFrozenLayers(Honest):
    """And trains them."""

    def apply(self, p, rt):
        p.model.requires_grad_(True)
        return super().apply(p, rt)


class ReturnsNaN(Honest):
    """In one weight."""

    def apply(self, p, rt):
        with torch.no_grad():
            p.model[0].weight[0, 0] = float("nan")
        return p.model


class ReturnsAnotherShape(Honest):
    """One more layer."""

    def apply(self, p, rt):
        return nn.Sequential(*p.model, nn.Linear(3, 3))


class ReturnsAnotherActivation(Honest):
    """Same tensors, another function."""

    def apply(self, p, rt):
        p.model[1] = nn.Tanh()
        return super().apply(p, rt)


class SwitchesDropoutOff(Honest):
    """Same classes, another setting."""

    def apply(self, p, rt):
        for m in p.model.modules():
            if isinstance(m, nn.Dropout):
                m.p = 0.0
        return super().apply(p, rt)


class UntiesWeights(Honest):
    """Two tensors where there was one."""

    def apply(self, p, rt):
        if hasattr(p.model, "down"):
            p.model.down.weight = nn.Parameter(p.model.up.weight.detach().clone())
        return super().apply(p, rt)


class ReturnsNothing(Honest):
    """Forgets the return statement."""

    def apply(self, p, rt):
        super().apply(p, rt)


class WritesToTheOriginal(Honest):
    """One weight of it."""

    def apply(self, p, rt):
        with torch.no_grad():
            next(p.original.parameters()).flatten()[0].add_(1)
        return super().apply(p, rt)


class KeepsState(Honest):
    """A counter on the class."""

    runs: ClassVar[list[int]] = []

    def apply(self, p, rt):
        self.runs.append(1)
        with torch.no_grad():
            next(p.model.parameters()).mul_(1 + 0.01 * len(self.runs))
        return super().apply(p, rt)


class DependsOnInputOrder(Honest):
    """Steps by the first named input."""

    def apply(self, p, rt):
        batch = next(p.retain.batches(16, rt))
        first = batch.x if isinstance(batch.x, torch.Tensor) else next(iter(batch.x.values()))
        with torch.no_grad():
            next(p.model.parameters()).add_(0.01 * first[0, 0])
        return super().apply(p, rt)


class HidesItsCost(Honest):
    """Calls the model past the meter."""

    def apply(self, p, rt):
        for batch in p.forget.batches(16, rt):
            p.model(batch.x)
        return super().apply(p, rt)


class SwallowsErrors(Honest):
    """And returns what there is."""

    def apply(self, p, rt):
        try:
            return super().apply(p, rt)
        except Exception:  # noqa: BLE001  # the lie
            return p.model


class TakesForever(Honest):
    """More than a second of arithmetic."""

    def apply(self, p, rt):
        start = time.process_time()
        while time.process_time() - start < 1.05:
            pass
        return super().apply(p, rt)


class TakesAnything(Honest):
    """A setting without bounds."""

    rate: object = 1.0
    """Anything."""


class HasAWrongPreset(Honest):
    """A preset of a setting that does not exist."""

    info: ClassVar[Info] = Info(
        title="x",
        cite="x",
        needs=BOTH,
        tasks=frozenset({"classification"}),
        presets={"paper": {"no_such": 1}},
    )


class DoesNotComeBackFromJson(Honest):
    """A setting that is left out of the dump."""

    info: ClassVar[Info] = Info(
        title="x",
        cite="x",
        needs=BOTH,
        tasks=frozenset({"classification"}),
        smoke={"limit": 2.0},
    )

    limit: float = Field(1.0, gt=0, exclude=True)
    """A limit."""


class SaysNothing(Honest):
    """A setting without a description."""

    rate: float = Field(1.0, gt=0)


class NeedsAndUses(Honest):
    """The same input twice."""

    info: ClassVar[Info] = Info(
        title="x", cite="x", needs=BOTH, uses=BOTH, tasks=frozenset({"classification"})
    )


class CallsAnAbsentInput(Honest):
    """Says that it can do without validation rows, and cannot."""

    info: ClassVar[Info] = Info(
        title="x",
        cite="x",
        needs=BOTH,
        uses=frozenset({Need.VALIDATION}),
        tasks=frozenset({"classification"}),
    )

    def apply(self, p, rt):
        assert len(p.validation.y)
        return super().apply(p, rt)


class BlowsUpQuietly(Honest):
    """A step whose error is not one of ours."""

    def apply(self, p, rt):
        recipe = self.recipe
        if recipe.lr > 1:
            raise FloatingPointError("too large")
        return super().apply(p, rt)


LIES: list[tuple[type[Method], str, str]] = [
    (ScrubWithItsOptimiserOnTheTeacher, "student_moves_and_teacher_stays", "of the original"),
    (ScrubOnACopiedTeacher, "student_moves_and_teacher_stays", "no parameter moves"),
    (ScrubWhoseTeacherIsTheStudent, "student_moves_and_teacher_stays", "of the original"),
    (ScrubThatReturnsItsTeacher, "student_moves_and_teacher_stays", "in the memory of the model"),
    (MovesBatchNormAlone, "student_moves_and_teacher_stays", "no parameter moves"),
    (MovesBatchNormAlone, "zoo_batch_norm", "moves statistics at most"),
    (DrawsFromTorch, "draws_from_its_own_streams", "draws from a global generator"),
    (DrawsFromNumpy, "draws_from_its_own_streams", "draws from a global generator"),
    (DrawsFromPython, "draws_from_its_own_streams", "draws from a global generator"),
    (NotDeterministic, "same_seed_same_bits", "other weights"),
    (NotDeterministic, "autocast_runs", "other weights in bf16"),
    (NotDeterministic, "zoo_dropout", "other weights"),
    (ReadsRetain, "undeclared_inputs_sealed", "reads retain rows"),
    (ReadsForget, "undeclared_inputs_sealed", "reads forget rows"),
    (ReadsValidation, "undeclared_inputs_sealed", "reads validation rows"),
    (BuildsFresh, "undeclared_inputs_sealed", "builds a fresh model"),
    (LooksBehindTheSeal, "same_seed_same_bits", "0x0"),
    (LeavesAHook, "result_like_the_input", "0 has hooks left on it"),
    (LeavesATensorHook, "result_like_the_input", "0.weight has hooks left on it"),
    (ThawsFrozenLayers, "zoo_frozen", "changed 0.weight, which is frozen"),
    (ReturnsNaN, "student_moves_and_teacher_stays", "diverged, 0.weight is not finite"),
    (ReturnsAnotherShape, "result_like_the_input", "layer 3 is new"),
    (ReturnsAnotherActivation, "result_like_the_input", "layer 1 is Tanh, was ReLU"),
    (SwitchesDropoutOff, "zoo_dropout", "a layer's settings differ"),
    (UntiesWeights, "zoo_tied", "tied to up.weight"),
    (ReturnsNothing, "result_like_the_input", "returned NoneType"),
    (WritesToTheOriginal, "student_moves_and_teacher_stays", "changed 0.weight of the original"),
    (KeepsState, "nothing_kept_between_runs", "an earlier run changes a later one"),
    (KeepsState, "exception_leaves_nothing_behind", "the next run differs"),
    (DependsOnInputOrder, "inputs_in_any_order", "order of named inputs"),
    (HidesItsCost, "cost_metered", "60 rows went forward, the meter says 49"),
    (SwallowsErrors, "exception_leaves_nothing_behind", "swallows an error"),
    (TakesForever, "quick", "s at smoke settings"),
    (TakesAnything, "wrong_settings_refused", "is accepted"),
    (HasAWrongPreset, "settings_survive_json", "no_such"),
    (DoesNotComeBackFromJson, "settings_survive_json", "comes back from JSON as"),
    (SaysNothing, "declaration_complete", "describe the hyper-parameter"),
    (NeedsAndUses, "declaration_complete", "say it once"),
    (CallsAnAbsentInput, "missing_inputs_refused", "NoneType"),
    (BlowsUpQuietly, "absurd_rate_told", "too large"),
]


@pytest.mark.parametrize(("method", "check", "told"), LIES, ids=lambda v: getattr(v, "__name__", v))
def test_the_check_goes_red(method, check, told):
    with pytest.raises(Exception, match=told):
        check_method(method, only=[check])


def test_the_honest_method_that_they_are_made_of_passes_every_check():
    check_method(Honest)


def test_every_awkward_model_has_a_check():
    assert {f"zoo_{name}" for name in AWKWARD_MODELS} <= set(METHOD_CHECKS)


@pytest.mark.parametrize("attribute", ["training", "requires_grad"])
def test_the_driver_mends_flags_that_a_method_leaves_behind(attribute):
    class LeavesFlags(Honest):
        """Off."""

        def apply(self, p, rt):
            super().apply(p, rt)
            if attribute == "training":
                return p.model.train(not p.model.training)
            return p.model.requires_grad_(False)

    check_method(LeavesFlags, only=["result_like_the_input"])


def test_a_method_that_reaches_the_callers_model_is_told():
    class Reaches(Honest):
        """Through a class attribute."""

        victim: ClassVar[list[nn.Module]] = []

        def apply(self, p, rt):
            with torch.no_grad():
                next(self.victim[0].parameters()).add_(1)
            return super().apply(p, rt)

    subject = ToyProblem(Reaches, "classification")
    Reaches.victim.append(subject.model())
    with pytest.raises(UnlearnkitError, match=r"changed 0\.weight of the original"):
        subject.run(Reaches.victim[0])
