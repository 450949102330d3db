"""Job: one request to unlearn, in the words of CLI, YAML and records."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import Field, ValidationError

from unlearnkit import catalog
from unlearnkit.core.border import first_line
from unlearnkit.core.bounded_yaml import parse_yaml
from unlearnkit.core.case import Case
from unlearnkit.core.checked import Record
from unlearnkit.core.errors import InputError, UnknownNameError, UnlearnkitError, UnsupportedError
from unlearnkit.core.files import read_yaml
from unlearnkit.core.method import Method, Need, format_validation_error
from unlearnkit.core.precision import Precision
from unlearnkit.core.request import ForgetRequest, Targets, is_range, parse_request
from unlearnkit.core.runtime import SEEDS, Reporter, Runtime
from unlearnkit.core.text import one_line
from unlearnkit.linalg.gradient_projection import RetainedSubspace
from unlearnkit.linalg.input_moments import InputMoments
from unlearnkit.localize.localizer import Localizer
from unlearnkit.localize.mask import Mask

MASK = ".safetensors"
"""How the name of a saved mask ends."""

DEEPEST = 16
"""Most parts of a dotted name of a setting."""

DEFAULT_METHOD = "finetune"
"""Used when no method is named: it serves every task and needs only the rows that stay."""


class Job(Record):
    """One request to forget."""

    later_fields = frozenset({"after", "projection", "moments"})

    case: str
    """A built-in case, or ``package.module:function``."""

    forget: str | dict[str, Any] | None = None
    """Request words, or a named request of the case; None for a case made from parts."""

    after: tuple[str | dict[str, Any], ...] = ()
    """Earlier requests, in order: ``case`` is what they have left; the first may be a named one."""

    method: str = DEFAULT_METHOD
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    model: str | None = None
    """A checkpoint; the original is trained when None."""

    mask: str | dict[str, Any] | None = None
    """Which scalars may move: a saved mask (.safetensors), or how to find one, in words such as
    ``weighted_grad:0.3`` or by the fields of ``Localizer``; all when None."""

    projection: str | float | dict[str, Any] | None = None
    """Which directions of retained inputs are held, in words such as ``0.9`` or ``singular:0.95``,
    or by the fields of ``RetainedSubspace``; none when None."""

    moments: str | None = None
    """A file of input moments (.safetensors), of the model and of all training rows before the
    request; measured on retained rows where they are read when None."""

    seed: int = Field(0, ge=0, lt=SEEDS, strict=True)
    device: str = "cpu"
    precision: Precision = "fp32"

    def make_case(self) -> Case:
        """Return the case as it is before any request."""
        known = catalog.cases()
        return known[self.case].make() if self.case in known else _imported(self.case, known)

    def resolve(
        self, reporter: Reporter | None = None, *, made: Case | None = None
    ) -> tuple[Case, ForgetRequest | None]:
        """Return the case, after earlier requests, and the request; None for one made from parts.

        Args:
            reporter: Receives the cost and progress where models must be trained to find the rows.
            made: The case, if made before; a named request brings its own.

        Returns:
            Case and request.
        """
        if self.after:
            return self._resolve_after(reporter, made)
        ours = catalog.cases().get(self.case)
        if ours is not None and self.has_named_request:
            place = partial(Runtime.on, self.device, precision=self.precision, reporter=reporter)
            asked = ours.ask(str(self.forget), place)
            return asked.case, asked.request
        case = made or self.make_case()
        return case, None if self.forget is None else parse_request(self.forget)

    def _resolve_after(
        self, reporter: Reporter | None, made: Case | None
    ) -> tuple[Case, ForgetRequest | None]:
        """Return the case after the earlier requests, and the request."""
        first, *later = (
            self.model_copy(update={"after": (), "forget": words})
            for words in (*self.after, self.forget)
        )
        start, request = first.resolve(reporter, made=made)
        case = start
        for one in later:
            if request is None:
                raise UnsupportedError(
                    "after: the case was made from parts, which say what to forget; build it with"
                    " train= to answer one request after another"
                )
            case = case.after_deletion(request)
            found, request = one.resolve(reporter, made=start)
            if one.has_named_request and _rows(found) != _rows(start):
                raise InputError(
                    f"forget: {one_line(str(one.forget), 60)!r} brings another training set than"
                    " that of the requests before; name rows, classes or groups"
                )
        return case, request

    @property
    def has_named_request(self) -> bool:
        """Return whether what must go is one of the case's named requests."""
        return isinstance(self.forget, str) and not (is_range(self.forget) or "=" in self.forget)

    def build(self) -> Method:
        """Return the method; settings change single values of the preset or the defaults."""
        return catalog.method(self.method, self.preset, **self.settings)

    def build_mask(self) -> Mask | Localizer | None:
        """Return the saved mask, or how to find one; None where every parameter may change."""
        if isinstance(self.mask, str) and self.mask.endswith(MASK):
            return Mask.load(self.mask)
        return None if self.mask is None else Localizer.read(self.mask)

    def build_projection(self) -> RetainedSubspace | None:
        """Return what of the retained inputs is held; None where nothing is."""
        if self.projection is None:
            return None
        given = self.projection
        return RetainedSubspace.read(given if isinstance(given, Mapping) else str(given))

    def reads_moments(self, method: Method) -> bool:
        """Return whether input moments have a part in the run."""
        return self.projection is not None or Need.MOMENTS in method.info.reads

    def with_moments(self, case: Case, method: Method) -> Case:
        """Return a case with the moments of the job's file.

        A file that nothing reads is refused, but for that of an earlier run, which is left alone.

        Raises:
            InputError: If the file holds none, or neither method nor projection reads it.
        """
        if self.moments is None or (self.after and not self.reads_moments(method)):
            return case
        if not self.reads_moments(method):
            raise InputError(
                f"moments: {method.id} reads none; use pgu, or hold its steps with --projection 0.9"
            )
        return case.replace(input_moments=InputMoments.load(self.moments))

    def with_all_settings(self, request: ForgetRequest | None, method: Method) -> Job:
        """Return the job with everything spelt out, so that it can be run again as it was."""
        whole = None if request is None else request.model_dump(mode="json")
        forget = self.forget if self.has_named_request else whole
        mask = self.build_mask()
        found = mask.model_dump(mode="json") if isinstance(mask, Localizer) else self.mask
        held = self.build_projection()
        return self.model_copy(
            update={
                "forget": forget,
                "settings": method.model_dump(mode="json"),
                "mask": found,
                "projection": None if held is None else held.model_dump(mode="json"),
                "moments": self.moments if self.reads_moments(method) else None,
            }
        )

    def request_text(self) -> str:
        """Return what must go, in a few words."""
        if not isinstance(self.forget, dict):
            return self.forget or "parts"
        named = self.forget.get("kind", next(iter(self.forget), ""))
        request = parse_request(self.forget) if named in {"target", "targets"} else None
        if isinstance(request, Targets):
            return request.words
        given = self.forget.get(named, ())
        values = given if isinstance(given, list | tuple) else [given]
        more = f",...({len(values)})" if len(values) > 8 else ""
        return f"{named}={','.join(one_line(str(v), 40) for v in values[:8])}{more}"

    def name(self) -> str:
        """Return a folder name for the run."""
        case = self.case.rpartition(":")[2] + ("_then" if self.after else "")
        words = (case, self.request_text().partition("@")[0], self.method)
        return "-".join(re.sub(r"[^\w=,]+", "_", w).strip("_=")[:40] for w in words)


