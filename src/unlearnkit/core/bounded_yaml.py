"""YAML of bounded size, aliases included."""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_VALUES = 250_000
"""Most keys and values that a text may stand for, each alias counted with all that it repeats; a
long text counts as one for every ``_PIECE`` characters."""

_PIECE = 64

DEEPEST = 64
"""Most lists and mappings within one another."""

_QUOTED = re.compile(r"'[^']{2,}'|\"[^\"]{2,}\"")


def parse_yaml(text: str) -> Any:
    """Return the plain values, lists and mappings of a YAML text.

    Raises:
        ValueError: If it is no YAML, refers to itself, is nested too deeply or holds too many
            values. The reason names the line and never quotes the text.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ValueError(place + _QUOTED.sub("...", str(e.problem or e.context))) from None
    except yaml.YAMLError:
        raise ValueError("it holds characters that YAML does not allow") from None
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ValueError("a number or a date in it is none") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """A safe loader that stops as soon as there is too much."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a value, and count what it stands for."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        before, self._depth = self._values, self._depth + 1
        if self._depth > DEEPEST:
            self._refuse(event, f"more than {DEEPEST} lists and mappings within one another")
        node: Any = super().compose_node(parent, index)
        self._values += 1 + (len(node.value) // _PIECE if isinstance(node.value, str) else 0)
        if alias:
            if id(node) not in self._sizes:
                self._refuse(event, "a value that holds itself")
            self._values += self._sizes[id(node)]
        else:
            self._sizes[id(node)] = self._values - before
        if self._values > MOST_VALUES:
            reason = f"more than {MOST_VALUES:,} values; put row numbers into a file: rows=@file"
            self._refuse(event, reason)
        self._depth -= 1
        return node

    @staticmethod
    def _refuse(event: Any, why: str) -> None:
        raise yaml.MarkedYAMLError(None, None, why, event.start_mark)
