"""Class-discriminative pruning: clients report which channels a class uses, and these go."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from unlearnkit.core.data import View
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.core.inference import predict
from unlearnkit.core.method import Info, Method, Need, Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.federated.federated_case import training_of_problem
from unlearnkit.federated.federation import rows_by_client
from unlearnkit.federated.rounds import ClientUpdates, train_in_rounds
from unlearnkit.localize.units import Block, blocks, scatter_units


@register
class ClassPruning(Method):
    """Set the channels that tell the class from others to 0, then train on in rounds without it."""

    info = Info(
        title="Class-discriminative pruning",
        cite="Wang et al., WWW 2022, arXiv:2110.11794",
        needs=frozenset({Need.FORGET, Need.RETAIN, Need.LABELS, Need.CLIENTS, Need.CLASSES}),
        tasks=frozenset({"classification"}),
        may_damage=True,
        when=(
            "For a class of a federated model, where clients may report mean activations of each"
            " class once, and ordinary rounds follow."
        ),
        differs=(
            "written from a description of the method; its settings were not compared with"
            " published code",
            "pruned channels are set to 0 in place of cut out, so that the architecture stays;"
            " they are set to 0 again after each round of repair",
            "the same share of each layer is pruned, not a share of all layers together",
            "activations of a convolution are those after its batch normalisation",
            "networks without a hidden convolution lose units of their hidden linear layers",
            "for several classes a channel counts by the class that it tells most of",
        ),
        fails=(
            "channels that several classes share stay, with what they know of the class; rounds"
            " without the class do most of the forgetting",
            "of a vision transformer it prunes channels of the patch embedding alone",
            "the reported means tell the server how a client's classes look to each channel",
        ),
        smoke={"share": 0.3, "repair": 0.1},
    )

    share: Annotated[float, SearchRange(0.02, 0.6, log=True)] = Field(0.3, ge=0, le=1)
    """Share of each layer's channels that is pruned, rounded down; 0 with no repair changes
    nothing."""

    repair: Annotated[float, SearchRange(0.05, 0.25)] = Field(0.2, ge=0, le=1)
    """Ordinary rounds on retained rows that follow, as a share of the training's rounds, rounded
    up; 0 is none."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        """Sum what clients report, prune, repair."""
        federation, retain = training_of_problem(p).federation, rows_by_client(p.retain)
        layers = hidden_layers(p.model)
        if not layers:
            rt.note("class_pruning: hidden layers are frozen: nothing is pruned before the rounds")
        reports = [
            activation_sums(p.model, layers, view, p.task, rt)
            for rows in (rows_by_client(p.forget), retain)
            for view in rows.values()
        ]
        gone = sorted(set(p.forget.y.tolist()))
        taken = []
        for i, layer in enumerate(layers.values()):
            total, count = (sum(r[i][j] for r in reports) for j in (0, 1))
            means = torch.as_tensor(total) / torch.as_tensor(count).clamp(min=1)
            scores = discrimination(means)[:, gone].amax(1)
            best = scores.argsort(descending=True, stable=True)[: int(self.share * layer.count)]
            taken.append(torch.zeros(layer.count, dtype=torch.bool).index_fill_(0, best, True))
        weights = {n: w.detach() for n, w in p.model.named_parameters()}
        masks = scatter_units(list(layers.values()), taken, weights)

        def prune(sent: ClientUpdates | None = None) -> None:
            for name, weight in weights.items():
                weight.masked_fill_(masks[name], 0)

        prune()
        if rounds := math.ceil(self.repair * federation.rounds - 1e-9):
            short = federation.model_copy(update={"rounds": rounds})
            train_in_rounds(
                p.model, retain, p.task, short, rt, stream=f"{self.id}/repair", after_round=prune
            )
        return p.model


def discrimination(means: Tensor) -> Tensor:
    """Return the TF-IDF score of each channel for each class ``(channels, C)``.

    ``A_fc / sum_f A_fc * log(C / (1 + #{c: A_fc >= mean_c A_f}))``, on mean activations A.

    Args:
        means: A, from 0 up ``(channels, C)``; a class without activations scores 0.

    Returns:
        Scores in the type of the means.
    """
    frequency = means / means.sum(0).clamp(min=torch.finfo(means.dtype).tiny)
    common = (means >= means.mean(1, keepdim=True)).sum(1).to(means.dtype)
    return frequency * torch.log(means.shape[1] / (1.0 + common))[:, None]


def hidden_layers(model: nn.Module) -> dict[str, Block]:
    """Return the layers that can be pruned, by the module whose output has their channels.

    Convolutions, each with the batch normalisation that is registered next; hidden linear layers
    where there are none. The last layer, which has the classes, is never one.

    Args:
        model: The network.

    Returns:
        One block a layer; layers whose weights are all frozen are left out.

    Raises:
        UnsupportedError: If there is no such layer.
    """
    modules = dict(model.named_modules())
    hidden = [m for m in modules.values() if isinstance(m, nn.Linear | _ConvNd)][:-1]
    if not hidden:
        raise UnsupportedError(
            "class_pruning: the model has no hidden convolution or linear layer; use"
            " federated_active_forgetting"
        )
    convolutions = [m for m in hidden if isinstance(m, _ConvNd)]
    layers = {}
    for block in blocks(model, heads=False):
        first, last = (part.name.rpartition(".")[0] for part in (block.parts[0], block.parts[-1]))
        if any(modules[first] is m for m in convolutions or hidden):
            layers[last] = block
    return layers


def activation_sums(
    model: nn.Module, layers: Mapping[str, Block], view: View, task: Task, rt: Runtime
) -> list[tuple[Tensor, Tensor]]:
    """Return what a client reports of each layer: sums of activations, and rows, of each class.

    An activation is the mean of ``max(z, 0)`` over the places of an image or a sequence.

    Args:
        model: Read only.
        layers: As ``hidden_layers`` returns them.
        view: The client's rows.
        task: With classes.
        rt: Device, precision, cost.

    Returns:
        Of each layer, float64 sums ``(channels, C)`` and counts ``(C,)``.
    """
    modules, parts = dict(model.named_modules()), {name: list[Tensor]() for name in layers}

    def listen(name: str) -> Any:
        linear = isinstance(modules[name], nn.Linear)

        def keep(module: nn.Module, inputs: object, out: Tensor) -> None:
            rows = out.detach().relu().movedim(-1 if linear else 1, 1)
            parts[name].append(rows.flatten(2).mean(2) if rows.ndim > 2 else rows)

        return modules[name].register_forward_hook(keep)

    handles = [listen(name) for name in layers]
    try:
        out = predict(model, view, task, rt)
    finally:
        for handle in handles:
            handle.remove()
    classes = out.shape[1]
    kind = nn.functional.one_hot(view.y.long(), classes).double()
    return [(torch.cat(p).double().cpu().T @ kind, kind.sum(0)) for p in parts.values()]
