"""A run of one method on a copy of a model, under checks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any
from weakref import WeakSet

import torch
from torch import nn

from unlearnkit.catalog import method as make
from unlearnkit.checkpoint import check_finite
from unlearnkit.core.border import first_line, user_code_error
from unlearnkit.core.case import Case, Partition
from unlearnkit.core.data import Batch, Data, TensorData, View
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import batching_note, check_logits, may_be_probabilities
from unlearnkit.core.inference import predict as read
from unlearnkit.core.method import Method, Need, Problem
from unlearnkit.core.module_state import (
    structural_difference,
    tensors_equal,
    upcast_half_precision,
)
from unlearnkit.core.recipe import ASSUMED, Recipe
from unlearnkit.core.request import ForgetRequest, parse_request
from unlearnkit.core.runtime import Cost, Runtime
from unlearnkit.core.training_summary import TrainingSummary
from unlearnkit.core.wrapped_models import (
    check_module,
    hold_adapter_base,
    moving_statistics,
    unwrap,
)
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask
from unlearnkit.localize.method_masks import check_held, check_maskable, own_mask
from unlearnkit.train.batch_norm import recalibrate_batch_norm
from unlearnkit.train.frozen_weights import freeze_outside_mask
from unlearnkit.train.learning_rate import estimate_learning_rate
from unlearnkit.train.memory_format import get_strides, set_strides, to_channels_last_if_faster
from unlearnkit.train.own_training import train_by_function
from unlearnkit.train.rng_guard import as_plain_call, peak_memory, seeded_global_rngs
from unlearnkit.train.utility_loss import utility_loss
from unlearnkit.unlearning.model_copies import (
    copy_model,
    frozen_base,
    original_as_given,
    with_adapter,
    with_own_base,
)
from unlearnkit.unlearning.projected_steps import (
    check_moments,
    check_projectable,
    project_steps,
)
from unlearnkit.unlearning.requirements import check_needs, input_shape
from unlearnkit.unlearning.result_checks import (
    check_form,
    check_untouched,
    check_values,
    restore_form,
)
from unlearnkit.unlearning.result_notes import note_damage, note_rows, note_utility


@dataclass(frozen=True)
class Unlearned:
    """The result of a method: the model, with all that an audit needs."""

    model: nn.Module
    original: nn.Module
    case: Case
    request: ForgetRequest | None
    method: Method
    seed: int
    seconds: float
    cost: Cost
    notes: tuple[str, ...]
    """What the method assumed, and other facts that a reader should know."""

    mask: Mask | None = field(default=None, kw_only=True)
    """What was allowed to move; everything when None."""

    projection: RetainedSubspace | None = field(default=None, kw_only=True)
    """What of the retained inputs was held at each step; nothing when None."""

    @cached_property
    def parts(self) -> Partition:
        """Return the rows that went and the rows that stayed."""
        return self.case.partition(self.request)

    def case_after_deletion(self, rt: Runtime | None = None) -> Case:
        """Return the case of ``model``: without the forget set, input moments updated.

        It is ``case.after_deletion(request)``. Where the case has input moments, they are updated
        by subtraction, in one pass over the forget rows: they then belong to ``model``.

        Args:
            rt: Where to run.

        Returns:
            The case for the next request. Input moments of another model than ``original`` are
            refused.

        Raises:
            UnsupportedError: If the case was made from parts; ``input_moments_after_deletion`` then
                gives the moments for the next one.
        """
        if self.request is None:
            raise UnsupportedError(
                "case_after_deletion: the case was made from parts; build the next with"
                " Case.from_parts(input_moments=done.input_moments_after_deletion())"
            )
        after = self.case.after_deletion(self.request)
        return after.replace(input_moments=self.input_moments_after_deletion(rt))

    def input_moments_after_deletion(self, rt: Runtime | None = None) -> TrainingSummary | None:
        """Return the case's input moments without the forget set, for ``model``; None without any.

        None after a correction too: rows stay, with other inputs, and moments are measured anew.

        Args:
            rt: Where to run.

        Returns:
            The moments; one pass over the forget rows. Those of another model than ``original`` are
            refused.
        """
        if self.parts.corrections is not None:
            return None
        kept, forget = self.case.input_moments, self.parts.forget
        if kept is None or forget is None:
            return kept
        run = Runtime() if rt is None else rt.fork(rt.seed)
        stay = None
        if self.request is not None and self.case.train is not None:
            after = self.case.after_deletion(self.request).train
            stay = None if after is None else View.all(after)
        return kept.after_deletion(
            self.original.to(run.device), self.model, forget, self.case.task, run, stay=stay
        )


@as_plain_call
def run_method(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | str | Mapping[str, Any] | None,
    method: Method | str,
    rt: Runtime | None = None,
    *,
    mask: Mask | Localizer | None = None,
    projection: RetainedSubspace | None = None,
    parts: Partition | None = None,
) -> Unlearned:
    """Return the model that one method makes of a copy; ``uk.unlearn`` describes the arguments."""
    how = make(method) if isinstance(method, str) else method
    run = Runtime() if rt is None else rt.fork(rt.seed)
    parsed = None if request is None else parse_request(request)
    split = parts or case.partition(parsed)
    return run_metered(model, case, parsed, how, run, split=split, mask=mask, projection=projection)


@as_plain_call
def run_metered(
    model: nn.Module,
    case: Case,
    request: ForgetRequest | None,
    how: Method,
    run: Runtime,
    *,
    split: Partition,
    mask: Mask | Localizer | None = None,
    projection: RetainedSubspace | None = None,
) -> Unlearned:
    """Run one method on the meter of the caller, which also holds what a failed run cost."""
    check_needs(how, case, split)
    given = _inside(model, run)
    model = with_adapter(given, how, run)
    if mask is not None:
        check_maskable(how, mask, split)
    if projection is not None:
        check_projectable(how, masked=mask is not None)
    original = frozen_copy(model, case, split, run, shared=_is_builtin(how))
    work = _working_copy(model, original, run)
    if isinstance(mask, Mask):
        mask.check(model, "" if split.forget is None else split.forget.key())
    check_outputs(original, split, case, run)
    note_rows(case, split, run)
    problem = _problem(how, case, split, work, upcast_half_precision(original), model, run)
    start = time.perf_counter()
    with seeded_global_rngs(run), peak_memory(run):
        if isinstance(mask, Localizer):
            mask = mask.find_in(work, split, case.task, run, of=model)
        if mask is not None:
            run = freeze_outside_mask(run, work, mask.chosen)
        if projection is not None:
            run = project_steps(run, work, problem.original, model, case, split, projection)
        out = how.apply(problem, run)
        if mask is not None or projection is not None:
            check_held(how, out is work, "mask" if projection is None else "projection")
        run.restore()
        _recalibrate(how, out, problem, case, run)
    seconds = time.perf_counter() - start
    check_untouched(original, model, how.id)
    like = out if how.info.wraps else _pattern(how, case, model, run)
    check_form(out, like, (model, original), how.id)
    check_values(out, like, how.id)
    note_damage(how, out, original, case, split, run)
    note_utility(how, utility_loss(out, original, case, split, request, run.fork(run.seed)), run)
    return Unlearned(
        model=restore_form(with_own_base(out), like),
        original=original_as_given(original, model, given),
        case=case,
        request=request,
        method=how,
        seed=run.seed,
        seconds=seconds,
        cost=replace(run.cost, pending=0),
        notes=tuple(run.notes),
        mask=mask or own_mask(how, model, split, run),
        projection=projection,
    )


def frozen_copy(
    model: nn.Module, case: Case, split: Partition, rt: Runtime, *, shared: bool = False
) -> nn.Module:
    """Return a copy of a trained model to read, on the run's device, in eval mode.

    Its weights lie in memory as suits the device. A model, rows or a request that do not fit each
    other are refused. With ``shared``, parameters may lie in the memory of the model's own.

    Raises:
        InputError: If no parameter requires gradients.
    """
    model = unwrap(model)
    _check_model(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise InputError(
            "model: no parameter requires gradients, so nothing can be unlearned; call"
            " model.requires_grad_(True)"
        )
    return _fitting_copy(model, case, split, rt, shared=shared)


def reading_copy(model: nn.Module, case: Case, split: Partition, rt: Runtime) -> nn.Module:
    """Return what ``frozen_copy`` does, of a model that may be frozen as a whole."""
    model = unwrap(model)
    _check_model(model)
    return _fitting_copy(model, case, split, rt, shared=False)


def _fitting_copy(
    model: nn.Module, case: Case, split: Partition, rt: Runtime, *, shared: bool
) -> nn.Module:
    held = model.parameters() if shared else ()
    original = copy_model(model, shared=held).to(rt.device).eval().requires_grad_(False)
    few = _check_fit(original, case, split, rt)
    return original if few is None else to_channels_last_if_faster(original, few, case.task, rt)


def fresh_model(case: Case, rt: Runtime, stream: str = "fresh") -> nn.Module:
    """Return an untrained model of a case, on the run's device, from a stream of its seed.

    Raises:
        UnsupportedError: If the case has no factory.
        InputError: If the factory does not return a new module each time.
        user_code_error: If the factory raises; running out of memory is raised as it is.
    """
    if case.fresh is None:
        raise UnsupportedError("fresh: the case has no model factory; give Case(fresh=make_model)")
    with seeded_global_rngs(rt, stream):
        try:
            built = case.fresh()
        except Exception as e:  # the user's own code
            raise user_code_error(
                e,
                f"fresh: raised {type(e).__name__}: {first_line(e)}; it must return an untrained"
                " model when called without arguments",
            ) from e
    if not isinstance(built, nn.Module):
        raise InputError(f"fresh: must return a torch module, got {type(built).__name__}")
    if built in _BUILT:
        raise InputError("fresh: must return a new module each time, got one that it gave before")
    _BUILT.add(built)
    return hold_adapter_base(unwrap(built).to(rt.device))


_BUILT: WeakSet[nn.Module] = WeakSet()
"""Modules that factories have returned: one that comes twice would carry training over."""


def check_arguments(case: object, method: object, rt: object) -> None:
    """Refuse arguments of ``unlearn`` that are of another kind.

    Raises:
        InputError: Naming the argument, and how to make one.
    """
    for name, given, kind, example in (
        ("case", case, Case, "uk.Case(train=(x, y), task='classification')"),
        ("method", method, Method, "'finetune' or uk.method('ssd', selection=5)"),
        ("rt", rt, Runtime | None, "uk.Runtime.on('cpu', seed=0)"),
    ):
        if not isinstance(given, kind):
            raise InputError(f"{name}: got {type(given).__name__}; pass one such as {example}")


def check_weights(model: nn.Module, who: str) -> None:
    """Refuse a model whose weights are not finite; ``who`` is what to call it."""
    check_finite(model.state_dict(), who)


def _check_model(model: nn.Module) -> None:
    check_module(model)
    check_weights(model, "model")


def _check_fit(model: nn.Module, case: Case, split: Partition, rt: Runtime) -> Batch | None:
    """Refuse rows that do not fit the model; return two of them, None where there are none."""
    others = {"test": case.test, "validation": case.validation, "held_out": case.held_out}
    views = {"retain": split.retain, "forget": split.forget} | {
        name: None if data is None else View.all(data) for name, data in others.items()
    }
    quiet, check = rt.fork(rt.seed), getattr(case.task, "check_model", None)
    seen: list[Batch] = []
    with seeded_global_rngs(rt, "fit"), torch.inference_mode():
        if case.input_shape is not None:
            x = torch.zeros(2, *case.input_shape, device=rt.device)
            seen.append(Batch(x, x[:, 0], torch.arange(2)))
            try:
                case.task.outputs(model, seen[0])
            except InputError as e:
                raise InputError(f"input_shape: {e}") from e
        for name, view in views.items():
            if view is None:
                continue
            if check is not None:
                check(model, view, quiet)
            few = view.pick(torch.arange(min(2, len(view))))
            try:
                for batch in few.batches(2, quiet):
                    out = case.task.outputs(model, batch)
                    if view.labelled:
                        case.task.losses(out, batch)
                    seen.append(batch)
            except InputError as e:
                raise InputError(f"{name}: {e}") from e
    return seen[0] if seen else None


def check_outputs(model: nn.Module, split: Partition, case: Case, rt: Runtime) -> None:
    """Refuse a model that returns probabilities; note one whose outputs depend on batching."""
    tried = [v for v in (split.retain, split.forget) if v is not None and len(v)]
    if not tried:
        return
    with seeded_global_rngs(rt, "answers"):
        for view in tried:
            if not view.labelled:
                continue
            for count in (FIRST_ANSWERS, ANSWERS):
                few = view.pick(torch.arange(min(count, len(view))))
                out = read(model, few, case.task, rt.fork(rt.seed))
                if not may_be_probabilities(out, case.task):
                    break  # more rows cannot change that
            else:
                check_logits(out, few.y.cpu(), case.task, "model")
        message = batching_note(model, tried[0], case.task, rt)
    if message:
        rt.note(message)


def with_merged_adapter(done: Unlearned) -> Unlearned:
    """Return a result whose adapter, where the run added one, is merged into the weights.

    It is then of the original's architecture, as retrained models are, and can be compared.

    Args:
        done: Not changed.

    Returns:
        The result; the same one where there is nothing to merge.
    """
    if not hasattr(done.model, "peft_config") or hasattr(done.original, "peft_config"):
        return done
    work: Any = copy_model(done.model)
    merged: nn.Module = work.merge_and_unload().train(done.model.training)
    return replace(done, model=merged.requires_grad_(True))


def _problem(
    how: Method,
    case: Case,
    split: Partition,
    work: nn.Module,
    original: nn.Module,
    model: nn.Module,
    rt: Runtime,
) -> Problem:
    allowed = how.info.reads
    copies: dict[int, Data] = {}

    def own_rows(view: View) -> View:
        # What a plug-in writes into its rows must not reach the user's data.
        if _is_builtin(how):
            return view
        data = copies.setdefault(id(view.data), view.data.copy())
        return replace(view, data=data)

    def sealed(view: View | None, need: Need) -> View:
        if view is not None and need in allowed:
            view = own_rows(view)
            if Need.LABELS in allowed:
                return view
            return view.without_targets(f"{how.id} reads targets but does not declare labels")
        absent = "does not declare it" if need not in allowed else "the case has none"
        return View.all(_NOTHING).seal(f"{how.id} reads {need} rows but {absent}")

    unseen = _unseen(case, split, labelled=Need.LABELS in allowed)
    validation = unseen
    if unseen is not None or Need.VALIDATION not in allowed:
        validation = sealed(unseen, Need.VALIDATION)
    own = case.train_model
    if case.recipe is None and own is None:
        rt.note(
            f"the recipe that trained the model is unknown: assumed lr {ASSUMED.lr}, batch"
            f" {ASSUMED.batch_size}, {ASSUMED.epochs} epochs; give Case(recipe=...) to be exact"
        )

    return Problem(
        model=work,
        original=original,
        task=case.task,
        forget=sealed(split.forget, Need.FORGET),
        retain=sealed(split.retain, Need.RETAIN),
        corrections=None
        if split.corrections is None
        else sealed(split.corrections, Need.CORRECTED),
        validation=validation,
        recipe=case.recipe or ASSUMED,
        removed_classes=split.removed_classes,
        input_shape=input_shape(case, split),
        moments=_moments(how, case, model),
        **_factories(how, case, model, original, rt),
        find_recipe=None if own is None else lambda: _recipe_of_own_training(case, split, rt),
        train=None if own is None else partial(train_by_function, how=own, rt=rt, stream=how.id),
        training=case.training,
    )


def _factories(
    how: Method, case: Case, model: nn.Module, original: nn.Module, rt: Runtime
) -> dict[str, Any]:
    """Return how a method builds untrained models: from the run's seed, and from others."""
    if Need.FRESH not in how.info.reads:
        return {"sealed_build": f"{how.id} builds a fresh model but does not declare it"}
    if case.fresh is None:
        return {}

    def build(place: Runtime) -> nn.Module:
        return _untrained(case, model, original, place, other=how.info.rebuilds)

    return {
        "build": partial(build, rt),
        "build_from": lambda seed: build(rt.fork(seed, quiet=True)),
    }


