"""The contract of a method, checked on toy problems and awkward models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch

from unlearnkit import catalog
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.method import Method, Need
from unlearnkit.core.module_state import structural_difference, tensors, tensors_equal
from unlearnkit.core.request import Classes, ForgetRequest, Groups, Rows
from unlearnkit.core.search_space import Categorical, SearchRange, search_space
from unlearnkit.core.token_rows import TOKEN_TASKS
from unlearnkit.job import set_dotted
from unlearnkit.testing.inputs import INPUT_CHECKS
from unlearnkit.testing.probes import PROBE_CHECKS
from unlearnkit.testing.subject import (
    ToyProblem,
    bits,
    disturb,
    expect,
    generators,
    same_bits,
    trained_model,
)
from unlearnkit.testing.zoo import AWKWARD_MODELS, REORDERED_INPUTS
from unlearnkit.unlearning.run_method import Unlearned

Check = Callable[[ToyProblem], None]


def check_method(
    method: type[Method] | str,
    *,
    tasks: Iterable[str] | None = None,
    only: Iterable[str] | None = None,
    device: str = "cpu",
) -> None:
    """Check that a method keeps the contract; raise ``ContractError`` with what it does not keep.

    A run that raises by itself lets its error through: that fails the check as well.

    Args:
        method: The class, registered or not, or the id of a registered one.
        tasks: On which of its tasks; all when None.
        only: Which checks of ``METHOD_CHECKS``; all when None.
        device: Where to run.
    """
    cls = catalog.methods()[method] if isinstance(method, str) else method
    for task in sorted(cls.info.tasks if tasks is None else tasks):
        for name in METHOD_CHECKS if only is None else only:
            METHOD_CHECKS[name](ToyProblem(cls, task, device))


def same_seed_same_bits(s: ToyProblem) -> None:
    """The result depends on the seed and on no global generator."""
    first = bits(s.run().model)
    disturb()
    expect(same_bits(first, bits(s.run().model)), f"{s.method.id}: same seed, other weights")


def nothing_kept_between_runs(s: ToyProblem) -> None:
    """A run does not depend on the runs before it."""
    method = s.smoke()
    before = {k: repr(v) for k, v in vars(s.method).items() if not k.startswith("_")}
    first = bits(s.run(method=method).model)
    s.run(method=method, request=Rows(40, 41, 42), rt=s.rt(seed=5))
    again = bits(s.run(method=method).model)
    expect(same_bits(first, again), f"{s.method.id}: an earlier run changes a later one")
    after = {k: repr(v) for k, v in vars(s.method).items() if not k.startswith("_")}
    expect(before == after, f"{s.method.id}: a run changes the class")


def generators_left_alone(s: ToyProblem) -> None:
    """The caller's global generators are as they were."""
    before = generators()
    s.run()
    expect(generators() == before, f"{s.method.id}: moves a global generator of the caller")


def input_model_untouched(s: ToyProblem) -> None:
    """The caller's model keeps weights, gradients, flags and modes."""
    model = s.model().eval()
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0)
    first = bits(model)
    s.run(model)
    expect(same_bits(first, bits(model)), f"{s.method.id}: changes the caller's model")
    for name, p in model.named_parameters():
        kept = p.grad is not None and bool((p.grad == 2).all())
        expect(kept, f"{s.method.id}: changes the gradient of the caller's {name}")
        expect(p.requires_grad, f"{s.method.id}: freezes the caller's {name}")
    expect(not model.training, f"{s.method.id}: leaves the caller's model in train mode")


def student_moves_and_teacher_stays(s: ToyProblem) -> None:
    """At smoke settings a trainable parameter moves; the original does not."""
    model = s.model()
    done = s.run(model)
    given = dict(model.named_parameters())
    new = done.model.named_parameters()
    moved = [n for n, p in new if n not in given or not tensors_equal(p, given[n])]
    expect(bool(moved), f"{s.method.id}: no parameter moves at its smoke settings")
    stays = same_bits(bits(done.original), bits(model))
    expect(stays, f"{s.method.id}: the original of the result is not the given model")


