"""What must be forgotten. The same words in Python, on the command line and in YAML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from unlearnkit.core.errors import InputError, UnknownNameError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor

    from unlearnkit.core.data import Data


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def mask(self, data: Data) -> Tensor:
        """Return a boolean ``(N,)``: True where the row must be forgotten."""
        raise NotImplementedError


def _numbers(given: tuple[Any, ...], named: Any) -> tuple[int, ...]:
    if given and named is not None:
        raise InputError("request: name the values once")
    values = given if given else (named if named is not None else ())
    if len(values) == 1 and isinstance(values[0], Iterable):
        values = tuple(values[0])
    return tuple(int(v) if hasattr(v, "__index__") else v for v in values)


class Rows(_Request):
    """Forget the rows at these positions of the training set: ``Rows(0, 5)``, ``Rows(tensor)``."""

    kind: Literal["rows"] = "rows"
    rows: tuple[int, ...]

    def __init__(self, *given: Any, rows: Any = None, **rest: Any) -> None:
        super().__init__(rows=_numbers(given, rows), **rest)

    def mask(self, data: Data) -> Tensor:
        """Mark the named rows."""
        count = len(data)
        outside = [r for r in self.rows if not 0 <= r < count]
        if outside:
            raise InputError(
                f"rows: {outside[0]} is out of range; the training set has rows 0 to {count - 1}"
            )
        if len(set(self.rows)) < len(self.rows):
            twice = next(r for i, r in enumerate(self.rows) if r in self.rows[:i])
            raise InputError(f"rows: {twice} is named twice; name each row once")
        mask = torch.zeros(count, dtype=torch.bool)
        mask[torch.tensor(self.rows, dtype=torch.long)] = True
        return mask


class Classes(_Request):
    """Forget every row of these classes: ``Classes(3)``, ``Classes(3, 5)``."""

    kind: Literal["classes"] = "classes"
    classes: tuple[int, ...]

    def __init__(self, *given: Any, classes: Any = None, **rest: Any) -> None:
        super().__init__(classes=_numbers(given, classes), **rest)

    def mask(self, data: Data) -> Tensor:
        """Mark the rows whose target is one of the classes."""
        if data.y.is_floating_point() or data.y.ndim != 1:
            raise UnsupportedError(
                f"classes: a class request needs one integer target a row, got {data.y.dtype}"
                f" {tuple(data.y.shape)}; name rows or groups"
            )
        return _among(data.y, self.classes, "class")


class Groups(_Request):
    """Forget every row of these owners (subjects, clients): ``Groups(17)``."""

    kind: Literal["groups"] = "groups"
    groups: tuple[int, ...]

    def __init__(self, *given: Any, groups: Any = None, **rest: Any) -> None:
        super().__init__(groups=_numbers(given, groups), **rest)

    def mask(self, data: Data) -> Tensor:
        """Mark the rows whose owner is one of the groups."""
        if data.group is None:
            raise UnsupportedError(
                "groups: a group request needs data with owners; give group= with the data, or name"
                " rows"
            )
        return _among(data.group, self.groups, "group")


ForgetRequest = Rows | Classes | Groups
_ADAPTER: TypeAdapter[ForgetRequest] = TypeAdapter(
    Annotated[Rows | Classes | Groups, Field(discriminator="kind")]
)
_WORDS = {"row": "rows", "class": "classes", "group": "groups", "subject": "groups"}


def parse_request(given: str | Mapping[str, Any] | ForgetRequest) -> ForgetRequest:
    """Return the request that a text, a mapping or a request means.

    Args:
        given: ``"class=3"``, ``"classes=3,5"``, ``"rows=0:100,205"``, ``"rows=@file"`` (one number
            a line), ``"group=17"``; ``{"classes": [3]}`` or ``{"kind": "classes", "classes":
            [3]}``; or a request.

    Returns:
        The request.

    Raises:
        InputError: If it means none.
    """
    if isinstance(given, Rows | Classes | Groups):
        return given
    if isinstance(given, str):
        word, equals, values = given.partition("=")
        if not equals:
            raise InputError(
                f"forget: expected class=3, rows=0:100, rows=@file or group=17, got {given!r}"
            )
        kind = _kind(word.strip())
        return _build({"kind": kind, kind: _parse_numbers(values, given)})
    content = dict(given)
    if "kind" not in content and len(content) == 1:
        word, values = next(iter(content.items()))
        kind = _kind(str(word))
        content = {"kind": kind, kind: values if isinstance(values, list | tuple) else [values]}
    return _build(content)


def _kind(word: str) -> str:
    kind = _WORDS.get(word, word)
    if kind not in set(_WORDS.values()):
        raise UnknownNameError("request", word, {*_WORDS, *_WORDS.values()})
    return kind


def _build(content: Mapping[str, Any]) -> ForgetRequest:
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as e:
        told = "; ".join(f"{x['msg'].lower()}, got {x['input']!r}" for x in e.errors())
        raise InputError(f"forget: {told}") from None


def _parse_numbers(text: str, whole: str) -> list[int]:
    if text.startswith("@"):
        try:
            text = ",".join(Path(text[1:]).read_text(encoding="utf-8").split())
        except OSError as e:
            raise InputError(f"forget: cannot read {text[1:]!r}: {e.strerror}") from None
    found: list[int] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, colon, last = part.partition(":")
        try:
            found += range(int(first), int(last)) if colon else [int(part)]
        except ValueError:
            raise InputError(
                f"forget: {part!r} is not a number or a range, in {whole!r}; write 3 or 0:100"
            ) from None
    return found


def _among(values: Tensor, wanted: tuple[int, ...], what: str) -> Tensor:
    there = set(values.unique().tolist())
    absent = [w for w in wanted if w not in there]
    if absent:
        have = sorted(there)
        shown = ", ".join(map(str, have[:12])) + (f", … ({len(have)} in all)" if len(have) > 12 else "")
        raise InputError(f"{what}: no row of {what} {absent[0]}; there are: {shown}")
    return torch.isin(values, torch.tensor(wanted, dtype=values.dtype, device=values.device))