def _unseen(case: Case, split: Partition, *, labelled: bool) -> View | None:
    """Return the validation rows as the model gets them, where they have what is needed."""
    if case.validation is None:
        return None
    rows = View.all(split.as_used(case.validation))
    return rows if rows.labelled or not labelled else None


def _is_builtin(how: Method) -> bool:
    return type(how).__module__.startswith("unlearnkit.")


def _recipe_of_own_training(case: Case, split: Partition, rt: Runtime) -> Recipe:
    """Return the recipe of a case with a training loop of its own: the hint, or an estimate."""
    if case.recipe is not None:
        rt.note(
            f"the case's recipe (lr {case.recipe.lr:g}, {case.recipe.epochs} epochs) is used as a"
            " hint: the models themselves are trained by train_model"
        )
        return case.recipe
    rows = next((v for v in (split.retain, split.forget) if v is not None and v.labelled), None)
    recipe, found = ASSUMED, "assumed"
    if case.fresh is not None and rows is not None:
        quiet = rt.fork(0)
        with seeded_global_rngs(quiet):
            start = upcast_half_precision(fresh_model(case, quiet, "learning rate"))
            rate = estimate_learning_rate(start, rows, case.task, ASSUMED, quiet)
        rt.cost.forward += quiet.cost.forward
        rt.cost.backward += quiet.cost.backward
        recipe, found = ASSUMED.model_copy(update={"lr": rate}), "estimated by a range test"
    rt.note(
        f"train_model does not tell a learning rate: {recipe.lr:.2g} is {found}, {recipe.epochs}"
        f" epochs of batch {recipe.batch_size} are assumed; give Case(recipe=Recipe(...)) as a hint"
    )
    return recipe