def _rows(case: Case) -> str:
    return "" if case.train is None else case.train.key()


def make_job(given: Mapping[str, Any]) -> Job:
    """Return the job that a mapping describes; a wrong key or value is an error."""
    wrong = next((k for k in given if k not in Job.model_fields), None)
    if wrong is not None:
        raise UnknownNameError("key of a job", str(wrong), Job.model_fields)
    if "case" not in given:
        raise InputError("job: name a case; unlearnkit cases lists them")
    try:
        return Job.model_validate(given)
    except ValidationError as e:
        raise InputError(f"job: {format_validation_error(e, Job)}") from None


def read_job(path: Path, *, trust: bool = True) -> dict[str, Any]:
    """Return the fields of a job, unchecked, from YAML or from a run's ``run.json``."""
    content = read_yaml(path, "job", "case, forget and method")
    inner = content.get("job")
    if not isinstance(inner, Mapping):
        return content
    if not trust:
        check_trusted(str(inner.get("case")), "unlearn")
    return dict(inner)


def check_trusted(case: str, who: str) -> None:
    """Refuse a recorded case that is code to be imported."""
    if case in catalog.cases():
        return
    how = "CASE" if who == "unlearn" else "--case CASE"
    raise InputError(
        f"{who}: the record names code that would be imported and run, {one_line(case, 60)!r}; give"
        f" the case yourself ({how}), or trust the record: --trust"
    )


