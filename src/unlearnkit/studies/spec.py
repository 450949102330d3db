"""Study file: its fields, checked before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
)

from unlearnkit.auditing.strong.ensemble_size import ENOUGH, LEAST
from unlearnkit.core.audit_terms import AuditTier
from unlearnkit.core.checked import FrozenModel
from unlearnkit.core.errors import InputError, UnknownNameError
from unlearnkit.core.files import read_yaml
from unlearnkit.core.method import format_validation_error
from unlearnkit.core.precision import Precision
from unlearnkit.core.request import Targets, parse_request
from unlearnkit.localize.mask_spec import MaskSpec

Design = Literal["FULL", "REUSE"]
_SEEDS = 1000
"""Seeds of a study lie below."""

ALL = "all"
"""In the place of a method: every method that can serve the case."""


def _once(given: object, what: str) -> tuple[object, ...]:
    if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
        raise InputError(f"study: {what}s: give a list, got {given!r}")
    values = tuple(given)
    names = Counter(v if isinstance(v, Hashable) else repr(v) for v in values)
    twice = next((name for name, times in names.items() if times > 1), None)
    if twice is not None:
        raise InputError(f"study: {what} {twice!r} is named twice; name each once")
    return values


def _seeds(given: object) -> object:
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise InputError(f"study: seeds: at least one, got {given}")
        if given > _SEEDS:
            raise InputError(
                f"study: seeds: at most {_SEEDS} (oracles have {_SEEDS} and up), got {given}"
            )
        return tuple(range(given))
    return _once(given, "seed")


def _natural(given: tuple[int, ...]) -> tuple[int, ...]:
    wrong = next((s for s in given if not 0 <= s < _SEEDS), None)
    if wrong is not None or not given:
        raise InputError(
            f"study: seeds: from 0 to 999 (oracles have 1000 and up), got {wrong or given}"
        )
    return given


Seeds = Annotated[tuple[int, ...], BeforeValidator(_seeds), AfterValidator(_natural)]
"""Different seeds below 1,000; a number means so many, from 0."""


class MethodEntry(FrozenModel):
    """A method to try, with one choice of settings or a grid of them."""

    method: str
    """The method's id, or ``all``."""

    preset: str | None = None
    """Named settings to start from."""

    tuned: Path | None = None
    """A file of settings that tuning found; seen from the study's file."""

    settings: dict[str, Any] = Field(default_factory=dict)
    """Hyper-parameters, nested or with dots: ``run.lr``."""

    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Values to try of a hyper-parameter, by its dotted name; all combinations are run."""

    masks: tuple[MaskSpec, ...] = ()
    """Run under each of these masks, such as ``weighted_grad:0.3``, and not without one."""

    without: tuple[str, ...] = ()
    """Methods that ``all`` leaves out."""

    @field_validator("masks", mode="before")
    @classmethod
    def _masks(cls, given: object) -> object:
        if not isinstance(given, list | tuple) or not given:
            raise InputError(
                f"study: masks: give a list such as [weighted_grad:0.3], got {given!r}"
            )
        return tuple(MaskSpec.read(dict(m) if isinstance(m, MaskSpec) else m) for m in given)

    @field_validator("without", mode="before")
    @classmethod
    def _without(cls, given: object) -> object:
        return _once([given] if isinstance(given, str) else given, "method")

    @field_validator("grid")
    @classmethod
    def _some(cls, given: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key, values in given.items():
            if not values:
                raise InputError(f"study: grid: {key} has no value; give a list of some")
        return given


class TuneSpec(FrozenModel):
    """How settings are searched, before the study and apart from it."""

    requests: dict[str, tuple[str, ...]]
    """Forget sets to search on, by case; others than the study's."""

    seeds: Seeds = (900, 901)
    """Seeds of originals and methods in the search; others than the study's."""

    trials: int = Field(20, ge=2, le=10_000)
    """Settings tried of each method; the first are its defaults."""

    budget: float = Field(0.2, gt=0, allow_inf_nan=False)
    """Most that found settings may cost, as a share of retraining's cost."""

    seed: int = Field(0, ge=0)
    """Of the sampler that proposes settings."""

    folder: Path = Path("tuned")
    """The folder of found settings; seen from the study's file."""