def _moments(how: Method, case: Case, model: nn.Module) -> TrainingSummary | None:
    if case.input_moments is None or Need.MOMENTS not in how.info.reads:
        return None
    check_moments(case, model)
    return case.input_moments


def _untrained(
    case: Case, model: nn.Module, original: nn.Module, rt: Runtime, *, other: bool
) -> nn.Module:
    # Frozen parameters were never trained: they are the given model's, where they fit.
    built = upcast_half_precision(fresh_model(case, rt))
    odd = structural_difference(built, model)
    if odd and other:
        return built
    if odd:
        raise InputError(f"fresh: builds another architecture than the given model's: {odd}")
    given = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, p in built.named_parameters(remove_duplicate=False):
            p.requires_grad_(given[name].requires_grad)
            if not p.requires_grad:
                p.copy_(given[name])
    return set_strides(built, get_strides(original))


def _inside(model: nn.Module, rt: Runtime) -> nn.Module:
    """Return the module inside of a wrapper, with a note."""
    inside = unwrap(model)
    if inside is not model:
        rt.note(f"the model was taken out of {type(model).__name__}, and is returned without it")
    return inside


def _working_copy(model: nn.Module, original: nn.Module, rt: Runtime) -> nn.Module:
    """Return the copy that a method changes, laid out in memory as the original's."""
    work = upcast_half_precision(copy_model(model, shared=frozen_base(model))).to(rt.device)
    set_strides(work, get_strides(original))
    names = list(moving_statistics(hold_adapter_base(work)))
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        rt.note(
            f"layer {names[0]!r}{more} has frozen weights but moving statistics; to hold these too,"
            " call model.train() and then .eval() of each such layer"
        )
    return work


