"""Catalogue: finds methods, metrics, tasks and cases."""

import importlib
import pkgutil
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import unlearnkit.cases
import unlearnkit.methods
import unlearnkit.metrics
import unlearnkit.tasks
from unlearnkit.cases.registry import CASES, CaseEntry
from unlearnkit.core.auto_method import AUTO, Auto
from unlearnkit.core.border import border, first_line
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.method import METHODS, Method
from unlearnkit.core.metric import METRICS, Metric
from unlearnkit.core.task import TASKS


class PluginWarning(UserWarning):
    """An installed plug-in cannot be loaded; all else works."""


def _import_all(package: ModuleType) -> None:
    for m in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(m.name)
    for ep in entry_points(group=package.__name__):
        try:
            ep.load()
        except (Exception, SystemExit) as e:  # noqa: BLE001  # a broken plug-in must not take the library with it
            warnings.warn(
                f"plug-in {_package(ep)} cannot be loaded ({ep.value}):"
                f" {type(e).__name__}: {first_line(e)}; mend or uninstall it",
                PluginWarning,
                stacklevel=2,
            )


def _package(ep: EntryPoint) -> str:
    return repr(ep.name if ep.dist is None else ep.dist.name)


@cache
def methods() -> Mapping[str, type[Method]]:
    """Return every method of this package and of installed plug-ins, by id."""
    _import_all(unlearnkit.methods)
    return dict(sorted(METHODS.items()))


@cache
def metrics() -> Mapping[str, Metric]:
    """Return every metric of this package and of installed plug-ins, by id."""
    _import_all(unlearnkit.metrics)
    return dict(sorted(METRICS.items()))


@cache
def tasks() -> Mapping[str, Any]:
    """Return every task class, by name."""
    _import_all(unlearnkit.tasks)
    return dict(sorted(TASKS.items()))


@cache
def cases() -> Mapping[str, CaseEntry]:
    """Return every built-in case, by id."""
    _import_all(unlearnkit.cases)
    return dict(sorted(CASES.items()))


@border("method")
def method(name: str, preset: str | None = None, /, **params: Any) -> Method:
    """Return a method by id.

    Args:
        name: The method's id, or ``auto`` to have one chosen.
        preset: Named settings to start from, such as ``paper``; the defaults when None.
        **params: Hyper-parameters by name.

    Returns:
        The method.

    Raises:
        UnknownNameError: If no method has the id.
        InputError: If a name is no text.
    """
    known: dict[str, type[Method]] = {**methods(), AUTO: Auto}
    if not isinstance(name, str) or not isinstance(preset, str | None):
        raise InputError(
            f"method: names are texts, got {name!r:.40} and preset {preset!r:.40}; write"
            " uk.method('ssd', 'paper')"
        )
    if name not in known:
        raise UnknownNameError("method", name, known)
    return known[name].build(preset, **params)
