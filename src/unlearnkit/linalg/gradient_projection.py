"""Training that leaves a layer's answers to some inputs alone, to first order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from unlearnkit.core.checked import Checked
from unlearnkit.core.data import View
from unlearnkit.core.errors import InputError, UnknownNameError, UnsupportedError
from unlearnkit.core.method import format_validation_error
from unlearnkit.core.runtime import Runtime
from unlearnkit.core.search_space import SearchRange
from unlearnkit.core.task import Task
from unlearnkit.linalg.input_moments import InputMoments, matrix_of, measured_weights, weight_of

MISMATCH = 1e-3
"""Share of negative eigenvalues that rounding of a stored file does not explain."""


class RetainedSubspace(Checked):
    """How much of what layers take in on retained rows is held: the Core Gradient Space."""

    threshold: Annotated[float, SearchRange(0.7, 0.99)] = Field(0.9, ge=0, le=1)
    """Share of the spectrum that is held (paper: gamma). 0 projects nothing; 1 freezes a layer."""

    rule: Literal["energy", "singular"] = "energy"
    """What the share is of: eigenvalues of the moment, or singular values of the inputs, which
    hold far more directions at the same share."""

    count: Literal["within", "reaching"] = "within"
    """Directions whose sum stays within the share, or the fewest that reach it."""

    layers: Mapping[str, float] = Field(default_factory=dict)
    """Other shares for some weights, by pattern of the name, such as ``{"layer2.*": 0.95}``."""

    @classmethod
    def read(cls, given: str | Mapping[str, Any]) -> Self:
        """Return what a user wrote.

        Args:
            given: ``threshold``, ``rule:threshold`` or ``rule:threshold:count``, such as ``0.9`` or
                ``singular:0.95``; or fields by name.

        Returns:
            How much is held.

        Raises:
            UnknownNameError: If there is no such field.
            InputError: If a value is none of its field's, or there are too many parts.
        """
        fields = dict(given) if isinstance(given, Mapping) else _fields(given)
        wrong = next((k for k in fields if k not in cls.model_fields), None)
        if wrong is not None:
            raise UnknownNameError("field of a projection", str(wrong), cls.model_fields)
        try:
            return cls.model_validate(fields)
        except ValidationError as e:
            raise InputError(f"projection: {format_validation_error(e)}") from None

    @property
    def words(self) -> str:
        """Return it in a few words; what is as by default goes without saying."""
        said = [self.rule, f"{self.threshold:g}"]
        said += [self.count] if self.count != type(self).model_fields["count"].default else []
        return " ".join([*said, *(f"{name}={share:g}" for name, share in self.layers.items())])

    def share_of(self, name: str) -> float:
        """Return the share that is held of one weight's inputs."""
        for pattern, share in self.layers.items():
            if fnmatchcase(name, pattern):
                return share
        return self.threshold


def _fields(words: str) -> dict[str, Any]:
    parts = words.split(":")
    if len(parts) > 3:
        raise InputError(
            f"projection: expected rule:threshold:count, such as energy:0.9:within, got {words!r}"
        )
    names = ("threshold",) if len(parts) == 1 else ("rule", "threshold", "count")
    return dict(zip(names, parts, strict=False))


@dataclass(frozen=True)
class LayerProjection:
    """What is held of one weight."""

    name: str
    width: int
    """Inputs d of the layer."""

    rank: int
    """Directions that are held, the most of any group; d where the weight is frozen."""

    share: float
    """Sum of their eigenvalues, as a share of all."""

    negative_share: float
    """What the repair of a negative eigenvalue cut off, as a share of all."""

    basis: Tensor | None
    """Orthonormal ``(groups, d, rank)``; None where the whole weight is frozen."""


def retained_moments(
    kept: object, original: nn.Module, forget: View | None, retain: View | None, task: Task,
    rt: Runtime, who: str, stand_in: View | None = None,
) -> InputMoments:  # fmt: skip
    """Return the moments of the retained rows: kept ones without the forget rows, or measured.

    Args:
        kept: ``InputMoments`` of all training rows; None where none were kept.
        original: The trained model.
        forget: The rows to forget; None where there are none, and kept moments stay as they are.
        retain: The rows that stay; None, or sealed, where they are not at hand.
        task: Runs the model.
        rt: Where to run.
        who: What the error calls the caller.
        stand_in: Rows like the retained ones, measured where there is nothing else, with a note.

    Returns:
        The moments.

    Raises:
        UnsupportedError: If there are neither kept moments nor any of these rows.
    """
    if isinstance(kept, InputMoments):
        return kept if forget is None else kept - InputMoments.measure(original, forget, task, rt)
    if retain is not None and not retain.sealed_because:
        return InputMoments.measure(original, retain, task, rt)
    if stand_in is None:
        raise UnsupportedError(
            f"{who}: needs the retain set, or input moments kept after training; measure them with"
            " InputMoments.of_case and give Case(input_moments=...), on the command line --moments"
        )
    rt.note(
        f"{who}: {len(stand_in):,} validation rows stand in for the retain set, which is not at"
        " hand; input moments kept after training are better"
    )
    return InputMoments.measure(original, stand_in, task, rt)


