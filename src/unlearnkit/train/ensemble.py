"""Ensembles: many models of one architecture trained together."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearnkit.core.data import Inputs, TensorData, View, as_named_tensors
from unlearnkit.core.errors import InputError
from unlearnkit.core.inference import first_rows
from unlearnkit.core.ranks import Ranks, current_ranks, with_ranks
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Cost, NullReporter, Runtime
from unlearnkit.core.task import Task
from unlearnkit.core.training import Training
from unlearnkit.train.batch_norm import eval_norms
from unlearnkit.train.loop import Moves, draw_moves, fit, moves_apply, training
from unlearnkit.train.memory_format import quick
from unlearnkit.train.own_training import train_by_function
from unlearnkit.train.ray_cluster import capacity, map_tasks, ray_session, task_resources
from unlearnkit.train.rng_guard import seeded_global_rngs
from unlearnkit.train.training_guard import check_training_allowed
from unlearnkit.train.training_task import epoch_sampler, training_task
from unlearnkit.train.vectorized.stacked_models import DropoutCall, ModelWithLoss, Stack

LAYERS = "train/layers"
"""Random stream of layers that draw by themselves."""

MEMORY = 32 * 2**20
"""Bytes that a chunk may fill on a CPU: more leaves the cache, and no longer saves anything."""

SMALL = 2 * 10**5
"""Saved numbers of a model's step up to which stacking pays on a CPU."""

PLACES = 16
"""Matrix products round by how a matrix is aligned in memory, which repeats after this many."""


@dataclass(frozen=True)
class EnsembleMember:
    """One model of an ensemble: its rows and its randomness are its own."""

    model: nn.Module
    """Untrained; changed in place."""

    view: View
    """Its rows; ``View.pick`` makes them from a mask."""

    rt: Runtime
    """Seed, device and cost meter."""

    stream: str
    """Name of the random stream that orders the rows."""

    place: int | None = None
    """Where it stands in a stack, modulo ``PLACES``; as it comes when None. Equal places, equal
    bits, whoever stands next to it."""


def fit_each(members: Sequence[EnsembleMember], task: Task, recipe: Training) -> None:
    """Train models one after another: the reference, and the way for what cannot be stacked."""
    for m in members:
        if not isinstance(recipe, Recipe):
            train_by_function(m.model, m.view, recipe, m.rt, stream=m.stream)
            continue
        with seeded_global_rngs(m.rt, LAYERS), quick(m.model, first_rows(m.view, m.rt), task, m.rt):
            fit(m.model, m.view, task, recipe, m.rt, stream=m.stream)


def fit_together(
    members: Sequence[EnsembleMember], task: Task, recipe: Training, *, ray: str | None = None
) -> Iterator[Sequence[EnsembleMember]]:
    """Train models as ``fit_each`` does, in vectorised chunks where that is possible.

    Each model sees the orders, augmentations, dropped activations and batch statistics of its own
    sequential run. In float64 the weights differ from that run's by rounding alone (tests: 1e-9
    relative); in float32 rounding grows with the length of the run. On a CPU the bits of a model
    that has a place do not depend on which others share its chunk. ``fit_each`` trains what cannot
    be stacked: by a user's own loop, data that are not in memory, modules that ``vmap`` does not
    take (layers other than ``Dropout`` that draw, values read in Python), and models too large to
    gain on a CPU. ``ray`` is the address of a Ray cluster whose processors take a chunk each, or
    ``local``; on processors of one kind the weights are the same.

    Yields:
        Members whose training is over: one, or those of a chunk.
    """
    check_training_allowed()
    if ray is not None:
        yield from _on_ray(members, task, recipe, ray)
        return
    ranks = current_ranks()
    if ranks is not None:
        yield from _on_ranks(members, task, recipe, ranks)
        return
    for part, probe in _parts(members, task, recipe):
        _fit(part, probe, task, recipe)
        yield part


def _parts(
    members: Sequence[EnsembleMember], task: Task, recipe: Training, least: int = 1
) -> Iterator[tuple[Sequence[EnsembleMember], "StackProbe | None"]]:
    """Yield the members chunk by chunk, or one by one where there is no stack to train."""
    for group in _groups(members):
        probe = StackProbe.of(group, task, recipe)
        for part in [[m] for m in group] if probe is None else probe.chunks(group, least):
            yield part, probe