class Study(FrozenModel):
    """What is compared: cases x requests x methods x seeds."""

    beside_chance: ClassVar[bool] = True
    """Whether what runs under a mask runs under a random one too."""

    name: str = Field(pattern=r"^\w[\w .-]*$")
    """What to call it; letters, digits, spaces, dots and dashes."""

    about: str = ""
    """Why it is made, in a sentence."""

    cases: tuple[str, ...] = Field(min_length=1)
    """Built-in cases, or ``package.module:function``."""

    requests: dict[str, tuple[str, ...]]
    """What must go, by case: a case's named request, or words such as ``class=3``. One list serves
    all cases."""

    methods: tuple[MethodEntry, ...] = Field(min_length=1)
    """Ids, or ids with ``preset``, ``settings`` and ``grid``; ``all`` for every one that fits,
    or ``all`` with ``without``."""

    seeds: Seeds = (0, 1, 2, 3, 4)
    """Seeds of the method, and of the original under ``FULL``; a number means so many."""

    oracles: int = Field(5, ge=1, le=10_000)
    """How many models are retrained for each request, where the tier needs them."""

    design: Design = "FULL"
    """``FULL``: each seed trains an original of its own. ``REUSE``: one original, of seed 0."""

    tier: AuditTier = AuditTier.REFERENCE
    """How deep the audit looks; ``strong`` trains ensembles for each request and each method."""

    models: int = Field(ENOUGH, ge=LEAST, le=10_000)
    """Models of each kind in an audit of tier ``strong``."""

    tune: TuneSpec | None = None
    """Settings are searched first, and each method runs with its own and with the found ones."""

    device: str = "cpu"
    precision: Precision = "fp32"

    @field_validator("cases", mode="before")
    @classmethod
    def _cases(cls, given: object) -> object:
        return _once([given] if isinstance(given, str) else given, "case")

    @field_validator("requests", mode="before")
    @classmethod
    def _requests(cls, given: object, info: Any) -> object:
        return _by_case(given, info.data.get("cases", ()))

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, given: object) -> object:
        if isinstance(given, str):
            given = [given]
        if isinstance(given, Mapping):
            given = [{name: entry} for name, entry in given.items()]
        if not isinstance(given, list | tuple):
            raise InputError(f"study: methods: give a list of ids, got {given!r}")
        return tuple(_chosen(entry) for entry in given)

    @field_validator("tune", mode="before")
    @classmethod
    def _tune(cls, given: object, info: Any) -> object:
        if not isinstance(given, Mapping):
            return given
        _known(given, TuneSpec, "key of tune in a study")
        if info.data.get("tier") != "reference" or info.data.get("oracles", 0) < 2:
            raise InputError(
                "study: tune: settings are judged by two oracles or more; set oracles to at least 2"
                " and tier to reference"
            )
        words = dict(given)
        if "requests" not in words:
            raise InputError("study: tune: requests: name forget sets other than the study's")
        words["requests"] = _by_case(words["requests"], info.data.get("cases", ()))
        return words

    @field_validator("tune")
    @classmethod
    def _apart(cls, given: TuneSpec | None, info: Any) -> TuneSpec | None:
        used = {*info.data.get("seeds", ()), *([0] if info.data.get("design") == "REUSE" else [])}
        both = sorted(used & set(given.seeds)) if given else []
        if both:
            raise InputError(
                f"study: tune: seed {both[0]} is the study's too; tune with seeds that the study"
                " does not have"
            )
        return given


class TrialStudy(Study):
    """One trial of a search: without random masks."""

    beside_chance: ClassVar[bool] = False


def load(path: Path) -> Study:
    """Return the study in a YAML file; paths in the file are relative to it."""
    found = make_study(read_yaml(path, "study", "cases, requests and methods"))
    here = path.parent
    methods = tuple(
        c if c.tuned is None else c.model_copy(update={"tuned": here / c.tuned})
        for c in found.methods
    )
    tune = found.tune
    if tune is not None:
        tune = tune.model_copy(update={"folder": here / tune.folder})
    return found.model_copy(update={"methods": methods, "tune": tune})


def make_study(given: Mapping[str, Any]) -> Study:
    """Return the study that a mapping describes; a wrong value or key is an error with its name."""
    _known(given, Study, "key of a study")
    try:
        return Study.model_validate(dict(given))
    except ValidationError as e:
        raise InputError(f"study: {format_validation_error(e, Study)}") from None


def _known(given: Mapping[Any, Any], kind: type[BaseModel], what: str) -> None:
    wrong = next((k for k in given if k not in kind.model_fields), None)
    if wrong is not None:
        raise UnknownNameError(what, str(wrong), kind.model_fields)


def _chosen(entry: object) -> MethodEntry:
    if isinstance(entry, MethodEntry):
        return entry
    if isinstance(entry, str):
        return MethodEntry(method=entry)
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise InputError(
            "study: methods: write an id, or an id with preset, tuned, settings, grid or masks,"
            f" got {entry!r}"
        )
    ((name, words),) = entry.items()
    words = {} if words is None else words
    if not isinstance(words, Mapping):
        raise InputError(f"study: methods: {name}: give preset, settings or grid, got {words!r}")
    fields = {k: f for k, f in MethodEntry.model_fields.items() if k != "method"}
    wrong = next((k for k in words if k not in fields), None)
    if wrong is not None:
        raise UnknownNameError(f"key of method {name} in a study", str(wrong), fields)
    if name == ALL and set(words) - {"masks", "without"}:
        raise InputError(
            "study: methods: all takes masks and without, and no settings; name the method as well"
        )
    if name != ALL and "without" in words:
        raise InputError(f"study: methods: {name}: only all takes without")
    try:
        return MethodEntry(method=str(name), **{str(k): v for k, v in words.items()})
    except ValidationError as e:
        raise InputError(
            f"study: methods: {name}: {format_validation_error(e, MethodEntry)}"
        ) from None


def _by_case(given: object, cases: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(cases, _requests(given))
    for case in given:
        if case not in cases:
            raise UnknownNameError("case of the study", str(case), cases)
    for case in cases:
        if case not in given:
            raise InputError(f"study: requests: none for case {case!r}; name some")
    return {case: _requests(given[case]) for case in cases}


def _requests(given: object) -> tuple[str, ...]:
    if isinstance(given, str | Mapping):
        given = [given]
    if not isinstance(given, list | tuple) or not given:
        raise InputError(f"study: requests: give a list of some, got {given!r}")
    words = [_in_words(r) if isinstance(r, Mapping) else str(r) for r in given]
    return tuple(str(w) for w in _once(words, "request"))


def _in_words(given: Mapping[str, Any]) -> str:
    request = parse_request(given)
    if isinstance(request, Targets):
        return request.words
    asked = request.model_dump(mode="json")
    kind = asked["kind"]
    return f"{kind}={','.join(map(str, asked[kind]))}"
