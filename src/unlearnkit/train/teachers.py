"""Untrained teachers: the same architecture with weights drawn anew."""

import copy
import math

import torch
from torch import Tensor, nn

from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.task import Task
from unlearnkit.train.rng_guard import seeded_global_rngs

BARE_STD = 0.02
"""Deviation of parameters that belong to no layer with an initialiser, such as a class token."""


def untrained_teacher(model: nn.Module, rt: Runtime, stream: str) -> nn.Module:
    """Return a copy of a model in which every module is initialised again, frozen, in eval mode.

    Layers with ``reset_parameters`` (or ``reset_running_stats``) draw as when they are built; other
    parameters are drawn from a Gaussian. A model's factory is not called: it may load pretrained
    weights.

    Raises:
        UnsupportedError: If a tensor of it still equals the trained one.
    """
    twin = copy.deepcopy(model)
    with seeded_global_rngs(rt, stream), torch.no_grad():
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            else:
                for p in module.parameters(recurse=False):
                    p.copy_(BARE_STD * torch.randn(p.shape).to(p))
    kept = uninitialised_tensor(twin, model)
    if kept:
        raise UnsupportedError(
            f"teacher: {kept} is as in the trained model after every layer was reset; choose"
            " another teacher, such as 'prior'"
        )
    return twin.eval().requires_grad_(False)


def uninitialised_tensor(model: nn.Module, trained: nn.Module) -> str:
    """Return the name of a tensor that equals the trained model's; empty if there is none.

    Tensors of one value throughout, such as scales at 1, say nothing and are left out; so are
    those that are not trained and hold no statistics of data (buffers of whole numbers).
    """
    theirs = trained.state_dict()
    for name, t in model.state_dict().items():
        if not t.is_floating_point() or bool((t == t.reshape(-1)[:1]).all()):
            continue
        if torch.equal(t, theirs[name]):
            return name
    return ""


def mean_output(outs: Tensor, task: Task) -> Tensor:
    """Return the mean over the first dimension of outputs ``(M, ..., K)``.

    Probabilities are averaged where outcomes exclude each other, outputs elsewhere.
    """
    logp = task.log_probs(outs)
    if logp is None:
        return outs.mean(0)
    return logp.logsumexp(0) - math.log(len(outs))
