"""RMU: activations of the forget set are steered to a random direction."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.method import Problem, register
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.language.language_method import (
    ForgetStep,
    ForgetTerm,
    LanguageMethod,
    ReferenceModel,
    TokenBatch,
    language_info,
)
from unlearnkit.language.unlearning_losses import squared_distance


@register
class RepresentationMisdirection(LanguageMethod):
    """Move a layer's activations of forget rows to ``c u``, hold those of retained rows."""

    info = language_info(
        "RMU",
        "Li et al., ICML 2024, arXiv:2403.03218",
        "For topics of large models. Which layer is steered matters much; see `layer`.",
        tasks=frozenset({"causal_lm", "masked_lm"}),
        presets={"paper": {"layer": 7, "coefficient": 2.0, "retain_weight": 1.0}},
        fails=(
            "on a model of two blocks of width 32 the coefficient and weight of the preset raise"
            " the forget loss not at all before the retained loss is at its limit: forget and"
            " retained rows share their activations",
        ),
        differs=(
            "each sequence is averaged over its own places; published code averages all pairs of"
            " sequences and lengths",
            "all weights are trained, as in OpenUnlearning's configuration; the first code trained"
            " the down projections of three layers",
        ),
    )

    layer: int | None = Field(None, ge=0)
    """Block of the network whose output is steered, from 0; the one a third of the way up when
    None."""

    retain_weight: Annotated[float, SearchRange(0.1, 100, log=True)] = Field(
        10.0, ge=0, allow_inf_nan=False
    )
    """Weight of the retain term (alpha)."""

    coefficient: Annotated[float, SearchRange(0.5, 100, log=True)] = Field(
        30.0, gt=0, allow_inf_nan=False
    )
    """Length of the vector that activations are moved to (paper: c)."""

    def forget_term(self, p: Problem, rt: Runtime) -> ForgetTerm:
        """Draw the direction once; return the distance to it."""
        layer = block_name(p.model, self.layer)
        target: Tensor | None = None

        def term(step: ForgetStep) -> Tensor:
            nonlocal target
            hidden = step.rows.activations(layer)
            if target is None:
                u = torch.rand(hidden.shape[-1], generator=rt.rng("rmu/direction"))
                target = (self.coefficient * u / u.norm()).to(hidden)
            return squared_distance(hidden, target, step.rows.mask)

        return term

    def retain_term(self, seen: TokenBatch, reference: ReferenceModel) -> Tensor:
        """Return the distance of retained rows' activations from the original's."""
        layer = block_name(seen.model, self.layer)
        with torch.no_grad():
            kept = reference.of(seen).activations(layer)
        return squared_distance(seen.activations(layer), kept, seen.mask)


def block_name(model: nn.Module, place: int | None) -> str:
    """Return the name of a block of a network: of an item of its longest list of modules.

    Raises:
        UnsupportedError: If the model has no list of modules.
        InputError: If there is no such block.
    """
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    if not lists:
        raise UnsupportedError(
            "rmu: the model has no list of blocks (nn.ModuleList) whose activations could be"
            " steered; use npo or another method that works on outputs"
        )
    name = max(lists, key=lambda n: len(lists[n]))
    count = len(lists[name])
    if place is not None and place >= count:
        raise InputError(f"rmu: layer: the model has blocks 0 to {count - 1}, got {place}")
    return f"{name}.{(count - 1) // 3 if place is None else place}"
