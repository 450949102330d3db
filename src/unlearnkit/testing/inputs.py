"""The contract of what a method declares: settings, tasks, inputs."""

from __future__ import annotations

from dataclasses import replace

from unlearnkit import catalog
from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View, as_named_tensors, labelled
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.hidden_targets import no_targets
from unlearnkit.core.method import Method, Need
from unlearnkit.core.request import ForgetRequest, Rows
from unlearnkit.testing.subject import ToyProblem, bits, expect, same_bits, toy
from unlearnkit.testing.zoo import AWKWARD_MODELS
from unlearnkit.unlearning.run_method import run_method


def declaration_complete(s: ToyProblem) -> None:
    """The declaration is complete and names what exists."""
    info, who = s.method.info, s.method.id
    expect(bool(info.title and info.cite), f"{who}: title and citation are needed")
    unknown = info.tasks - set(catalog.tasks())
    expect(not unknown, f"{who}: serves {sorted(unknown)}, which is no task")
    both = info.needs & info.uses
    expect(not both, f"{who}: both needs and uses {sorted(both)}; say it once")
    for name, field in s.method.model_fields.items():
        expect(bool(field.description), f"{who}.{name}: describe the hyper-parameter")
        expect(not field.is_required(), f"{who}.{name}: a default is needed")


def settings_survive_json(s: ToyProblem) -> None:
    """Defaults, smoke settings and every preset build, and come back from JSON as they were."""
    info = s.method.info
    built = [s.method.build(), s.smoke(), *(s.method.build(name) for name in info.presets)]
    for method in built:
        back = s.method.model_validate_json(method.model_dump_json())
        expect(back == method, f"{s.method.id}: {method!r} comes back from JSON as {back!r}")
    s.method.model_json_schema()


def wrong_settings_refused(s: ToyProblem) -> None:
    """A value of a wrong type, or beyond a bound, is an input error that names the field."""
    schema = s.method.model_json_schema()["properties"] if s.method.model_fields else {}
    for name in s.method.model_fields:
        for value in [object(), *_beyond(schema[name])]:
            _refused(s.method, name, value)


def unknown_settings_get_the_nearest_name(s: ToyProblem) -> None:
    """An unknown hyper-parameter or preset is an error that suggests the nearest name."""
    for name in s.method.model_fields:
        message = _error(s.method, None, f"{name}_x")
        hint = f"Did you mean {name!r}?"
        expect(hint in message, f"{s.method.id}: {name}_x: no hint in: {message}")
    message = _error(s.method, "no_such_preset")
    expect(
        "no_such_preset" in message, f"{s.method.id}: the error does not name the preset: {message}"
    )


def other_tasks_refused(s: ToyProblem) -> None:
    """A task that is not declared is refused, with the methods that serve it."""
    for name in sorted(set(catalog.tasks()) - s.method.info.tasks):
        fits = [i for i, m in catalog.methods().items() if name in m.info.tasks]
        _unsupported(s, toy(name), "a task that it does not serve", fits)


def missing_inputs_refused(s: ToyProblem) -> None:
    """Without an input that it needs it is refused; without one that it only uses it runs."""
    whole, info = s.case, s.method.info
    for need in sorted(info.needs):
        request = None if need is Need.CLASSES else s.asking(Rows(0, 1))
        _unsupported(s, _lacking(whole, need), f"a case without {need}", [], request)
    for use in sorted(info.uses):
        case = _lacking(whole, use)
        if all(_has(case, need) for need in info.needs):
            s.run(case=case)
    if info.needs_one_of:
        bare = whole
        for need in sorted(info.needs_one_of):
            bare = _lacking(bare, need)
        _unsupported(s, bare, f"a case without any of {sorted(info.needs_one_of)}", [])


