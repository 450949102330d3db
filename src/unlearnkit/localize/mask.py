"""Mask: the scalars of one model that may change."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from unlearnkit.core.digest import digest, model_digest, tensor_digest
from unlearnkit.core.errors import InputError
from unlearnkit.core.files import check_regular, write_bytes


class Layer(NamedTuple):
    """How much of one layer a mask lets move."""

    name: str
    """Empty for the model's own parameters, which stand in no layer."""

    scalars: int
    chosen: int

    @property
    def share(self) -> float:
        """Return the share of the layer's scalars that may move."""
        return self.chosen / max(1, self.scalars)


@dataclass(frozen=True)
class Mask:
    """Some scalars of a model's trainable parameters, chosen for some forget rows."""

    chosen: Mapping[str, Tensor]
    """True where a scalar may move, by parameter name; a tied parameter has one name."""

    budget: float
    """Share of the trainable scalars that was requested."""

    criterion: str
    granularity: str

    model: str
    """Digest of the weights that it was made for."""

    forget: str
    """Digest of the rows that it was made for."""

    seed: int = 0

    found_by: Mapping[str, Any] | None = None
    """Fields of the ``Localizer`` that chose, so that it can choose on other models too; None where
    something else did."""

    @property
    def size(self) -> int:
        """Return how many scalars may move."""
        return sum(int(m.sum()) for m in self.chosen.values())

    @property
    def share(self) -> float:
        """Return the share of the trainable scalars that may move."""
        return self.size / max(1, sum(m.numel() for m in self.chosen.values()))

    def layers(self) -> list[Layer]:
        """Return how much of each layer may move, in the model's order."""
        found: dict[str, list[Tensor]] = {}
        for name, m in self.chosen.items():
            found.setdefault(name.rpartition(".")[0], []).append(m)
        return [
            Layer(n, sum(m.numel() for m in ms), sum(int(m.sum()) for m in ms))
            for n, ms in found.items()
        ]

    def shares(self) -> dict[str, float]:
        """Return the share of each layer's scalars that may move, in the model's order."""
        return {layer.name: layer.share for layer in self.layers()}

    def digest(self) -> str:
        """Return the digest of which scalars may move."""
        return digest({n: tensor_digest(m) for n, m in self.chosen.items()})

    def facts(self) -> dict[str, Any]:
        """Return how it was found and how large it is, for a record."""
        told = {k: v for k, v in vars(self).items() if k != "chosen" and v is not None}
        return {**told, "scalars": self.size, "share": self.share, "digest": self.digest()}

    def check(self, model: nn.Module, forget: str) -> None:
        """Refuse a model or forget rows (their digest) that the mask was not made for."""
        self.check_form(model)
        if self.model != model_digest(model):
            raise InputError(
                "mask: made for a model with other weights; find a mask for this model"
            )
        if self.forget != forget:
            raise InputError(
                "mask: made for other forget rows than the request's; find a mask for this request"
            )

    def check_form(self, model: nn.Module) -> None:
        """Refuse a model of another architecture, and a mask that selects nothing."""
        params = {n: p for n, p in model.named_parameters() if p.requires_grad}
        odd = sorted(set(params) ^ set(self.chosen))
        if odd:
            named = set(dict(model.named_parameters(remove_duplicate=False)))
            why = "which the model does not have"
            if odd[0] in params:
                why = "which it does not cover"
            elif odd[0] in named:
                why = "which the model has frozen or tied to another"
            raise InputError(
                f"mask: belongs to another model, got {odd[0]}, {why}; find a mask for this model"
            )
        for name, p in params.items():
            if self.chosen[name].dtype != torch.bool or self.chosen[name].shape != p.shape:
                raise InputError(
                    f"mask: {name} must be truth values of shape {tuple(p.shape)}, got"
                    f" {self.chosen[name].dtype} {tuple(self.chosen[name].shape)}; find a mask for"
                    " this model"
                )
        if not self.size:
            raise InputError("mask: selects no parameter, so nothing can move; raise its budget")

    def save(self, path: str | Path) -> Path:
        """Write the mask as safetensors, whole or not at all; return the path."""
        told = {k: v for k, v in vars(self).items() if k != "chosen"}
        tensors = {n: m.cpu().contiguous() for n, m in self.chosen.items()}
        raw = safetensors.torch.save(tensors, {_KEY: json.dumps(told, sort_keys=True)})
        return write_bytes(Path(path), raw)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read a mask that ``save`` wrote; another file is an error."""
        check_regular(Path(path), "mask")
        try:
            with safetensors.safe_open(str(path), "pt") as f:
                told = json.loads((f.metadata() or {})[_KEY])
                chosen = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118  # not a mapping
            return cls(chosen=chosen, **told)
        except OSError as e:
            raise InputError(f"mask: cannot read {str(path)!r}: {e}") from None
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise InputError(
                f"mask: {str(path)!r} holds no mask; give a file that Mask.save wrote"
            ) from None


_KEY = "unlearnkit_mask"