def _fit(
    part: Sequence[EnsembleMember], probe: "StackProbe | None", task: Task, recipe: Training
) -> None:
    if probe is None or not isinstance(recipe, Recipe):
        fit_each(part, task, recipe)
    else:
        _train(part, probe, task, recipe)


def _on_ray(
    members: Sequence[EnsembleMember], task: Task, recipe: Training, address: str
) -> Iterator[Sequence[EnsembleMember]]:
    """Train chunks as tasks of a cluster, at least as many as there are processors."""
    with ray_session(address, None, "ensemble") as ray:
        rt, done = members[0].rt, 0
        there = capacity(ray, rt.device, "ensemble")
        away = ray.remote(**task_resources(rt.device))(_fit_away)
        # a reporter may hold what cannot travel, such as a terminal
        quiet = [replace(m, rt=replace(m.rt, reporter=NullReporter())) for m in members]
        calls = ((*part, task, recipe) for part in _parts(quiet, task, recipe, there))
        for (part, *_), kept in map_tasks(ray, away, calls, there, "ensemble"):
            _take(part, kept)
            done += len(part)
            rt.reporter.progress("models on Ray", done, len(members))
            yield part


def _on_ranks(
    members: Sequence[EnsembleMember], task: Task, recipe: Training, ranks: Ranks
) -> Iterator[Sequence[EnsembleMember]]:
    """Train chunks by turns on the ranks, each alone; then all have all models."""
    parts = list(_parts(members, task, recipe, ranks.size))
    for start in range(0, len(parts), ranks.size):
        turn = parts[start : start + ranks.size]
        own: list[tuple[dict[str, Tensor], Cost]] = []
        if ranks.rank < len(turn):
            part, probe = turn[ranks.rank]
            with with_ranks(None):
                _fit(part, probe, task, recipe)
            own = [(m.model.state_dict(), m.rt.cost) for m in part]
        for (part, _), kept in zip(turn, ranks.exchange(own), strict=False):
            _take(part, kept)
            yield part


def _take(part: Sequence[EnsembleMember], kept: Sequence[tuple[dict[str, Tensor], Cost]]) -> None:
    """Give members the weights and costs that another process trained."""
    for m, (state, cost) in zip(part, kept, strict=True):
        m.model.load_state_dict(state)
        vars(m.rt.cost).update(vars(cost))


def _fit_away(
    part: Sequence[EnsembleMember], probe: "StackProbe | None", task: Task, recipe: Training
) -> list[tuple[dict[str, Tensor], Cost]]:
    torch.set_num_threads(1)
    _fit(part, probe, task, recipe)
    return [(m.model.state_dict(), m.rt.cost) for m in part]


def worth_stacking(member: EnsembleMember, task: Task, recipe: Training) -> bool:
    """Return whether models like this one are trained sooner together; nothing changes."""
    return StackProbe.of([member], task, recipe) is not None


def _groups(members: Sequence[EnsembleMember]) -> list[list[EnsembleMember]]:
    """Return the members by what one stack needs equal: architecture, data, number of rows."""
    found: dict[object, list[EnsembleMember]] = {}
    for m in members:
        state = [*m.model.named_parameters(), *m.model.named_buffers()]
        kind = tuple((n, tuple(t.shape), t.dtype, t.requires_grad) for n, t in state)
        where = (m.rt.device, m.rt.precision)
        same = (id(m.view.data), len(m.view), repr(m.model), kind, where)
        found.setdefault(same, []).append(m)
    return list(found.values())


