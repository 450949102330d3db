"""Adapters: low-rank weights that are trained while a model's own stay."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearnkit.core.checked import Checked
from unlearnkit.core.errors import InputError, UnsupportedError

_SERVED = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")


class LowRankAdapter(Checked):
    """A LoRA adapter, in the words of ``peft.LoraConfig``; such a config is taken as it is."""

    r: int = Field(16, ge=1)
    """Rank."""

    lora_alpha: float = Field(32, gt=0, allow_inf_nan=False)
    """Scale: the product of the two small matrices counts ``lora_alpha / r`` times."""

    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that are dropped in training."""

    target_modules: tuple[str, ...] | str = "all-linear"
    """Layers that get an adapter, by the ends of their names; all linear ones but the head."""

    use_rslora: bool = False
    """Whether the scale is ``lora_alpha / sqrt(r)``."""

    use_dora: bool = False
    """Whether direction and length of weights are adapted apart (DoRA)."""

    @model_validator(mode="before")
    @classmethod
    def _of_peft(cls, given: Any) -> Any:
        """Read a ``LoraConfig``; what it sets besides the fields here is refused."""
        if isinstance(given, Mapping) or not hasattr(given, "to_dict"):
            return given
        settings = given.to_dict()
        usual = type(given)().to_dict()
        if str(getattr(settings["peft_type"], "value", settings["peft_type"])) != "LORA":
            raise ValueError("must be a LoraConfig")
        skip = {*_SERVED, "task_type", "inference_mode"}
        odd = [k for k, v in settings.items() if k not in skip and v != usual.get(k)]
        if odd:
            raise ValueError(f"LoraConfig with {odd[0]} is not supported; set {', '.join(_SERVED)}")
        read = {k: settings[k] for k in _SERVED}
        targets = read["target_modules"]
        if targets is None:
            del read["target_modules"]
        elif not isinstance(targets, str):
            read["target_modules"] = tuple(sorted(targets))
        return read


def add_adapter(model: nn.Module, settings: LowRankAdapter) -> nn.Module:
    """Return a ``PeftModel`` around a model, which it changes: only the adapter is trained.

    Args:
        model: Its layers are replaced in place.
        settings: Of the adapter, which starts as the zero map.

    Returns:
        The model with its adapter.

    Raises:
        UnsupportedError: If PEFT is not installed.
        InputError: If the model has an adapter, or no layer has one of the names.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise UnsupportedError(
            "peft_config: needs the package peft; pip install 'unlearnkit[hf]'"
        ) from None
    if hasattr(model, "peft_config"):
        raise InputError(
            "peft_config: the model has an adapter already; leave peft_config out to train that"
            " one, or call model.merge_and_unload() first"
        )
    targets = settings.target_modules
    how = LoraConfig(
        **settings.model_dump(exclude={"target_modules"}),
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM" if hasattr(model, "prepare_inputs_for_generation") else None,
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),
    )
    try:
        with warnings.catch_warnings():
            # Said of each linear layer of a model that has transposed ones too; it is set right.
            warnings.filterwarnings("ignore", message=".*fan_in_fan_out is set to")
            # PEFT 0.21 asks transformers 5 for a flag by its old name.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            adapted: nn.Module = get_peft_model(model, how)
    except ValueError as e:
        raise InputError(f"peft_config: {str(e).splitlines()[0]}") from e
    return adapted


def negated_adapter(
    start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return the adapter whose product is ``-alpha`` times a tuned one's.

    Args:
        start: The adapter's state before tuning; its second matrices are zero.
        tuned: After it.
        alpha: How far to go.

    Returns:
        A state by the same names: the first matrices as tuned, the second times ``-alpha``.

    Raises:
        UnsupportedError: If the adapter was not new: the difference then has twice its rank.
    """
    second = [n for n in tuned if ".lora_B." in n]
    if not second or any(bool(start[n].any()) for n in second):
        raise UnsupportedError(
            "task_vector: the model's adapter was trained before, and the difference of two"
            " adapters has twice their rank; call model.merge_and_unload() and give peft_config="
        )
    return {n: -alpha * t if n in second else t for n, t in tuned.items()}


def adapter_note(model: nn.Module) -> str:
    """Return what a reader must know of a result that is an adapter."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained, total = sum(n for n, moves in sizes if moves), sum(n for n, _ in sizes)
    return (
        f"only an adapter was trained, {trained:,} of {total:,} parameters; the base model under it"
        " still holds the forget set: ship model.merge_and_unload(), or keep the base where nobody"
        " can switch the adapter off"
    )