def retained_projections(
    model: nn.Module, moments: InputMoments, how: RetainedSubspace, rt: Runtime | None = None
) -> list[LayerProjection]:
    """Return what is held of each weight whose inputs were measured.

    Args:
        model: Has the weights.
        moments: Of the inputs on retained rows.
        how: How much is held.
        rt: Takes a note where the moments do not fit the rows that were subtracted.

    Returns:
        One entry a weight, in the model's order.

    Raises:
        InputError: If a pattern fits no weight, or the moments are another model's.
    """
    layers = measured_weights(model)
    strange = sorted(moments.products.keys() - layers)
    if strange:
        raise InputError(f"input moments: of another model: this one has no weight {strange[0]!r}")
    for pattern in how.layers:
        if not any(fnmatchcase(name, pattern) for name in moments.products):
            raise InputError(
                f"layers: {pattern!r} fits no weight; there are {', '.join(moments.products)}"
            )
    held = [held_of(name, moments, how) for name in layers if name in moments.products]
    negative = max((one.negative_share for one in held), default=0.0)
    if rt is not None and negative > MISMATCH:
        rt.note(
            f"input moments: {negative:.1%} of a layer's were negative after the subtraction: they"
            " were measured on other rows, or with random augmentation"
        )
    return held


def held_of(name: str, moments: InputMoments, how: RetainedSubspace) -> LayerProjection:
    """Return what is held of one weight, by the moments of its inputs.

    Args:
        name: The weight.
        moments: Of the inputs on retained rows.
        how: How much is held.

    Returns:
        What is held.
    """
    spectrum, share = moments.spectrum(name), how.share_of(name)
    groups, width, _ = spectrum.vectors.shape
    total = spectrum.values.sum(1).clamp(min=torch.finfo(torch.float64).tiny)
    if share >= 1:
        return LayerProjection(name, width, width, 1.0, spectrum.negative_share, None)
    ranks = [directions(v, share, how) for v in spectrum.values]
    basis = spectrum.vectors[:, :, : max(ranks)].clone()
    for group, rank in enumerate(ranks):
        basis[group, :, rank:] = 0
    kept = sum(float(spectrum.values[g, :r].sum() / total[g]) for g, r in enumerate(ranks))
    return LayerProjection(name, width, max(ranks), kept / groups, spectrum.negative_share, basis)


def directions(values: Tensor, share: float, how: RetainedSubspace) -> int:
    """Return how many directions a share of the spectrum holds.

    Args:
        values: Eigenvalues ``(k,)``, largest first.
        share: From 0 to below 1.
        how: The rule.

    Returns:
        Their number; 0 where the share is 0 or the spectrum is zero.
    """
    sizes = values if how.rule == "energy" else values.sqrt()
    total = sizes.sum()
    if share == 0 or total == 0:
        return 0
    sums = (sizes.cumsum(0) / total).clamp(max=1)
    if how.count == "within":
        return int((sums <= share).sum())
    return int((sums < share).sum()) + 1


class GradientProjection:
    """Keeps what training moves orthogonal to the inputs that are held; all else stays in place.

    The way that a weight has gone since the start is projected, ``D (I - U U^T)``, after each
    step: momentum, weight decay and Adam's scaling cannot leave the complement either. Parameters
    that have no projection (biases, normalisation, layers that were not measured) are frozen, as
    published.
    """

    def __init__(self, model: nn.Module, held: list[LayerProjection]) -> None:
        """Take the weights as they are now.

        Args:
            model: Its trainable parameters are held.
            held: What is held of each; a parameter that is missing is frozen.
        """
        layers = measured_weights(model)
        by_name = {one.name: one for one in held}
        self._parts: list[tuple[nn.Parameter, Tensor, nn.Module | None, Tensor | None]] = []
        for name, p in model.named_parameters():
            if p.requires_grad:
                one = by_name.get(name)
                basis = None if one is None or one.basis is None else one.basis.to(p)
                layer = layers[name] if basis is not None else None
                self._parts.append((p, p.detach().clone(), layer, basis))
        self._versions = [p._version for p, *_ in self._parts]

    def project(self) -> None:
        """Take the held directions out of the gradients."""
        for p, _, layer, basis in self._parts:
            if p.grad is not None:
                p.grad.copy_(_outside(p.grad, layer, basis))

    def restore(self) -> None:
        """Take the held directions out of the way that each weight has gone."""
        if [p._version for p, *_ in self._parts] == self._versions:
            return
        with torch.no_grad():
            for p, start, layer, basis in self._parts:
                if basis is None or basis.shape[2]:
                    p.copy_(start + _outside(p - start, layer, basis))
        self._versions = [p._version for p, *_ in self._parts]


def _outside(moved: Tensor, layer: nn.Module | None, basis: Tensor | None) -> Tensor:
    """Return the part of a change that the held inputs do not see; none where all is frozen."""
    if layer is None or basis is None:
        return torch.zeros_like(moved)
    matrix = matrix_of(layer, moved)
    return weight_of(layer, matrix - (matrix @ basis) @ basis.mT, moved.shape)
