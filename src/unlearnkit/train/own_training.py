"""A user's own training loop, called and checked."""

from __future__ import annotations

import copy
from weakref import WeakSet

import torch
from torch import nn

from unlearnkit.core.border import first_line, user_code_error
from unlearnkit.core.data import View
from unlearnkit.core.errors import DivergedError, InputError
from unlearnkit.core.module_state import all_finite, structural_difference, tensors_equal
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.train_function import TrainFunction
from unlearnkit.core.wrapped_models import unwrap
from unlearnkit.train.rng_guard import own_settings, seeded_global_rngs
from unlearnkit.train.training_guard import check_training_allowed

_RETURNED: WeakSet[nn.Module] = WeakSet()
"""Models that loops have returned: one that comes twice carries training over."""


def train_by_function(
    model: nn.Module, view: View, how: TrainFunction, rt: Runtime, *, stream: str
) -> None:
    """Train a model by the user's own loop.

    The loop gets a copy of the model on the run's device, the rows as the user gave them, and the
    run's seed; federated rounds get the view and the run. Global generators are seeded before, and
    are afterwards as they were; so are threads, default type and device, gradient mode and torch's
    other settings.

    Args:
        model: Untrained; its weights become those of the model that the loop returns.
        view: Its rows.
        how: The loop.
        rt: Device and seed. Rows are not counted: the loop does not say how many it reads.
        stream: Name of the random stream that seeds the global generators.

    Raises:
        user_code_error: If the loop raises; memory that ran out is raised as it is.
    """
    check_training_allowed()
    train, work = how.bind(view, rt), copy.deepcopy(model)
    with own_settings(rt.device), seeded_global_rngs(rt, stream):
        try:
            out = train(work)
        except Exception as e:  # the user's own code
            raise user_code_error(
                e, f"train_model: {how.name} raised {type(e).__name__}: {first_line(e)}; mend it"
            ) from e
    out = unwrap(out)
    _check(out, model, how)
    _RETURNED.add(out)
    with torch.no_grad():
        model.load_state_dict(out.state_dict())


def _check(out: object, before: nn.Module, how: TrainFunction) -> None:
    """Refuse what a loop must not return.

    Args:
        out: What it returned.
        before: The untrained model.
        how: The loop.

    Raises:
        InputError: If it is no model, another architecture, one that came before, or untrained.
        DivergedError: If weights are not finite.
    """
    who = f"train_model: {how.name}"
    if not isinstance(out, nn.Module):
        raise InputError(f"{who} returned {_kind(out)}; end it with: return model")
    if out in _RETURNED:
        raise InputError(
            f"{who} returned the same object as in a call before; train the model that it is given"
        )
    odd = structural_difference(out, before)
    if odd:
        raise InputError(
            f"{who} returned another architecture than fresh builds: {odd}; train and return the"
            " model that it is given"
        )
    trained = dict(out.named_parameters())
    for name, t in out.state_dict().items():
        if isinstance(t, torch.Tensor) and not all_finite(t):
            raise DivergedError(
                f"{who} diverged: {name} is not finite; use a smaller learning rate"
            )
    moving = [(n, p) for n, p in before.named_parameters() if p.requires_grad]
    if moving and all(tensors_equal(trained[n], p) for n, p in moving):
        raise InputError(
            f"{who} returned an untrained model: no weight differs from those it was given; step"
            " an optimiser over model.parameters()"
        )


def _kind(out: object) -> str:
    return "None" if out is None else f"a {type(out).__name__}, not a model"
