"""Where tuning looks is declared on the fields of methods, shown on their pages, and checked."""

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from unlearnkit import catalog
from unlearnkit import describe as pages
from unlearnkit.core.method import Info, Method
from unlearnkit.core.search_space import Categorical, SearchRange, search_space
from unlearnkit.testing import check_method
from unlearnkit.testing.subject import ContractError
from unlearnkit.train.schedule import Run, WarmRestart


class Plain(Method):
    """Nothing is declared."""

    id: ClassVar[str] = "plain"
    info: ClassVar[Info] = Info(
        title="x", cite="x", needs=frozenset(), tasks=frozenset({"classification"})
    )

    rate: float = Field(0.5, ge=0, le=1)
    """A share."""


class Declared(Plain):
    """A number, a choice, and a group."""

    rate: Annotated[float, SearchRange(0.1, 1, log=True)] = Field(0.5, ge=0, le=1)
    """A share."""

    how: Annotated[Literal["a", "b"], Categorical(("a", "b"))] = "a"
    """A choice."""

    rows: Annotated[int, SearchRange(1, 8)] = Field(4, ge=1)
    """A whole number."""

    run: Run = WarmRestart(lr=3.0)
    """A group."""


class BeyondItsBound(Plain):
    rate: Annotated[float, SearchRange(0.1, 2)] = Field(0.5, ge=0, le=1)
    """A share."""


class DefaultOutside(Plain):
    rate: Annotated[float, SearchRange(0.6, 1)] = Field(0.5, ge=0, le=1)
    """A share."""


class LogFromZero(Plain):
    rate: Annotated[float, SearchRange(0, 1, log=True)] = Field(0.5, ge=0, le=1)
    """A share."""


class UpsideDown(Plain):
    rate: Annotated[float, SearchRange(1, 0.1)] = Field(0.5, ge=0, le=1)
    """A share."""


class StrangeChoice(Plain):
    how: Annotated[Literal["a", "b"], Categorical(("a", "c"))] = "a"
    """A choice."""


def check(cls):
    check_method(cls, only=["search_space_declared"])


def test_a_space_holds_fields_choices_and_groups_with_the_methods_own_defaults():
    found = search_space(Declared)
    assert {k: d.default for k, d in found.items()} == {
        "rate": 0.5,
        "how": "a",
        "rows": 4,
        "run.lr": 3.0,
        "run.share": WarmRestart().share,
        "run.shrink": WarmRestart().shrink,
    }
    assert [k for k, d in found.items() if d.whole] == ["rows"]
    check(Declared)


@pytest.mark.parametrize(
    ("cls", "told"),
    [
        (Plain, "no hyper-parameter declares where it is tuned"),
        (BeyondItsBound, "rate: searched in 0.1 to 2, which it refuses"),
        (DefaultOutside, "rate: the default 0.5 is not in 0.6 to 1"),
        (LogFromZero, "rate: searched by factors from 0; start above 0"),
        (UpsideDown, "rate: searched from 1 to 0.1; give ends"),
        (StrangeChoice, "how: searched in a | c, which it refuses"),
    ],
)
def test_a_wrong_declaration_breaks_the_contract(cls, told):
    with pytest.raises(ContractError, match=told.replace("|", r"\|")):
        check(cls)


def test_a_method_without_hyper_parameters_has_nothing_to_declare():
    check(catalog.methods()["retrain"])


def test_a_page_shows_where_a_hyper_parameter_is_tuned():
    rows = pages.settings(catalog.methods()["neggrad_plus"])
    shown = [(s["key"], s["search"]) for s in rows if s["search"]]
    assert shown[0] == ("balance", "0.003 to 0.5, log")
    assert [k for k, _ in shown].count("run.lr") == 1
    assert "| 0.003 to 0.5, log |" in pages.method_page(catalog.methods()["neggrad_plus"])