@dataclass(frozen=True)
class StackProbe:
    """What one step of one model showed: what it draws, and how large it is."""

    drops: dict[int, tuple[DropoutCall, ...]]
    """Dropout layers in the order of their calls, by rows of the batch."""

    bytes: int
    """Memory that a model takes in a step."""

    @classmethod
    def of(
        cls, group: Sequence[EnsembleMember], task: Task, recipe: Training
    ) -> "StackProbe | None":
        """Return what a step of two models showed; None if they do not stack or would not gain."""
        first = group[0]
        moving = any(p.requires_grad for p in first.model.parameters())
        in_memory = isinstance(first.view.data, TensorData)
        if not (isinstance(recipe, Recipe) and recipe.epochs and moving and in_memory):
            return None
        if any(_hidden_state(m.model) or eval_norms(m.model) for m in group) or not len(first.view):
            return None
        drops: dict[int, tuple[DropoutCall, ...]] = {}
        seen, saved = training_task(task, recipe), 0
        try:
            for rows in sorted(set(_widths(first.view, recipe))):
                drops[rows], saved = _watched(first, task, rows)
                if len({d.name for d in drops[rows]}) < len(drops[rows]):
                    return None
                if drops[rows] and first.rt.device.type != "cpu":
                    return None
                pair = [copy.deepcopy(m.model) for m in (first, group[-1])]
                x, y = _rows(first.view, first.view.rows[:rows].repeat(2, 1), first.rt)
                if first.rt.device.type == "cpu":
                    # In float32 a unit that rounding switches off looks like another function.
                    pair = [m.double() for m in pair]
                    parts = {k: _double(t) for k, t in as_named_tensors(x).items()}
                    x, y = parts["x"] if isinstance(x, Tensor) else parts, _double(y)
                stack = Stack(pair, drops[rows], seen, first.rt)
                noises = {
                    f"model.{d.name}.noise": _double(torch.ones((2, *d.shape))) for d in drops[rows]
                }
                if not stack.faithful(x, y, noises):
                    return None
        except (RuntimeError, ValueError, TypeError, InputError):
            return None
        if first.rt.device.type == "cpu" and saved > SMALL:
            return None
        state = sum(t.numel() * t.element_size() for t in first.model.state_dict().values())
        size = 4 if first.rt.precision == "bf16" else next(first.model.parameters()).element_size()
        return cls(drops, 5 * state + 3 * size * saved)

    def chunks(
        self, group: Sequence[EnsembleMember], least: int = 1
    ) -> Iterator[Sequence[EnsembleMember]]:
        """Yield the members of a group in chunks that fit memory, at least so many chunks.

        On a CPU a chunk has 16 at most: they train as fast together as 64 (the perceptron of
        digits: 2.8 s against 2.9 s for 64 models), and results are stored four times sooner.
        """
        device = group[0].rt.device
        free = MEMORY
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0] // 2
        most = max(free // max(self.bytes, 1), 1)
        if device.type == "cpu":
            most = min(most, PLACES)
        width = min(most, math.ceil(len(group) / least))
        for start in range(0, len(group), width):
            yield group[start : start + width]


def _train(
    members: Sequence[EnsembleMember], probe: StackProbe, task: Task, recipe: Recipe
) -> None:
    own = _placed(members, _grain(members[0].model))
    members = [m or replace(members[0], model=copy.deepcopy(members[0].model)) for m in own]
    rt, view = members[0].rt, members[0].view
    widths = _widths(view, recipe)
    seen, sampler = training_task(task, recipe), epoch_sampler(recipe)
    stack = Stack([m.model for m in members], max(probe.drops.values(), key=len), seen, rt)
    opt = recipe.build(stack.moving)
    layers = [torch.Generator().manual_seed(m.rt.rng(LAYERS).initial_seed()) for m in members]
    steps, step = recipe.epochs * len(widths), 0
    for epoch in range(recipe.epochs):
        orders = torch.stack(
            [m.view.shuffled_rows(m.rt, f"{m.stream}/{epoch}", sampler) for m in members]
        )
        for rows in torch.split(orders, widths, 1):
            x, y = _rows(view, rows, rt)
            x = _augmented(x, members, recipe, step)
            for group in opt.param_groups:
                group["lr"] = recipe.lr * recipe.factor(step, steps)
            stack.step(x, y, _noises(probe.drops[rows.shape[1]], layers))
            if recipe.clip_norm is not None:
                _clip(stack.moving, recipe.clip_norm)
            opt.step()
            step += 1
        rt.reporter.progress(f"{len(members)} models together", step, steps)
    stack.unload()
    for m in own:
        if m is not None:
            m.rt.cost.count_forward(recipe.epochs * len(view), graph=True)
            m.rt.cost.count_backward()


def _grain(model: nn.Module) -> int:
    """Return how many models fill whole vector registers with channels, in every layer.

    Batch normalisation over all models' channels rounds another way where a register is not full.
    """
    norms = [m.num_features for m in model.modules() if isinstance(m, _BatchNorm)]
    return math.lcm(*(PLACES // math.gcd(PLACES, n) for n in norms))


def _placed(members: Sequence[EnsembleMember], grain: int) -> list[EnsembleMember | None]:
    """Return the members by place, with gaps, padded to a multiple of ``grain``."""
    taken: dict[int, EnsembleMember] = {}
    for i, m in enumerate(members):
        slot = (i if m.place is None else m.place) % PLACES
        while slot in taken:
            slot += PLACES
        taken[slot] = m
    return [taken.get(slot) for slot in range(-(-(max(taken) + 1) // grain) * grain)]


def _widths(view: View, recipe: Recipe) -> list[int]:
    """Return the rows of each step of an epoch; a last single row joins the step before."""
    steps = view.steps(recipe.batch_size)
    full = [recipe.batch_size] * (steps - 1)
    return [*full, len(view) - sum(full)]


def _rows(view: View, rows: Tensor, rt: Runtime) -> tuple[Inputs, Tensor]:
    """Return inputs and targets of rows ``(K, B)``, on the device."""
    data, flat = view.data, rows.flatten()
    assert isinstance(data, TensorData)
    x = {k: t.index_select(0, flat) for k, t in as_named_tensors(data.x).items()}
    y = _by_model(data.y.index_select(0, flat), rows).to(rt.device)
    stacked = {k: _by_model(t, rows).to(rt.device) for k, t in x.items()}
    return stacked["x"] if isinstance(data.x, Tensor) else stacked, y


def _double(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


def _by_model(t: Tensor, rows: Tensor) -> Tensor:
    return t.reshape(*rows.shape, *t.shape[1:])


def _augmented(x: Inputs, members: Sequence[EnsembleMember], recipe: Recipe, step: int) -> Inputs:
    if isinstance(x, Tensor) and not isinstance(recipe.augment, str):
        streams = [m.rt.rng(f"{m.stream}/augment/{step}") for m in members]
        return torch.stack([recipe.augment(own, g) for own, g in zip(x, streams, strict=True)])
    if recipe.augment == "none" or not isinstance(x, Tensor) or x.ndim != 5:
        return x
    each = [draw_moves(x.shape[1], m.rt.rng(f"{m.stream}/augment/{step}")) for m in members]
    moves = Moves(*(torch.cat(parts) for parts in zip(*each, strict=True)))
    return moves_apply(x.flatten(0, 1), moves).reshape(x.shape)


def _clip(params: Sequence[Tensor], most: float) -> None:
    """Shorten each model's gradient to a norm, as ``clip_grad_norm_`` does for one model."""
    grads = [p.grad for p in params if p.grad is not None]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads]).norm(dim=0)
    factor = (most / (norms + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))


def _noises(drops: Sequence[DropoutCall], layers: Sequence[torch.Generator]) -> dict[str, Tensor]:
    """Draw what each model's own dropout would draw, layer by layer."""
    return {
        f"model.{d.name}.noise": torch.stack(
            [
                torch.empty(d.shape, dtype=d.dtype).bernoulli_(d.keep, generator=g).div_(d.keep)
                for g in layers
            ]
        )
        for d in drops
    }


def _watched(m: EnsembleMember, task: Task, rows: int) -> tuple[tuple[DropoutCall, ...], int]:
    """Run one batch through a copy; return its dropout layers as called, and the numbers saved."""
    model = copy.deepcopy(m.model)
    drops: list[DropoutCall] = []
    saved = 0

    def keep(t: Tensor) -> Tensor:
        nonlocal saved
        saved += t.numel()
        return t

    def listen(name: str, p: float) -> Callable[..., None]:
        def hear(_: nn.Module, __: object, out: Tensor) -> None:
            drops.append(DropoutCall(name, 1 - p, tuple(out.shape), out.dtype))

        return hear

    for name, layer in model.named_modules():
        if type(layer) is nn.Dropout and 0 < layer.p < 1:
            layer.register_forward_hook(listen(name, layer.p))
    x, y = _rows(m.view, m.view.rows[None, :rows], m.rt)
    first = x[0] if isinstance(x, Tensor) else {k: t[0] for k, t in x.items()}
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t)
    with seeded_global_rngs(m.rt, LAYERS), training(model), hooks, m.rt.autocast():
        ModelWithLoss(model, task)(first, y[0])
    return tuple(drops), saved


def _hidden_state(model: nn.Module) -> bool:
    """Return whether tensors lie besides parameters and buffers, where no stack would find them."""
    return any(isinstance(v, Tensor) for m in model.modules() for v in vars(m).values())
