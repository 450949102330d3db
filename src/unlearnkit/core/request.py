"""What must be forgotten. The same words in Python, on the command line and in YAML.

Words alone: which rows of a set they mean is up to ``core.row_selection``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, SupportsIndex

from pydantic import StrictInt, ValidationError

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.files import read_text
from unlearnkit.core.text import one_line

MOST_GIVEN = 10**7
"""Most numbers of a request; each takes 60 bytes."""

Numbers = SupportsIndex | Iterable[SupportsIndex]
"""A number, or several in any container: list, range, array, tensor."""


class _Request(FrozenModel):
    _wanted: ClassVar[str] = "whole numbers"

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as e:
            told = e.errors(include_url=False)[0]
            what = ".".join(map(str, told["loc"])) or "request"
            raise InputError(
                f"{what}: {told['msg'][0].lower()}{told['msg'][1:]}, got"
                f" {one_line(repr(told['input']), 120)}; name"
                f" {self._wanted}"
            ) from None


def _numbers(given: tuple[Any, ...], named: Any) -> tuple[Any, ...]:
    if given and named is not None:
        raise InputError("request: name the values once, by position or by name")
    values: Any = given or (() if named is None else named)
    if given and len(given) == 1:
        values = given[0]
    if hasattr(values, "__len__") and not isinstance(values, str):
        _check_count(values)
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = (values,)
    values = tuple(values)
    if any(isinstance(v, bool) for v in values):
        raise InputError("request: got truth values; name positions, such as mask.nonzero()[:, 0]")
    return tuple(v.__index__() if hasattr(v, "__index__") else v for v in values)


def _check_count(values: Any) -> None:
    try:
        count = len(values)
    except (TypeError, OverflowError):  # an array of no dimension; a range beyond the machine's
        count = MOST_GIVEN + 1 if isinstance(values, range) else 1
    if count > MOST_GIVEN:
        raise InputError(
            f"request: at most {MOST_GIVEN:,} numbers, got {count:,}; name classes, groups or a"
            " range of targets"
        )


class Rows(_Request):
    """Forget the rows at these positions of the training set: ``Rows(0, 5)``, ``Rows(tensor)``."""

    kind: Literal["rows"] = "rows"
    rows: tuple[StrictInt, ...]

    def __init__(self, *given: Numbers, rows: Numbers | None = None, **rest: Any) -> None:
        super().__init__(rows=_numbers(given, rows), **rest)


class Classes(_Request):
    """Forget every row of these classes: ``Classes(3)``, ``Classes(3, 5)``."""

    kind: Literal["classes"] = "classes"
    classes: tuple[StrictInt, ...]

    def __init__(self, *given: Numbers, classes: Numbers | None = None, **rest: Any) -> None:
        super().__init__(classes=_numbers(given, classes), **rest)


class Groups(_Request):
    """Forget every row of these owners (subjects, clients): ``Groups(17)``."""

    kind: Literal["groups"] = "groups"
    groups: tuple[StrictInt, ...]

    def __init__(self, *given: Numbers, groups: Numbers | None = None, **rest: Any) -> None:
        super().__init__(groups=_numbers(given, groups), **rest)


class Targets(_Request):
    """Forget the rows whose real target lies in a range: ``Targets(below=30)``.

    ``Targets("10<=target<30")`` says the same as ``Targets(at_least=10, below=30)``.
    """

    _wanted: ClassVar[str] = "bounds: above, at_least, below, at_most"

    kind: Literal["targets"] = "targets"
    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    column: StrictInt | None = None
    """Which target of several, from 0; a sequence ``(T, C)`` counts on over its steps."""

    def __init__(self, words: str | None = None, /, **bounds: Any) -> None:
        if words is not None:
            if bounds:
                raise InputError("targets: name the range once, in words or by its bounds")
            bounds = _read_range(words)
        super().__init__(**bounds)
        ends = [b for b in (self.above, self.at_least, self.below, self.at_most) if b is not None]
        both = (self.above, self.at_least), (self.below, self.at_most)
        if not ends or not all(map(math.isfinite, ends)) or any(None not in two for two in both):
            raise InputError(
                f"targets: name one finite lower bound, one upper bound or both, got {self.words};"
                " write target<30 or 10<=target<30"
            )

    @property
    def words(self) -> str:
        """Return the range as it is written on the command line: ``10<=target<30``."""
        target = "target" if self.column is None else f"target[{self.column}]"
        low = [(v, s) for v, s in ((self.above, ">"), (self.at_least, ">=")) if v is not None]
        high = [(v, s) for v, s in ((self.below, "<"), (self.at_most, "<=")) if v is not None]
        if low and high:
            target = f"{_short(low[0][0])}{_TURNED[low[0][1]]}{target}"
            low = []
        return target + "".join(f"{sign}{_short(value)}" for value, sign in low + high)


_BOUND = r"([-+\w.]+)"
_RANGE = re.compile(rf"(?:{_BOUND}(<=?|>=?))?targets?(?:\[(\d+)\])?(?:(<=?|>=?){_BOUND})?")
_SIGNS = {">": "above", ">=": "at_least", "<": "below", "<=": "at_most"}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def is_range(text: str) -> bool:
    """Return whether a text is meant as a range of targets, such as ``target<30``."""
    return re.search(r"targets?(\[\d*\])?\s*[<>]|[<>]=?\s*target", text) is not None


def _short(value: float) -> str:
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def _read_range(text: str) -> dict[str, Any]:
    told = f"forget: expected a range such as target<30 or 10<=target<30, got {text!r}"
    found = _RANGE.fullmatch("".join(text.split()))
    if found is None:
        raise InputError(told)
    left, turned, column, sign, right = found.groups()
    pairs = [(_TURNED[turned], left)] if turned else []
    pairs += [(sign, right)] if sign else []
    try:
        bounds: dict[str, Any] = {_SIGNS[sign]: float(value) for sign, value in pairs}
    except ValueError:
        raise InputError(told) from None
    if len(bounds) < len(pairs):
        raise InputError(told)
    return bounds | ({} if column is None else {"column": int(column)})


ForgetRequest = Rows | Classes | Groups | Targets
_KINDS: Mapping[str, type[Rows] | type[Classes] | type[Groups]] = {
    "rows": Rows,
    "classes": Classes,
    "groups": Groups,
}
_WORDS = {"row": "rows", "class": "classes", "group": "groups", "subject": "groups"}
_RANGES = {"target", "targets"}
MOST_NUMBERS = 10**6
"""Most numbers that words, a file or a record may name; each is kept in the record of the run."""


def parse_request(given: str | Mapping[str, Any] | ForgetRequest) -> ForgetRequest:
    """Return the request that a text, a mapping or a request means.

    Args:
        given: ``"class=3"``, ``"classes=3,5"``, ``"rows=0:100,205"``, ``"rows=@file"`` (one number
            a line), ``"group=17"``, ``"target<30"``; ``{"classes": [3]}``, ``{"kind": "classes",
            "classes": [3]}`` or ``{"target": {"below": 30}}``; or a request.

    Returns:
        The request.

    Raises:
        InputError: If it means none.
    """
    if isinstance(given, Rows | Classes | Groups | Targets):
        return given
    if isinstance(given, str) and is_range(given):
        return Targets(given)
    if isinstance(given, str):
        word, equals, values = given.partition("=")
        if not equals:
            raise InputError(
                f"forget: expected class=3, rows=0:100, rows=@file, group=17 or target<30, got"
                f" {given!r}"
            )
        kind = _kind(word.strip())
        return _KINDS[kind](_parse_numbers(values, given))
    if not isinstance(given, Mapping):
        raise InputError(
            "forget: expected a request, a text such as class=3 or a mapping, got"
            f" {type(given).__name__}"
        )
    return _from_mapping(given)


def _from_mapping(given: Mapping[str, Any]) -> ForgetRequest:
    content = dict(given)
    named = content.pop("kind", None)
    if named in _RANGES:
        return Targets(**content)
    if named is None and len(content) == 1 and _RANGES & set(content):
        (bounds,) = content.values()
        return Targets(**bounds) if isinstance(bounds, Mapping) else Targets(str(bounds))
    words = [str(word) for word in content]
    if len(words) != 1:
        raise InputError(
            f"forget: name rows, classes or groups, one of them, got {', '.join(words) or 'none'}"
        )
    kind, values = _kind(words[0]), next(iter(content.values()))
    if named is not None and _kind(str(named)) != kind:
        raise InputError(f"forget: kind is {named!r} but the values are {words[0]!r}; name one")
    if isinstance(values, str):
        return _KINDS[kind](_parse_numbers(values, values))
    return _KINDS[kind](values)


def _kind(word: str) -> str:
    kind = _WORDS.get(word, word)
    if kind not in _KINDS:
        raise UnknownNameError("request", word, {*_WORDS, *_KINDS, *_RANGES})
    return kind


def _parse_numbers(text: str, whole: str) -> list[int]:
    """Return the numbers of a text or of the file that it names; a file is never quoted."""
    if not text.startswith("@"):
        said = one_line(whole, 80)
        parts = (
            (p.strip(), f"{one_line(p.strip(), 80)!r} is not a number") for p in text.split(",")
        )
        return _counted(parts, f", in {said!r}")
    path = text[1:]
    lines = read_text(Path(path), "forget", what="name a file with a number a line").splitlines()
    return _counted(
        (
            (part, f"line {i} of {path!r} is not a number")
            for i, line in enumerate(lines, 1)
            for part in line.replace(",", " ").split()
        ),
        "",
    )


def _counted(parts: Iterable[tuple[str, str]], where: str) -> list[int]:
    """Return the numbers of numbers and ranges, each with what to say where it is neither."""
    found: list[int] = []
    for part, wrong in parts:
        if not part:
            continue
        first, colon, last = part.partition(":")
        try:
            some = range(int(first), int(last)) if colon else (int(part),)
            count = len(found) + len(some)
        except (ValueError, OverflowError):
            raise InputError(f"forget: {wrong} or a range{where}; write 3 or 0:100") from None
        if count > MOST_NUMBERS:
            raise InputError(
                f"forget: at most {MOST_NUMBERS:,} numbers in words, got {count:,} or more; name"
                " classes, groups or a range of targets, or pass Rows(tensor) in Python"
            )
        found += some
    return found
