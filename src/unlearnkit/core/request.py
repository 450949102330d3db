"""What must be forgotten. The same words in Python, on the command line and in YAML.

Words alone: which rows of a set they mean is up to ``core.row_selection``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, SupportsIndex

from pydantic import StrictInt, StrictStr, ValidationError

from unlearnkit.core.checked import FrozenModel, check_names
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.key_words import parse_keys, parse_pairs
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
            errors = e.errors(include_url=False)
            check_names(errors, type(self), type(self).__name__)
            told = errors[0]
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
        raise InputError(
            "request: got truth values; name positions, such as numpy.flatnonzero(mask)"
        )
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


class Features(_Request):
    """Remove input features: ``Features("age")``, ``Features(3, 5)``, ``Features(tokens=17)``.

    Their values are replaced, in the training rows and wherever the model is used from then on.
    Name one kind: columns, tokens of integer inputs, a region of images, or a phrase of the text
    that a language model was trained on. A phrase goes from the training text alone.
    """

    _wanted: ClassVar[str] = "columns by name or position"

    kind: Literal["features"] = "features"
    features: tuple[StrictInt | StrictStr, ...] = ()
    """Columns, by name or by position from 0."""

    tokens: tuple[StrictInt, ...] = ()
    """Token numbers: each is replaced wherever it stands in integer inputs."""

    region: str | None = None
    """Rows and columns of an image, from and to: ``0:4,2:6``."""

    phrase: tuple[StrictInt, ...] = ()
    """Token numbers in a row, replaced wherever they stand in the text that the training rows are
    windows of: in the inputs and as the token to predict."""

    replacement: tuple[StrictInt, ...] = ()
    """As many token numbers, which take the place of the phrase."""

    value: float | Literal["mean"] = 0.0
    """What stands in their place: a number, or the mean of the column over the training rows."""

    rows: tuple[StrictInt | StrictStr, ...] | None = None
    """Only in these rows, by key or position; then the model still gets the feature in use."""

    def __init__(self, *given: Named, features: Named | None = None, **rest: Any) -> None:
        keys = ("tokens", "rows", "phrase", "replacement")
        named = {n: _keys((), rest.pop(n)) for n in keys if rest.get(n) is not None}
        columns = _column_names(given, features)
        super().__init__(features=columns, **named, **rest)
        chosen = (self.features, self.tokens, self.phrase, self.region is not None)
        if sum(map(bool, chosen)) != 1:
            raise InputError(
                "features: name columns, tokens, one region or one phrase, one of the four, such as"
                ' Features("age"), Features(tokens=17) or Features(region="0:4,0:4")'
            )
        self._check_phrase()
        if isinstance(self.value, float) and not math.isfinite(self.value):
            raise InputError(f"features: value must be finite or 'mean', got {self.value}")
        if self.value == "mean" and self.tokens:
            raise InputError("features: tokens have no mean; give a token number as value")
        if self.region is not None:
            self.box()

    def _check_phrase(self) -> None:
        if len(self.phrase) != len(self.replacement):
            raise InputError(
                f"features: a phrase of {len(self.phrase)} tokens has a replacement of"
                f" {len(self.replacement)}; give as many, so that the text keeps its length"
            )
        if self.phrase and (self.rows is not None or self.value != 0):
            raise InputError(
                "features: a phrase goes from the whole text; leave out rows and value, and give"
                " replacement"
            )

    def box(self) -> tuple[slice, slice]:
        """Return the rows and columns of the region."""
        found = re.fullmatch(r"(\d{1,6}):(\d{1,6}),(\d{1,6}):(\d{1,6})", self.region or "")
        ends = [int(n) for n in found.groups()] if found else [0, 0, 0, 0]
        if not (ends[0] < ends[1] and ends[2] < ends[3]):
            raise InputError(
                f"features: region {one_line(str(self.region), 60)!r} is no box; write rows and"
                " columns from and to, such as 0:4,2:6"
            )
        return slice(ends[0], ends[1]), slice(ends[2], ends[3])

    @property
    def words(self) -> str:
        """Return the request as it is written on the command line: ``features=age,value=mean``."""
        if self.phrase:
            put = ",".join(map(str, self.replacement))
            return f"phrase={','.join(map(str, self.phrase))},replacement={put}"
        if self.region is not None:
            what = f"region={self.region}"
        elif self.tokens:
            what = f"tokens={','.join(map(str, self.tokens))}"
        else:
            what = f"features={','.join(map(str, self.features))}"
        if self.value == 0:
            return what
        return f"{what},value={self.value if isinstance(self.value, str) else _short(self.value)}"


class Labels(_Request):
    """Correct labels: ``Labels({"a17": 3, "b03": 1})``. The rows stay, with the given targets."""

    _wanted: ClassVar[str] = "a target for each row"

    kind: Literal["labels"] = "labels"
    labels: tuple[tuple[StrictInt | StrictStr, float], ...]
    """The rows, by key or position, and the right target of each."""

    def __init__(self, *given: Any, labels: Any = None, **rest: Any) -> None:
        if given and (labels is not None or len(given) > 1):
            raise InputError("labels: give one mapping from rows to targets: Labels({12: 3})")
        pairs = given[0] if given else labels
        pairs = list(pairs.items()) if isinstance(pairs, Mapping) else pairs
        if not isinstance(pairs, list | tuple) or not all(
            isinstance(p, list | tuple) and len(p) == 2 for p in pairs
        ):
            raise InputError(
                f"labels: give a mapping from rows to targets, such as Labels({{12: 3}}), got"
                f" {type(pairs).__name__}"
            )
        keys = _keys((tuple(key for key, _ in pairs),), None)
        super().__init__(labels=tuple(zip(keys, map(_target, pairs), strict=True)), **rest)
        if not self.labels:
            raise InputError("labels: the mapping is empty; name at least one row")

    @property
    def rows(self) -> tuple[Key, ...]:
        """Return the rows that are corrected, by key or position."""
        return tuple(key for key, _ in self.labels)

    @property
    def words(self) -> str:
        """Return the request as it is written on the command line: ``labels=12:3,40:1``."""
        return "labels=" + ",".join(f"{key}:{_short(target)}" for key, target in self.labels)


def _target(pair: tuple[Any, Any]) -> float:
    key, target = pair
    try:
        return float(target)
    except (TypeError, ValueError):
        raise InputError(
            f"labels: the target of row {one_line(repr(key), 60)} must be a number, got"
            f" {one_line(repr(target), 60)}"
        ) from None


def _column_names(given: tuple[Any, ...], features: Any) -> tuple[Key, ...]:
    """Return columns by name or position; both kinds may stand together."""
    if given and features is not None:
        raise InputError("request: name the values once, by position or by name")
    values = given or (features if isinstance(features, list | tuple) else (features,))
    if len(values) == 1 and not isinstance(values[0], str):
        return () if values[0] is None else _keys((values[0],), None)
    return tuple(v if isinstance(v, str) else v.__index__() for v in values)


ForgetRequest = Rows | Classes | Groups | Targets | Features | Labels
_KINDS: Mapping[str, type[Rows] | type[Classes] | type[Groups]] = {
    "rows": Rows,
    "classes": Classes,
    "groups": Groups,
}
_WORDS = {"row": "rows", "class": "classes", "group": "groups", "subject": "groups"}
_RANGES = {"target", "targets"}
_FEATURES = {
    "feature": "features",
    "features": "features",
    "column": "features",
    "token": "tokens",
    "tokens": "tokens",
    "region": "region",
    "phrase": "phrase",
}
_LABELS = {"label", "labels"}


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
    if isinstance(given, ForgetRequest):
        return given
    if isinstance(given, str) and is_range(given):
        return Targets(given)
    if isinstance(given, str):
        word, equals, values = given.partition("=")
        if not equals:
            raise InputError(
                f"forget: expected class=3, rows=0:100, rows=@file, group=17, target<30,"
                f" feature=age or labels=@file.csv, got {given!r}"
            )
        word = word.strip()
        if word in _FEATURES:
            return _features_from_words(_FEATURES[word], values, given)
        if word in _LABELS:
            return Labels(parse_pairs(values, given))
        return _from_words(_kind(word), values, given)
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
    if named == "features" or (named is None and set(content) & set(_FEATURES)):
        return Features(**{_FEATURES.get(str(k), str(k)): v for k, v in content.items()})
    if named == "labels" or (named is None and len(content) == 1 and set(content) & _LABELS):
        (pairs,) = content.values() if len(content) == 1 else (None,)
        return Labels(pairs)
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


def _features_from_words(field: str, values: str, whole: str) -> Features:
    """Return a request for features: names after ``=``, then ``,value=`` and what replaces them."""
    if field == "phrase":
        old, _, new = values.partition(",replacement=")
        phrase, by = (parse_keys(text, whole, numbers=True) for text in (old, new))
        return Features(phrase=phrase, replacement=by)
    names, given, value = values.partition(",value=")
    value = value.strip()
    try:
        put: dict[str, Any] = {}
        if given:
            put["value"] = "mean" if value == "mean" else float(value)
    except ValueError:
        raise InputError(
            f"forget: value= must be a number or mean, got {one_line(value, 60)!r}; write"
            " feature=age,value=mean"
        ) from None
    if field == "region":
        return Features(region=names.replace(" ", ""), **put)
    keys = parse_keys(names, whole, numbers=field == "tokens")
    return Features(tokens=keys, **put) if field == "tokens" else Features(features=keys, **put)


def _kind(word: str) -> str:
    kind = _WORDS.get(word, word)
    if kind not in _KINDS:
        raise UnknownNameError("request", word, {*_WORDS, *_KINDS, *_RANGES, *_FEATURES, *_LABELS})
    return kind
