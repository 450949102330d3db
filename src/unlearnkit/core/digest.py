"""Content addresses: equal content, equal key, on any machine."""

import hashlib
import inspect
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.version import MEASURES as MEASURES
from unlearnkit.core.version import NUMERICS as NUMERICS


def tensor_digest(x: Tensor) -> str:
    """Return the SHA-256 of dtype, shape and bytes of a tensor."""
    x = x.detach().cpu().contiguous()
    h = hashlib.sha256(f"{x.dtype}{tuple(x.shape)}".encode())
    if x.numel():
        h.update(x.flatten().view(torch.uint8).numpy().data)
    return h.hexdigest()


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON-able mapping; key order does not matter.

    An infinite number, as a preset without a limit has, is spelled as models spell it in JSON.
    """
    try:
        text = _plain_json(content)
    except ValueError:  # rare: long keys are not walked for it
        text = _plain_json(_with_words_for_infinity(content))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _with_words_for_infinity(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _with_words_for_infinity(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_words_for_infinity(value) for value in content]
    if isinstance(content, float) and math.isinf(content):
        return "Infinity" if content > 0 else "-Infinity"
    return content


def model_digest(model: nn.Module) -> str:
    """Return the SHA-256 of a model's state: names, types, shapes, values."""
    return digest({name: tensor_digest(t) for name, t in model.state_dict().items()})


def source_code(kind: type | ModuleType) -> str:
    """Return the source text of a class or a module; its name where there is no text."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return str(getattr(kind, "__qualname__", kind.__name__))


@cache
def source_digest() -> str:
    """Return the SHA-256 of this package's source files, names included."""
    root = Path(__file__).parents[1]
    files = sorted(root.rglob("*.py"))
    return digest(
        {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    )
