"""Settings whose constructor refuses a wrong value with the library's own error."""

from typing import Any

from pydantic import BaseModel, ValidationError

from unlearnkit.core.errors import InputError


class Checked(BaseModel):
    """A model that raises ``InputError`` when it is built from wrong values by hand."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as e:
            told = "; ".join(
                f"{'.'.join(map(str, x['loc'])) or 'settings'}: {x['msg'][0].lower()}"
                f"{x['msg'][1:]}, got {x['input']!r:.80}"
                for x in e.errors(include_url=False)
            )
            name = getattr(type(self), "id", type(self).__name__)
            raise InputError(f"{name}: {told}") from None

    # Inside another model pydantic then validates without this constructor, so that an error names
    # the whole path of the wrong value.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
