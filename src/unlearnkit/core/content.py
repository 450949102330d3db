"""Content of objects: settings and code as JSON, for content addresses."""

from __future__ import annotations

import builtins
import datetime
import dis
import enum
import functools
import hashlib
import json
import random
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from numbers import Number
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    EllipsisType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    NotImplementedType,
    UnionType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unlearnkit.core.digest import digest, source_code, tensor_digest

_OWN = "unlearnkit"
_OPAQUE = ("logging", "threading", "_thread", "multiprocessing", "io", "_io", "weakref", "socket")
"""Modules whose objects say nothing about what is computed: locks, files, loggers."""

_FILES = ("io", "_io", "multiprocessing", "socket")
"""Those of them that say something about what is computed, and do not say what."""

_PRINTED = (
    *(range, slice, re.Pattern, Number, np.dtype, torch.memory_format, torch.layout),
    *(datetime.date, datetime.time, datetime.timedelta, EllipsisType, NotImplementedType),
    *(GenericAlias, UnionType, GetSetDescriptorType, MemberDescriptorType),
)
"""Objects without attributes that their printed form tells whole."""

_WEIGHTS = {"_parameters", "_buffers", "_modules", "training", "_flat_weights", "_flat_weight_refs"}
"""Attributes of a module that are weights, or flags that training sets itself."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LONG = 256


def content_digest(value: object) -> str:
    """Return the SHA-256 of an object's settings and code.

    Objects that compute the same have the same digest in every process. A function counts with its
    compiled code, defaults, closure and the global names it uses; an object with its class, base
    classes and attributes. Libraries count by name and version, this package by name: ``NUMERICS``
    stands for its code.
    """
    return digest({"content": _Reader().read(value)})


class NoDigestError(Exception):
    """What a function reads has no content that can be known; says what it is."""


def strict_digest(value: object) -> str:
    """Return what ``content_digest`` returns, of what can be read in whole alone.

    Args:
        value: Anything.

    Returns:
        The digest. Raised is ``NoDigestError`` for what holds a file, a generator, an iterator, an
        object of compiled code that does not show what it holds, or code that imports a module of
        the user's own inside a function.
    """
    return digest({"content": _Reader(strict=True).read(value)})


def attribute_digests(value: object) -> dict[str, str]:
    """Return the digest of each attribute of an object, and that of its class as ``class``."""
    held = {**dict(_state(value)), "class": type(value)}
    return {name: content_digest(v) for name, v in held.items()}


def architecture_digest(model: nn.Module) -> str:
    """Return the SHA-256 of what a model computes, weights apart.

    Layers as printed, every attribute of every module (settings, activation functions, hooks), the
    code of every class from outside torch with its base classes, which parameters are frozen, which
    layers are in eval mode inside a model in train mode, and which names share one tensor.
    """
    reader = _Reader()
    layers = dict(model.named_modules())
    for name, layer in layers.items():
        reader.know(layer, name)
    named = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    return digest(
        {
            "layers": repr(model),
            "settings": {n: reader.module(layer) for n, layer in layers.items()},
            "eval": [n for n, layer in layers.items() if model.training and not layer.training],
            "frozen": sorted(n for n, p in named.items() if not p.requires_grad),
            "shared": {n: first.setdefault(id(p), n) for n, p in named.items()},
        }
    )


class _Reader:
    """Reads objects, each once: a second sight of one is a reference to the first."""

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._seen: dict[int, str] = {}
        self._alive: list[object] = []

    def know(self, value: object, name: str) -> None:
        """Take an object as read, under a name."""
        self._seen[id(value)] = name
        self._alive.append(value)

    def read(self, value: object) -> Any:
        """Return the content of a value, JSON-able."""
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float | complex | enum.Enum | torch.dtype | torch.device | Path):
            return [type(value).__name__, repr(value)]
        if isinstance(value, bytes | bytearray):
            return hashlib.sha256(value).hexdigest()
        if isinstance(value, Tensor):
            return tensor_digest(value)
        if isinstance(value, list | tuple | Mapping) and (short := _plain(value)):
            return short
        if id(value) in self._seen:
            return {"again": self._seen[id(value)]}
        self.know(value, str(len(self._seen)))
        return self._compound(value)

    def module(self, layer: nn.Module) -> Any:
        """Return the class and the attributes of a module, without its weights."""
        held = {n: v for n, v in vars(layer).items() if n not in _WEIGHTS}
        # Hooks stand under numbers that a process counts up.
        state = {
            n: list(v.values()) if "hook" in n and isinstance(v, Mapping) else v
            for n, v in held.items()
            if not isinstance(v, nn.Parameter)
        }
        unsaved = {
            n: b for n, b in layer._buffers.items() if n in layer._non_persistent_buffers_set
        }
        return [self.read(type(layer)), self._items({**state, "unsaved": unsaved})]

    def _compound(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._items(value)
        if isinstance(value, list | tuple):
            return [type(value).__name__, *map(self.read, value)]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.read(v), sort_keys=True) for v in value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return value.__name__
        if isinstance(value, CodeType):
            return self._code(value)
        return self._callable(value) or self._object(value)

    def _items(self, value: Mapping[Any, Any]) -> Any:
        return sorted(
            ([json.dumps(self.read(k), sort_keys=True), self.read(v)] for k, v in value.items()),
            key=lambda item: str(item[0]),
        )

    def _callable(self, value: Any) -> Any:
        if isinstance(value, functools.partial):
            return [self.read(value.func), self.read(value.args), self.read(value.keywords)]
        if isinstance(value, staticmethod | classmethod):
            return self.read(value.__func__)
        if isinstance(value, property):
            return [self.read(value.fget)]
        if isinstance(value, MethodType):
            return [self.read(value.__func__), self.read(value.__self__)]
        if isinstance(value, BuiltinFunctionType):
            self._check_owner(value)
            return f"{value.__module__}.{value.__qualname__}"
        if isinstance(value, FunctionType):
            return self._function(value)
        return None

    def _function(self, value: FunctionType) -> Any:
        known = _library(value.__module__ or "builtins")
        if known and known != "builtins":  # no function in Python is of that module
            return f"{known}:{value.__qualname__}"
        cells = [self._cell(c) for c in value.__closure__ or ()]
        names = {n for code in _codes(value.__code__) for n in code.co_names}
        used = {n: value.__globals__[n] for n in sorted(names) if n in value.__globals__}
        # Of a module of the user's own, what the code can reach by name.
        parts = _parts(used, sorted(names))
        if self._strict:
            _check_imports(value.__code__)
        return {
            "code": self._code(value.__code__),
            "defaults": self.read([value.__defaults__, value.__kwdefaults__]),
            "closure": cells,
            "globals": self._items(used),
            "modules": self._items(parts),
        }

    def _cell(self, cell: Any) -> Any:
        try:
            return self.read(cell.cell_contents)
        except ValueError:  # not filled yet
            return "empty"

    def _code(self, code: CodeType) -> Any:
        return [code.co_code.hex(), list(code.co_names), [self.read(c) for c in code.co_consts]]

    def _class(self, kind: type) -> Any:
        return [self._own_class(k) for k in kind.__mro__ if k is not object]

    def _own_class(self, kind: type) -> Any:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__.partition(".")[0] == _OWN:
            return [name, source_code(kind) if issubclass(kind, nn.Module) else ""]
        known = _library(kind.__module__)
        if known and (known != "builtins" or hasattr(builtins, kind.__qualname__)):
            return f"{known}:{kind.__qualname__}"
        own = {
            n: v
            for n, v in vars(kind).items()
            if not n.startswith(("__", "_abc_")) or isinstance(v, FunctionType)
        }
        return [name, self._items(own)]

    def _object(self, value: Any) -> Any:
        kind = type(value)
        top = kind.__module__.partition(".")[0]
        if self._strict and (top in _FILES or isinstance(value, random.Random)):
            raise NoDigestError(f"a {kind.__qualname__}, whose content cannot be known")
        if top in _OPAQUE:
            return kind.__qualname__
        if isinstance(value, nn.Module):
            return [
                self.module(value),
                self._items(value.state_dict()),
                self._items(value._modules),
            ]
        if hasattr(value, "iloc") and hasattr(value, "index"):  # pandas
            parts = [(str(c), value[c].tolist()) for c in getattr(value, "columns", ())]
            return [kind.__qualname__, self.read([list(value.index), parts or value.tolist()])]
        if hasattr(value, "__array__") and hasattr(value, "tobytes"):
            if str(getattr(value, "dtype", "")) == "object":
                return self.read(value.tolist())
            raw = hashlib.sha256(value.tobytes()).hexdigest()
            return [str(value.dtype), list(value.shape), raw]
        state = dict(_state(value))
        if state:
            return [self.read(kind), self._items(state)]
        if self._strict and not isinstance(value, _PRINTED) and kind is not object:
            self._check_known(value)
        return [self.read(kind), _ADDRESS.sub("", repr(value))]

    def _check_known(self, value: object) -> None:
        """Refuse an object of compiled code without attributes, but for a function by its name."""
        kind = type(value)
        if callable(value) and hasattr(value, "__name__"):
            self._check_owner(value)
        elif _library(kind.__module__):
            raise NoDigestError(f"a {kind.__qualname__}, whose content cannot be known")

    def _check_owner(self, value: Any) -> None:
        """Refuse a method of an object of compiled code: its name does not say what it holds."""
        owner = getattr(value, "__self__", None)
        if self._strict and owner is not None and not isinstance(owner, ModuleType | type):
            raise NoDigestError(f"{value.__name__} of an object whose content cannot be known")


def _parts(used: Mapping[str, object], names: list[str]) -> dict[str, object]:
    """Return what code can reach by name in modules of the user's own, modules in them as well."""
    found: dict[str, object] = {}
    todo = [(n, m) for n, m in used.items() if isinstance(m, ModuleType)]
    seen: set[int] = set()
    while todo:
        path, module = todo.pop()
        if id(module) in seen or _library(module.__name__):
            continue
        seen.add(id(module))
        inside = {f"{path}.{n}": getattr(module, n) for n in names if hasattr(module, n)}
        found |= inside
        todo += [(n, m) for n, m in inside.items() if isinstance(m, ModuleType)]
    return found


