"""Wrapped models: the plain module inside of what frameworks put around it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.prune import BasePruningMethod

from unlearnkit.core.errors import InputError

_INSIDE = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}
"""Where wrappers that compute what their module computes keep it, by class name."""

_LEAD = re.compile(r"(?:module|_orig_mod|model|_module)\.")
_COMPILED = re.compile(r"(?<=\.)_orig_mod\.")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside of ``torch.compile`` and (distributed) ``DataParallel``.

    Wrappers hide parameters from per-row gradients and are part of an architecture's names; what
    they compute is what the module computes.

    Args:
        model: Any module; not changed.

    Returns:
        The innermost module; the model itself where nothing is wrapped.
    """
    while isinstance(model, nn.Module):
        inside = getattr(model, _INSIDE.get(type(model).__name__, ""), None)
        if not isinstance(inside, nn.Module):
            break
        model = inside
    return model


def hold_adapter_base(model: nn.Module) -> nn.Module:
    """Hold the statistics of frozen normalisation layers of a model with PEFT adapters, in place.

    Only its adapters are trained; what the base computes has to stay, or adapters could not be
    shipped without it. Such layers are put in eval mode, which training leaves them in.

    Args:
        model: Other models are left alone.

    Returns:
        The same model.
    """
    still = moving_statistics(model) if hasattr(model, "peft_config") else {}
    if still:
        model.train()
        for layer in still.values():
            layer.eval()
    return model


def moving_statistics(model: nn.Module) -> dict[str, nn.Module]:
    """Return normalisation layers with frozen weights whose statistics training would move."""
    parts = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}
    held = {n: m for n, m in parts.items() if model.training and not m.training}
    return {
        n: m
        for n, m in parts.items()
        if n not in held
        and m.track_running_stats
        and m.weight is not None
        and not any(p.requires_grad for p in m.parameters())
    }


def check_module(model: object) -> None:
    """Refuse what is no module that can be copied and trained further.

    Args:
        model: What the user passed as a model.

    Raises:
        InputError: With the call that mends it.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"model: must be a torch module, got {_kind(model)}; {_remedy(model)}")
    names = {c.__name__ for c in type(model).__mro__}
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model: a ScriptModule cannot be trained further here; pass the nn.Module that it was"
            " scripted or traced from, with its weights loaded"
        )
    if "_StatefulGraphModule" in names:
        raise InputError(
            "model: a model of torch.export cannot be trained further here; pass the nn.Module"
            " that it was exported from, with its weights loaded"
        )
    if "GradSampleModule" in names:
        raise InputError(
            "model: a GradSampleModule keeps gradients of its own; pass model.to_standard_module()"
        )
    for name, layer in model.named_modules():
        _check_leaves(name, layer)


def _kind(model: object) -> str:
    kind = model if isinstance(model, type) else type(model)
    library = kind.__module__.partition(".")[0]
    known = {"sklearn": "scikit-learn", "xgboost": "XGBoost", "lightgbm": "LightGBM"}
    shown = f"the class {kind.__name__}" if isinstance(model, type) else kind.__name__
    return f"{shown} of {known[library]}" if library in known else shown


def _remedy(model: object) -> str:
    """Return what to do with something that is no module."""
    if isinstance(model, type):
        return "pass an instance, with its weights loaded"
    if isinstance(model, Mapping) and model and all(isinstance(v, Tensor) for v in model.values()):
        return "load the state dict into the module that it belongs to"
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        return "pass uk.load_weights(make_model(), path)"
    if isinstance(getattr(model, "model", None), nn.Module):
        return "pass its .model"
    if hasattr(model, "fit") or hasattr(model, "predict"):
        return (
            "no method changes such a model in place. Fit it again on the rows that stay"
            " (case.partition(request).retain), which is exact. Linear models that can remove rows,"
            " labels and features are in unlearnkit.linear"
        )
    if type(model).__name__ == "ExportedProgram":
        return "pass the nn.Module that it was exported from, with its weights loaded"
    return "pass the torch.nn.Module that was trained"


_OLD = {
    "WeightNorm": (
        "nn.utils.weight_norm",
        "nn.utils.remove_weight_norm(layer)",
        "nn.utils.parametrizations.weight_norm(layer)",
    ),
    "SpectralNorm": (
        "nn.utils.spectral_norm",
        "nn.utils.remove_spectral_norm(layer)",
        "nn.utils.parametrizations.spectral_norm(layer)",
    ),
}


def _check_leaves(name: str, layer: nn.Module) -> None:
    """Refuse weights that hooks compute before each forward pass: no copy can carry them."""
    where = f"model: {name or 'the model'!r}"
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            weight = hook._tensor_name
            raise InputError(
                f"{where} is pruned by a hook, which no copy can carry; call"
                f" torch.nn.utils.prune.remove(layer, {weight!r}) for each such layer (its zeros"
                " become ordinary weights), or keep the mask with torch.nn.utils.parametrize"
            )
        old = _OLD.get(type(hook).__name__)
        if old is not None:
            raise InputError(
                f"{where} has the hook of {old[0]}, which no copy can carry; call torch.{old[1]},"
                f" or use torch.{old[2]}"
            )


def strip_prefixes(
    found: Mapping[str, Tensor], want: Iterable[str]
) -> tuple[dict[str, Tensor], str]:
    """Return a state dict without what wrappers put before its names, and what that was.

    Leading ``module.``, ``_orig_mod.``, ``model.`` and ``_module.`` that all names share are taken
    off one by one, and ``_orig_mod.`` inside of names, as far as more names are the model's.

    Args:
        found: Tensors by name, from a file.
        want: Names of the model.

    Returns:
        The tensors, and the prefix; the tensors as they are, and an empty text, where that fits
        best.
    """
    wanted, best = set(want), dict(found)
    prefix, lead, now = "", "", dict(found)
    while now:
        inner = {_COMPILED.sub("", name): t for name, t in now.items()}
        for names, extra in ((now, ""), (inner, "_orig_mod. inside")):
            if len(names) == len(found) and len(wanted & set(names)) > len(wanted & set(best)):
                best, prefix = dict(names), " and ".join(filter(None, (lead, extra)))
        first = _LEAD.match(next(iter(now)))
        if first is None or not all(name.startswith(first[0]) for name in now):
            break
        lead, now = lead + first[0], {name.removeprefix(first[0]): t for name, t in now.items()}
    return best, prefix
