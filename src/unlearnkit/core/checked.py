"""Base classes of values and settings: immutable, without unknown fields."""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import ErrorDetails

from unlearnkit.core.errors import InputError, UnknownNameError


class FrozenModel(BaseModel):
    """Immutable model; unknown fields are errors, infinite numbers survive JSON."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )


class Record(FrozenModel):
    """A model that is written to files: its ``later_fields`` are left out where they are empty.

    Files, and digests of files, that are older than these fields stay valid.
    """

    later_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that the first files did not have."""

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        empty = {name for name in self.later_fields if not getattr(self, name)}
        return {name: value for name, value in content.items() if name not in empty}


def check_names(
    errors: Sequence[ErrorDetails], kind: type[BaseModel], name: str, remedy: str = ""
) -> None:
    """Refuse a field that there is none of, with the nearest name.

    Args:
        errors: What is wrong.
        kind: The model whose fields they are.
        name: What to call it.
        remedy: What else there is, for the end of the error.

    Raises:
        UnknownNameError: If one of the errors is such a field.
    """
    for x in errors:
        if x["type"] == "extra_forbidden" and len(x["loc"]) == 1:
            raise UnknownNameError(
                f"setting of {name}", str(x["loc"][0]), kind.model_fields, remedy=remedy
            )


class Checked(FrozenModel):
    """A model that raises ``InputError`` when it is built from wrong values by hand."""

    remedy: ClassVar[str] = ""
    """What else there is, for the end of the error."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as e:
            errors = e.errors(include_url=False)
            name = getattr(type(self), "id", type(self).__name__)
            check_names(errors, type(self), name, self.remedy)
            reasons = "; ".join(
                f"{'.'.join(map(str, x['loc'])) or 'settings'}: {x['msg'][0].lower()}"
                f"{x['msg'][1:]}, got {x['input']!r:.80}"
                for x in errors
            )
            remedy = f"; {self.remedy}" if self.remedy else ""
            raise InputError(f"{name}: {reasons}{remedy}") from None

    # Inside another model pydantic then validates without this constructor, so that an error names
    # the whole path of the wrong value.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