def _check_imports(code: CodeType) -> None:
    """Refuse code that imports a module of the user's own when it runs: it cannot be read."""
    for part in _codes(code):
        for step in dis.get_instructions(part):
            if step.opname == "IMPORT_NAME" and not _library(str(step.argval)):
                raise NoDigestError(
                    f"the module {step.argval!r}, imported inside the function (import it at the"
                    " top of the file)"
                )


def _state(value: object) -> Iterator[tuple[str, object]]:
    """Yield the attributes that an object holds itself, slots included."""
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in {"__dict__", "__weakref__"} and hasattr(value, name):
                yield name, getattr(value, name)


def _plain(value: object) -> Any:
    """Return a long JSON-able collection as its digest: it is read in one go; None otherwise."""
    if not isinstance(value, list | tuple | dict) or len(value) < _LONG:
        return None
    try:
        text = json.dumps(value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


@functools.cache
def _library(name: str) -> str | None:
    """Return name and version of a module that is installed; None of the user's own."""
    top = name.partition(".")[0]
    if top in {_OWN, "torch", "builtins"} or top in sys.stdlib_module_names - {"__main__"}:
        return name
    file = getattr(sys.modules.get(top), "__file__", None)
    places = [sysconfig.get_path(p) for p in ("purelib", "platlib")]
    if file is None or not any(Path(file).is_relative_to(p) for p in places):
        return None
    return f"{name}@{getattr(sys.modules[top], '__version__', '')}"