def parse_settings(given: Iterable[str]) -> dict[str, Any]:
    """Return nested settings from ``key=value`` texts; dots nest, values are YAML."""
    found: dict[str, Any] = {}
    for word in given:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise InputError(f"-p: expected key=value, got {word!r}")
        try:
            value = parse_yaml(text)
        except (ValueError, RecursionError) as e:
            raise InputError(
                f"-p: {key}: the value is no YAML, got {one_line(text, 80)!r} ({e})"
            ) from None
        set_dotted(found, key.strip(), value, who="-p", said=word)
    return found


def set_dotted(
    found: dict[str, Any], name: str, value: object, *, who: str, said: str | None = None
) -> None:
    """Set a value in nested mappings by its dotted name; ``who`` and ``said`` are for errors."""
    *path, last = name.split(".")
    if len(path) >= DEEPEST:
        raise InputError(
            f"{who}: a name has at most {DEEPEST} parts, got {len(path) + 1} in"
            f" {name[:40]!r}...; unlearnkit show lists the names of a method"
        )
    place = found
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise InputError(f"{who}: {part} is given twice, in {(said or name)!r}")
    if last in place:
        raise InputError(f"{who}: {name} is given twice; give it once")
    place[last] = value


def _imported(name: str, known: Iterable[str]) -> Case:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module, function = _named_function(name, known)
    make = getattr(_module(module), function, None)
    if not callable(make):
        raise InputError(f"case: {module!r} has no function {function!r}")
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError):
        raise InputError(
            f"case: {name} must be a function without arguments that returns a Case"
        ) from None
    try:
        case = make()
    except UnlearnkitError:
        raise
    except (Exception, SystemExit) as e:  # the user's own code; sys.exit in it is no success
        raise InputError(
            f"case: {name} raised {type(e).__name__}: {first_line(e)}; mend the function"
        ) from e
    if not isinstance(case, Case):
        raise InputError(f"case: {name} must return a Case, got {type(case).__name__}")
    return case


def _named_function(name: str, known: Iterable[str]) -> tuple[str, str]:
    """Return the module and the function that ``package.module:function`` names."""
    module, colon, function = name.partition(":")
    if not colon:
        if not name.isidentifier() or find_spec(name) is None:
            raise UnknownNameError("case", name, known)
        raise InputError(
            f"case: {name!r} is a module; name its function that returns a Case, such as"
            f" {name}:make_case"
        )
    if module.endswith(".py"):
        raise InputError(
            f"case: name the module as Python imports it, got {module[:80]!r}; write"
            f" {Path(module).stem}:{function} in the folder that holds it"
        )
    if not (function.isidentifier() and all(p.isidentifier() for p in module.split("."))):
        raise InputError(
            f"case: expected package.module:function with names of Python, got {name[:80]!r}"
        )
    return module, function


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        raise InputError(
            f"case: cannot import {name!r}: {first_line(e)}; start from the folder that holds it"
        ) from None
    except SyntaxError as e:
        raise InputError(
            f"case: cannot import {name!r}: {e.msg} in {e.filename}, line {e.lineno}; mend the file"
        ) from None
    except (Exception, SystemExit) as e:  # the user's own code; sys.exit in it is no success
        raise InputError(
            f"case: cannot import {name!r}: it raised {type(e).__name__}: {first_line(e)}; mend the"
            " module"
        ) from e