def result_like_the_input(s: ToyProblem) -> None:
    """Keys, shapes, types, strides, flags, modes, hooks and layer settings are the input's."""
    if s.method.info.wraps:
        return
    for training in (True, False):
        model = s.model().train(training)
        _same_kind(s, s.run(model), model, training=training)


def every_request_served(s: ToyProblem) -> None:
    """Rows, one row, owners and classes can be forgotten."""
    requests: list[ForgetRequest] = [Rows(3), Groups(1, 2)]
    rows = s.case.train
    assert rows is not None
    if rows.y.ndim == 1 and not rows.y.is_floating_point():
        requests.append(Classes(0))
    for request in requests:
        _finite(s, s.run(request=request))


def absurd_rate_told(s: ToyProblem) -> None:
    """A learning rate of 1e15 ends in an error that names a tensor, or in a finite model."""
    assert s.case.recipe is not None
    wild = s.case.replace(recipe=s.case.recipe.model_copy(update={"lr": 1e15}))
    model = s.model()
    first = bits(model)
    try:
        _finite(s, s.run(model, case=wild, method=s.method.build(**_wild(s))))
    except DivergedError as e:
        named = any(name in str(e) for name in tensors(model))
        expect(named, f"{s.method.id}: diverges without naming a tensor: {e}")
    expect(same_bits(first, bits(model)), f"{s.method.id}: diverging, changes the caller's model")


def autocast_runs(s: ToyProblem) -> None:
    """In bf16 the result is finite, of the input's types, and the same each time."""
    first = s.run(rt=s.rt(precision="bf16"))
    _finite(s, first)
    again = s.run(rt=s.rt(precision="bf16"))
    same = same_bits(bits(first.model), bits(again.model))
    expect(same, f"{s.method.id}: same seed, other weights in bf16")
    expect(
        all(t.dtype == torch.float32 for t in first.model.parameters()),
        f"{s.method.id}: bf16 leaves weights of another type",
    )


def search_space_declared(s: ToyProblem) -> None:
    """Some hyper-parameter says where tuning looks; the method takes all of it; the default is in.

    A method without hyper-parameters has nothing to declare.
    """
    who, found = s.method.id, search_space(s.method)
    expect(
        bool(found) or not s.method.model_fields,
        f"{who}: no hyper-parameter declares where it is tuned; annotate one with Search or OneOf",
    )
    for key, dimension in found.items():
        given = dimension.search
        ordered = isinstance(given, Categorical) or 0 <= given.low < given.high
        expect(ordered, f"{who}: {key}: searched from {given}; give ends from 0 upwards, in order")
        over = not isinstance(given, SearchRange) or not given.log or given.low > 0
        expect(over, f"{who}: {key}: searched by factors from {given.ends[0]}; start above 0")
        inside = given.holds(dimension.default)
        expect(inside, f"{who}: {key}: the default {dimension.default!r} is not in {given}")
        for value in given.ends:
            settings: dict[str, object] = {}
            set_dotted(settings, key, value, who=who)
            try:
                s.method.build(**settings)
            except InputError as e:
                expect(False, f"{who}: {key}: searched in {given}, which it refuses: {e}")


def quick(s: ToyProblem) -> None:
    """A run at smoke settings takes less than a second of processor time."""
    model, method = s.model(), s.smoke()
    start = time.process_time()
    s.run(model, method=method)
    spent = time.process_time() - start
    expect(spent < 1.0, f"{s.method.id}: {spent:.2f} s at smoke settings")


