"""The last layers of a model: counted from the output, and trained while earlier ones are held."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrize import is_parametrized

from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.train.batch_norm import eval_norms
from unlearnkit.train.weight_perturbation import mix_with_untrained

NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class WeightLayer:
    """A module with a weight matrix or kernel, and what belongs to it."""

    name: str
    """Of the module with the weight; empty for the model itself."""

    modules: list[nn.Module] = field(repr=False)
    """The module, and those without such a weight that follow, such as its normalisation."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters; one that is tied comes in each of its layers."""
        for m in self.modules:
            yield from m.parameters(recurse=False)


def weight_layers(model: nn.Module) -> list[WeightLayer]:
    """Return the layers of a model in the order of ``named_modules``, which should be the data's.

    A layer is a module that owns a parameter of two or more dimensions, with the modules up to the
    next one: normalisation, biases, activations. Normalisation never starts a layer. What comes
    before the first weight belongs to the first layer; what a reparametrised module holds is its
    own. A module that is registered twice counts where it comes first.
    """
    found: list[WeightLayer] = []
    early: list[nn.Module] = []
    inside = ""
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            found[-1].modules.append(module)
            continue
        whole = is_parametrized(module)
        weights = (p.ndim >= 2 for p in module.parameters(recurse=whole))
        if any(weights) and not isinstance(module, NORMALISATIONS):
            found.append(WeightLayer(name, [*early, module]))
            early = []
            inside = f"{name}." if whole and name else ""
        else:
            (found[-1].modules if found else early).append(module)
    return found


@contextmanager
def earlier_layers_held(
    model: nn.Module, count: int, rt: Runtime, who: str
) -> Iterator[list[nn.Module]]:
    """Hold all layers of a model but the last ones, in every bit of parameters and buffers.

    Parameters of earlier layers stop requiring gradients, their batch normalisation is in eval
    mode, and their buffers are restored at the end. Flags and modes stay so afterwards: whoever
    fits running statistics then sees which layers are held. A note names the last layers.

    Args:
        model: Changed in place; it ends in train mode but for what is held.
        count: How many layers are not held, from the output.
        rt: Takes the note.
        who: Whose the count is, for errors and the note.

    Yields:
        The modules that are held. A count that ``check_last_layers`` refuses is refused, and so are
        last layers that share a weight with an earlier one.
    """
    layers = weight_layers(model)
    check_last_layers(layers, count, who)
    _refuse_shared(model, layers, count, who)
    rt.note(
        f"{who}: {count} of {len(layers)} layers trained, in the order of registration from"
        f" {layers[-count].name!r} on"
    )
    held = [m for layer in layers[: len(layers) - count] for m in layer.modules]
    still = set(eval_norms(model).values()) | {m for m in held if isinstance(m, _BatchNorm)}
    model.train()
    for m in still:
        m.eval()
    for m in held:
        for p in m.parameters(recurse=False):
            p.requires_grad_(False)
    kept = [(t, t.detach().clone()) for m in held for t in m.buffers(recurse=False)]
    yield held
    with torch.no_grad():
        for t, was in kept:
            t.copy_(was)


def check_last_layers(layers: list[WeightLayer], count: int, who: str) -> None:
    """Refuse a number of last layers that a model does not have, or that are frozen.

    Args:
        layers: All of its layers.
        count: How many are meant, from the output.
        who: Whose the count is, for errors.

    Raises:
        InputError: If there are fewer layers, or the last ones are frozen.
    """
    if count > len(layers):
        raise InputError(
            f"{who}: layers: got {count}, and the model has {len(layers)} with a weight matrix or"
            f" kernel; give {len(layers)} at most"
            if layers
            else f"{who}: the model has no layer with a weight matrix or kernel; use finetune"
        )
    cut = len(layers) - count
    if not any(p.requires_grad for layer in layers[cut:] for p in layer.parameters()):
        raise InputError(
            f"{who}: all is frozen from layer {layers[cut].name!r} on, so nothing would be trained;"
            " call requires_grad_(True) on it, or give more layers"
        )


def _refuse_shared(model: nn.Module, layers: list[WeightLayer], count: int, who: str) -> None:
    """Refuse last layers that share a weight with an earlier one, which has to stay."""
    cut = len(layers) - count
    last = {id(p) for layer in layers[cut:] for p in layer.parameters() if p.requires_grad}
    shared = last & {id(p) for layer in layers[:cut] for p in layer.parameters()}
    if shared:
        names = [n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in shared]
        raise InputError(
            f"{who}: layers: {names[-1]!r} is also {names[0]!r} of an earlier layer, which has to"
            f" stay; give another number of layers than {count}, up to {len(layers)}"
        )


def reset_last_layers(p: Problem, share: float, renew: float, rt: Runtime, who: str) -> None:
    """Give the last layers untrained weights and buffers, and mix weights of the earlier ones.

    Args:
        p: Its model is changed in place; parameters that do not require gradients stay.
        share: Of the layers, counted from the output; the nearest number, at least one.
        renew: Share of untrained weights in the earlier layers, from 0 to 1.
        rt: Takes a note that names the last layers.
        who: Whose they are, for errors and the note.

    A model without layers, and last ones that are frozen, are refused as by ``check_last_layers``.
    A weight that the last layers share with earlier ones starts untrained.
    """
    layers = weight_layers(p.model)
    count = max(1, round(share * len(layers)))
    check_last_layers(layers, count, who)
    cut = len(layers) - count
    rt.note(
        f"{who}: {count} of {len(layers)} layers start untrained, in the order of registration"
        f" from {layers[cut].name!r} on"
    )
    mix_with_untrained(p, renew, [m for layer in layers[cut:] for m in layer.modules])