def _recalibrate(how: Method, out: nn.Module, p: Problem, case: Case, rt: Runtime) -> None:
    """Fit batch normalisation to the new weights, where the method asks for it and moved any."""
    if getattr(how, "batch_norm", "keep") != "recalibrate" or p.retain.sealed_because:
        return
    before = dict(p.original.named_parameters())
    moved = (not tensors_equal(w, before[n]) for n, w in out.named_parameters() if n in before)
    if any(moved):
        size = (case.recipe or ASSUMED).batch_size
        recalibrate_batch_norm(out, p.retain, p.task, rt, batch_size=size)


ANSWERS = 256
"""Rows of each part on which the model's outputs are checked before unlearning."""

FIRST_ANSWERS = 16
"""Rows that are enough to see logits in most models."""

_NOTHING = TensorData(torch.empty(0, 0), torch.empty(0, dtype=torch.long))
"""What a sealed view holds: there is nothing to find behind the seal."""


def _pattern(how: Method, case: Case, model: nn.Module, rt: Runtime) -> nn.Module:
    """Return what the result must be like: the given model, or what ``fresh`` builds instead."""
    if not how.info.rebuilds or case.fresh is None:
        return model
    built = fresh_model(case, rt, "pattern").to(next(model.parameters()).device)
    return built.train(model.training) if structural_difference(built, model) else model
