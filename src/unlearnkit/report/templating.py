"""Templates: what all HTML pages share.

Needs matplotlib and jinja2, the extra ``[report]``.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from unlearnkit.core.errors import InputError
from unlearnkit.core.text import without_controls

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Figure:
    """One figure and the words that stand for it."""

    svg: Markup
    caption: str
    head: tuple[str, ...]
    body: Sequence[tuple[str, ...]]
    """The figure in numbers."""


def check_installed() -> None:
    """Refuse a page that cannot be made: it needs matplotlib and jinja2."""
    if not (_installed("matplotlib") and _installed("jinja2")):
        raise InputError(
            "report: the page needs matplotlib and jinja2; pip install 'unlearnkit[report]'"
        )


def render_template(name: str, **values: object) -> str:
    """Return the page of a template of this package, with control characters replaced."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read_resource),
    )
    environment.filters["minus"] = lambda text: re.sub(r"(?<![\w.])-(?=[\d.i])", "\u2212", text)
    environment.filters["breaks"] = lambda name: escape(name).replace("_", Markup("_<wbr>"))
    style = Markup(read_resource("report/style.css").strip())
    return without_controls(environment.get_template(name).render(style=style, **values)) + "\n"


def read_resource(path: str) -> str:
    """Return a text file of this package."""
    return files("unlearnkit").joinpath(path).read_text(encoding="utf-8")


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module that was made unimportable
        return False
