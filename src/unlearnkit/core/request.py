"""What must be forgotten. The same words in Python, on the command line and in YAML.

Words alone: which rows of a set they mean is up to ``core.row_selection``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, SupportsIndex

from pydantic import StrictInt, StrictStr, ValidationError

from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.key_words import parse_keys
from unlearnkit.core.text import one_line

MOST_GIVEN = 10**7
"""Most numbers of a request; each takes 60 bytes."""

LONGEST_KEY = 200
"""Most characters of a key; it is printed, and stands in the record of a run."""

Key = int | str
"""What a user calls a row or an owner."""

Numbers = SupportsIndex | Iterable[SupportsIndex]
"""A number, or several in any container: list, range, array, tensor."""

Named = Numbers | str | Iterable[Key]
"""A number or a key, or several of one kind in any container."""


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


def _keys(given: tuple[Any, ...], named: Any) -> tuple[Any, ...]:
    values = tuple(str(v) if isinstance(v, str) else v for v in _numbers(given, named))
    kinds = {type(v) for v in values}
    if kinds == {int, str}:
        raise InputError("request: strings and integers are mixed; name all by strings")
    if str in kinds and not all(0 < len(v) <= LONGEST_KEY for v in values if isinstance(v, str)):
        raise InputError(f"request: a key has 1 to {LONGEST_KEY} characters; give the ids alone")
    return values


class Rows(_Request):
    """Forget some rows of the training set: ``Rows(0, 5)``, ``Rows(tensor)``, ``Rows("a17")``.

    Values are the keys of the case; positions where it has none.
    """

    _wanted: ClassVar[str] = "whole numbers or keys"

    kind: Literal["rows"] = "rows"
    rows: tuple[StrictInt | StrictStr, ...]

    def __init__(self, *given: Named, rows: Named | None = None, **rest: Any) -> None:
        super().__init__(rows=_keys(given, rows), **rest)


class Classes(_Request):
    """Forget every row of these classes: ``Classes(3)``, ``Classes(3, 5)``."""

    kind: Literal["classes"] = "classes"
    classes: tuple[StrictInt, ...]

    def __init__(self, *given: Numbers, classes: Numbers | None = None, **rest: Any) -> None:
        super().__init__(classes=_numbers(given, classes), **rest)


class Groups(_Request):
    """Forget every row of these owners (subjects, clients): ``Groups(17)``, ``Groups("ann")``."""

    _wanted: ClassVar[str] = "whole numbers or keys"

    kind: Literal["groups"] = "groups"
    groups: tuple[StrictInt | StrictStr, ...]

    def __init__(self, *given: Named, groups: Named | None = None, **rest: Any) -> None:
        super().__init__(groups=_keys(given, groups), **rest)


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


def parse_request(given: str | Mapping[str, Any] | ForgetRequest) -> ForgetRequest:
    """Return the request that a text, a mapping or a request means.

    Args:
        given: ``"class=3"``, ``"classes=3,5"``, ``"rows=0:100,205"``, ``"rows=a17,b03"``,
            ``"rows=@file"`` (a number or key a line; also CSV, JSON and .npy), ``"group=17"``,
            ``"group=cust-12"``, ``"target<30"``; ``{"classes": [3]}``, ``{"kind": "classes",
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
        return _from_words(kind, values, given)
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
        return _from_words(kind, values, values)
    return _KINDS[kind](values)


def _from_words(kind: str, values: str, whole: str) -> ForgetRequest:
    named: Any = parse_keys(values, whole, numbers=kind == "classes")
    return _KINDS[kind](named)


def _kind(word: str) -> str:
    kind = _WORDS.get(word, word)
    if kind not in _KINDS:
        raise UnknownNameError("request", word, {*_WORDS, *_KINDS, *_RANGES})
    return kind