def _zoo(name: str) -> Check:
    def check(s: ToyProblem) -> None:
        """Run on one awkward model."""
        animal = AWKWARD_MODELS[name]
        if Need.SHAPE in s.method.info.needs and name == "two_arguments":
            return
        if s.task in TOKEN_TASKS:  # these models have one output vector a row
            return
        key = f"{s.task}/{name}"
        case = animal.case(s.case)
        done = s.run(trained_model(case, key), case=case)
        model = trained_model(case, key)
        _finite(s, done)
        _same_kind(s, done, model, training=True)
        disturb()
        again = s.run(trained_model(case, key), case=case)
        same = same_bits(bits(done.model), bits(again.model))
        expect(same, f"{s.method.id}: same seed, other weights ({name})")
        _finite(s, s.run(trained_model(case, key), case=case, request=Rows(0)))
        given = dict(model.named_parameters())
        moved = {n for n, p in done.model.named_parameters() if not tensors_equal(p, given[n])}
        frozen = {n for n, p in given.items() if not p.requires_grad}
        expect(not moved & frozen, f"{s.method.id}: changes {sorted(moved & frozen)}, frozen")
        if name == "batch_norm":
            expect(bool(moved), f"{s.method.id}: moves statistics at most, and no parameter")

    return check


def inputs_in_any_order(s: ToyProblem) -> None:
    """The order of named inputs does not matter."""
    if Need.SHAPE in s.method.info.needs or s.task in TOKEN_TASKS:
        return
    key = f"{s.task}/two_arguments"
    one, other = AWKWARD_MODELS["two_arguments"].case(s.case), REORDERED_INPUTS.case(s.case)
    first = bits(s.run(trained_model(one, key), case=one).model)
    turned = bits(s.run(trained_model(other, key), case=other).model)
    expect(same_bits(first, turned), f"{s.method.id}: depends on the order of named inputs")


def _same_kind(s: ToyProblem, done: Unlearned, model: torch.nn.Module, *, training: bool) -> None:
    who = s.method.id
    odd = structural_difference(done.model, model) or structural_difference(model, done.model)
    expect(not odd, f"{who}: the result differs from the input: {odd}")
    expect(repr(done.model) == repr(model), f"{who}: a layer's settings differ from the input's")
    got = tensors(done.model)
    for name, ref in tensors(model).items():
        t = got[name]
        expect(t.dtype == ref.dtype, f"{who}: {name} is {t.dtype}, was {ref.dtype}")
        expect(t.stride() == ref.stride(), f"{who}: {name} has other strides")
        expect(t.requires_grad == ref.requires_grad, f"{who}: {name} has another gradient flag")
        expect(t.grad is None, f"{who}: {name} comes back with a gradient")
    modes = {m.training for m in done.model.modules()}
    expect(modes == {training}, f"{who}: train or eval mode is not the input's")


def _finite(s: ToyProblem, done: Unlearned) -> None:
    for name, t in tensors(done.model).items():
        expect(bool(torch.isfinite(t).all()), f"{s.method.id}: {name} is not finite")


def _wild(s: ToyProblem) -> dict[str, object]:
    """Return the smoke settings with absolute learning rates at 1e15."""

    def change(value: object, name: str = "") -> object:
        if isinstance(value, dict):
            return {k: change(v, k) for k, v in value.items()}
        absolute = name in {"lr", "rate"} or name.endswith("_lr")
        return 1e15 if absolute and isinstance(value, int | float) else value

    changed = change(s.smoke().model_dump())
    assert isinstance(changed, dict)
    return changed


METHOD_CHECKS: dict[str, Check] = {
    f.__name__: f
    for f in (
        *INPUT_CHECKS,
        *PROBE_CHECKS,
        same_seed_same_bits,
        nothing_kept_between_runs,
        generators_left_alone,
        input_model_untouched,
        student_moves_and_teacher_stays,
        result_like_the_input,
        every_request_served,
        absurd_rate_told,
        autocast_runs,
        inputs_in_any_order,
        search_space_declared,
        quick,
    )
} | {f"zoo_{name}": _zoo(name) for name in AWKWARD_MODELS}
"""Every check, by name. A method keeps the contract if none raises."""