def targets_not_needed_if_not_declared(s: ToyProblem) -> None:
    """A method that does not declare labels runs on rows without targets, as on others."""
    if s.method.info.needs & {Need.LABELS, Need.CLASSES}:
        return
    whole = s.run()
    bare = s.run(case=_lacking(s.case, Need.LABELS))
    if Need.LABELS not in s.method.info.uses:
        same = same_bits(bits(whole.model), bits(bare.model))
        expect(same, f"{s.method.id}: does not declare labels, but they change the result")


def _refused(cls: type[Method], name: str, value: object) -> None:
    try:
        cls.build(**{name: value})
    except InputError as e:
        message = str(e)
        expect(name in message, f"{cls.id}: the error for {name} does not name it: {message}")
        return
    expect(False, f"{cls.id}: {name}={value!r} is accepted")


def _beyond(schema: dict[str, object]) -> list[object]:
    """Return a value beyond each bound of a number's schema."""
    limits = [("minimum", -1.0), ("exclusiveMinimum", 0.0), ("maximum", 1.0)]
    limits += [("exclusiveMaximum", 0.0)]
    out: list[object] = []
    for key, step in limits:
        bound = schema.get(key)
        if isinstance(bound, int | float):
            out.append(bound + step)
    if schema.get("type") == "number":
        out.append(float("nan"))
    return out


def _error(cls: type[Method], preset: str | None, *names: str) -> str:
    try:
        cls.build(preset, **dict.fromkeys(names, 1))
    except InputError as e:
        return str(e)
    return "nothing is raised"


def _unsupported(
    s: ToyProblem, case: Case, what: str, fits: list[str], request: ForgetRequest | None = None
) -> None:
    fresh = case.fresh or s.case.fresh
    assert fresh is not None
    request = None if case.parts is not None else request or Rows(0, 1)
    try:
        run_method(fresh(), case, request, s.smoke(), s.rt())
    except UnsupportedError as e:
        message = str(e)
        named = not fits or any(i in message for i in fits)
        expect(named, f"{s.method.id}: refuses {what} without naming what works: {message}")
        return
    expect(False, f"{s.method.id}: runs on {what}")


def _lacking(whole: Case, need: Need) -> Case:
    if need is Need.VALIDATION:
        return whole.replace(validation=None)
    if need is Need.FRESH:
        return whole.replace(fresh=None)
    if need is Need.MOMENTS:
        return whole.replace(input_moments=None)
    if need in {Need.HISTORY, Need.CHECKPOINTS}:
        return whole.replace(train_model=None)
    if need is Need.CLIENTS:
        assert isinstance(whole.train, TensorData)
        return whole.replace(train=replace(whole.train, group=None))
    if need in {Need.CLASSES, Need.CORRECTED}:  # of the request, not of the case
        return whole
    if need is Need.SHAPE:
        return AWKWARD_MODELS["two_arguments"].case(whole)
    assert isinstance(whole.train, TensorData)
    if need is Need.LABELS:
        return whole.replace(train=whole.train.with_targets(no_targets(len(whole.train))))
    if need is Need.FORGET:
        shape = tuple(next(iter(as_named_tensors(whole.train.x).values())).shape[1:])
        return Case.without_data(task=whole.task, input_shape=shape).replace(
            fresh=whole.fresh, recipe=whole.recipe, validation=whole.validation
        )
    go = View.all(whole.train).pick(whole.train.y.new_ones(len(whole.train)).bool().cumsum(0) < 12)
    return whole.replace(train=None, parts=(go, None))


def _has(case: Case, need: Need) -> bool:
    if need in {Need.FORGET, Need.RETAIN}:
        forget = case.train is not None or case.parts is not None
        stays = case.train is not None or (case.parts is not None and case.parts[1] is not None)
        return forget if need is Need.FORGET else stays
    if need is Need.LABELS:
        return case.train is None or labelled(case.train)
    return (case.validation if need is Need.VALIDATION else case.fresh) is not None


INPUT_CHECKS = (
    declaration_complete,
    settings_survive_json,
    wrong_settings_refused,
    unknown_settings_get_the_nearest_name,
    other_tasks_refused,
    missing_inputs_refused,
    targets_not_needed_if_not_declared,
)
