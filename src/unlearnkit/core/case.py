"""What a model was trained on, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unlearnkit.core.border import border
from unlearnkit.core.canary import Canary
from unlearnkit.core.data import Data, TensorData, View, labelled
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.input_formats import (
    as_data,
    column_values,
    input_columns,
    is_table,
    owners_of_parts,
)
from unlearnkit.core.keys import Keys, number_owners, read_keys
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import (
    Classes,
    Features,
    ForgetRequest,
    Key,
    Labels,
    Rows,
    parse_request,
)
from unlearnkit.core.row_edits import edit_rows
from unlearnkit.core.row_selection import rows_to_forget
from unlearnkit.core.tampering import Tampering
from unlearnkit.core.task import Task, task_named
from unlearnkit.core.token_rows import is_text, reader_of, reading_task
from unlearnkit.core.train_function import TrainFunction, TrainModel
from unlearnkit.core.training_summary import TrainingSummary


@dataclass(frozen=True)
class Partition:
    """The training rows in two parts: disjoint, and complete where the training set is known.

    Where a request corrects rows, ``forget`` are these rows as they were, and ``retain`` is the
    whole corrected training set: what a retrained model is trained on.
    """

    forget: View | None
    """Rows that must go; None when there is no data."""

    retain: View | None
    """Rows that stay; None when they are not at hand."""

    removed_classes: tuple[int, ...]
    """Classes that no kept row has; without data, with those of earlier deletions."""

    corrections: View | None = None
    """The forget rows as they stand in ``retain``, in the same order; None where rows go."""

    in_use: Callable[[Data], Data] | None = field(default=None, compare=False)
    """Makes of any rows what the model gets from then on, where a feature is removed."""

    @property
    def unchanged_rows(self) -> View | None:
        """Return the retained rows that the request does not touch; None where none are left."""
        if self.corrections is None or self.retain is None:
            return self.retain
        left = ~torch.isin(self.retain.rows, self.corrections.rows)
        return self.retain.pick(left) if bool(left.any()) else None

    def as_used(self, rows: Data) -> Data:
        """Return rows as the model gets them from then on: without a removed feature."""
        return rows if self.in_use is None else self.in_use(rows)


@dataclass(frozen=True, init=False)
class Case:
    """A trained model's circumstances: rows, task, and how to train from scratch.

    Three doors: the whole training set plus a request (this constructor); the parts as they are
    (``from_parts``); no data at all (``without_data``).
    """

    task: Task
    train: Data | None
    test: Data | None
    validation: Data | None
    held_out: Data | None
    fresh: Callable[[], nn.Module] | None
    recipe: Recipe | None
    train_model: TrainFunction | None
    """The user's own training loop, which goes before the recipe."""

    name: str
    parts: tuple[View, View | None] | None
    input_shape: tuple[int, ...] | None
    manipulated: Tampering | None
    """What was done to the training set, where somebody tampered with it."""
    canary: Canary | None
    """A secret that was planted in the training text, where somebody did."""

    input_moments: TrainingSummary | None
    """What was kept of the layer inputs on all training rows, for methods without a retain set."""

    keys: Keys
    """What the user calls the training rows and their owners."""

    remarks: tuple[str, ...]
    """What a user should know of how rows were read; each run notes it."""

    @border("case")
    def __init__(
        self,
        *,
        train: Any,
        task: str | Task,
        test: Any = None,
        validation: Any = None,
        held_out: Any = None,
        fresh: Callable[[], nn.Module] | None = None,
        recipe: Recipe | None = None,
        train_model: TrainModel | None = None,
        version: str | None = None,
        name: str = "case",
        target: str | None = None,
        inputs: tuple[str, ...] | list[str] = (),
        group: Any = None,
        keys: Any = None,
        workers: int = 0,
        data_collator: Callable[[list[Any]], Any] | None = None,
        input_moments: TrainingSummary | None = None,
        processing_class: Any = None,
    ) -> None:
        """Take the whole training set.

        Args:
            train: The training rows: a pair ``(x, y)`` of arrays or tensors (``x`` may be a dict of
                them, ``y`` None for rows without targets), a map-style torch ``Dataset``, a Hugging
                Face ``Dataset``, a ``DataFrame``; texts, as ``CausalLM`` says. Rows may be dicts.
            task: ``"classification"``, ``"regression"`` or another's name, or a ``Task``.
            test: Rows never trained on: utility is measured on them.
            validation: Rows never trained on, for stop rules of methods; no metric looks at them.
            held_out: Non-members for attacks, never tuned on; the test rows when None.
            fresh: Builds an untrained model; needed for oracles and where a method declares it.
            recipe: How the model was trained; likewise.
            train_model: Your own loop, ``fn(model, data, seed) -> model``; ``data`` are the rows
                that stay, of the kind that ``train`` is. The recipe then hints at a learning rate.
            version: Names ``train_model`` with all that it reads; they are read when None.
            name: What to call the case in reports.
            target: The target column, when rows are a table.
            inputs: The input columns, when rows are a table; all others when empty.
            group: Each row's owner: integers or strings ``(N,)``, or a table's column.
            keys: Each row's own id, likewise, which ``Rows`` then names; positions when None.
            workers: Loader processes for map-style sets.
            data_collator: Makes a batch of the inputs of map-style rows, such as by padding.
            input_moments: ``InputMoments`` of all training rows, kept after training.
            processing_class: The tokenizer that reads texts.
        """
        task, others = reading_task(task, processing_class), _sets(test, validation, held_out)
        (train, group, keys), others, remarks = _read_texts(task, (train, group, keys), **others)
        used = _columns(train, "train", target, tuple(inputs), group, keys)
        read = partial(as_data, target=target, inputs=used, workers=workers, collate=data_collator)
        (owners,), names = _owners((train, group))
        rows = read(train, name="train", group=owners)
        fitted = _fit(task, rows)
        self._set(
            task=fitted, train=_typed(rows, fitted, "train"), remarks=remarks,
            **_other_rows(read, fitted, **others),
            fresh=fresh, recipe=recipe, train_model=train_model, version=version, name=name,
            keys=Keys(_ids(train, keys, len(rows)), names), input_moments=input_moments,
        )  # fmt: skip

    @classmethod
    @border("case")
    def from_parts(
        cls,
        *,
        forget: Any,
        task: str | Task,
        retain: Any = None,
        test: Any = None,
        validation: Any = None,
        held_out: Any = None,
        fresh: Callable[[], nn.Module] | None = None,
        recipe: Recipe | None = None,
        train_model: TrainModel | None = None,
        version: str | None = None,
        name: str = "case",
        target: str | None = None,
        inputs: tuple[str, ...] | list[str] = (),
        group: Any = None,
        workers: int = 0,
        input_moments: TrainingSummary | None = None,
        processing_class: Any = None,
    ) -> Case:
        """Return a case made from the forget set and, where they are available, retained rows.

        Rows come in any form that ``train`` may have; ``retain`` is None when none are left. A task
        given by name is fitted to the rows of both parts; pass ``Classification(10)`` where these
        do not show all classes. ``group`` is the owner of each row: a column that both tables have,
        or a pair of integers or strings ``(N,)``, for forget and retained rows. The other
        arguments are those of the constructor; ``data`` of ``train_model`` is of the kind that
        ``retain`` is. Requests on the case are None, because the parts say what to forget.
        """
        mine, theirs = owners_of_parts(group)
        task, others = reading_task(task, processing_class), _sets(test, validation, held_out)
        (forget, mine, _), others, remarks = _read_texts(task, (forget, mine, None), **others)
        (retain, theirs, _), _, more = _read_texts(task, (retain, theirs, None), what="retain")
        columns = _columns(forget, "forget", target, tuple(inputs), mine)
        (mine, theirs), names = _owners((forget, mine), (retain, theirs))
        read = partial(as_data, target=target, inputs=columns, workers=workers)
        go = read(forget, name="forget", group=mine)
        stay = None if retain is None else read(retain, name="retain", group=theirs)
        fitted = _fit(task, go, *([] if stay is None else [stay]))
        kept = None if stay is None else View.all(_typed(stay, fitted, "retain"))
        case = object.__new__(cls)
        case._set(
            task=fitted,
            remarks=remarks + more,
            **_other_rows(read, fitted, **others),
            fresh=fresh, recipe=recipe, train_model=train_model, version=version, name=name,
            parts=(View.all(_typed(go, fitted, "forget")), kept),
            keys=Keys(owners=names),
            input_moments=input_moments,
        )  # fmt: skip
        return case

    @classmethod
    @border("case")
    def without_data(
        cls,
        *,
        task: Task,
        input_shape: tuple[int, ...],
        test: Any = None,
        fresh: Callable[[], nn.Module] | None = None,
        recipe: Recipe | None = None,
        name: str = "case",
    ) -> Case:
        """Take no training rows at all: for zero-shot methods.

        Args:
            task: What outputs mean, such as ``Classification(10)``.
            input_shape: One row's input shape, such as ``(3, 32, 32)``.
            test: Rows to measure on, if there are any; methods never see them.
            fresh: As in the constructor.
            recipe: As in the constructor.
            name: As in the constructor.

        Returns:
            The case.

        Raises:
            InputError: If the task is a name: without rows it cannot be fitted.
        """
        if isinstance(task, str):
            raise InputError(
                f"task: without data, give a task such as Classification(10), got {task!r}"
            )
        case = object.__new__(cls)
        seen = None if test is None else _typed(as_data(test, name="test"), task, "test")
        case._set(
            task=task, test=seen, fresh=fresh, recipe=recipe, name=name, input_shape=input_shape
        )
        return case

    def _set(self, **values: Any) -> None:
        if isinstance(values.get("fresh"), nn.Module):
            raise InputError("fresh: give a function that builds an untrained model, got a model")
        fresh, recipe = values.get("fresh"), values.get("recipe")
        if fresh is not None and not callable(fresh):
            raise InputError(
                f"fresh: give a function that builds an untrained model, got {type(fresh).__name__}"
            )
        if not isinstance(recipe, Recipe | None):
            raise InputError(
                f"recipe: give a Recipe, such as Recipe(lr=0.1, epochs=10), got"
                f" {type(recipe).__name__}"
            )
        if not hasattr(values.get("task"), "losses"):
            raise _no_task(values.get("task"))
        if recipe is not None and recipe.epochs == 0:
            raise InputError(
                "recipe: 0 epochs would leave originals and oracles untrained; give"
                " Recipe(epochs=...) of at least 1"
            )
        values.setdefault("remarks", ())
        keys, train = values.setdefault("keys", Keys()), values.get("train")
        if train is not None and keys.rows is not None and len(keys.rows) != len(train):
            raise InputError(
                f"keys: {len(keys.rows)} name {len(train)} training rows; build the case anew with"
                " one a row"
            )
        fn = values.get("train_model")
        if not isinstance(fn, TrainFunction):
            values["train_model"] = TrainFunction.of(fn, values.get("version"))
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, values.get(name))

    @property
    def training(self) -> Recipe | TrainFunction | None:
        """Return how models are trained from scratch: the user's loop, or else the recipe."""
        return self.train_model or self.recipe

    def replace(self, **changes: Any) -> Case:
        """Return the case with some fields changed, such as ``recipe``.

        Rows are read as the constructor reads them: ``replace(test=(x, y))``.
        """
        values = {name: getattr(self, name) for name in self.__dataclass_fields__} | changes
        for what in {"train", "test", "validation", "held_out"} & set(changes):
            given = changes[what]
            if given is not None and not hasattr(given, "with_targets"):
                values[what] = _typed(as_data(given, name=what), values["task"], what)
        case = object.__new__(type(self))
        case._set(**values)
        return case

    def partition(self, request: ForgetRequest | None) -> Partition:
        """Return the rows that go and the rows that stay.

        Args:
            request: What must go; None for a case made from parts.

        Returns:
            The two views.

        Raises:
            InputError: If the request names no row or all rows, or does not fit the case.
        """
        if self.parts is not None:
            if request is not None:
                raise InputError("request: the case was made from parts; pass None as the request")
            go, stay = self.parts
            return Partition(go, stay, () if stay is None else _gone(go, stay))
        if request is None:
            raise InputError(
                "request: name what must be forgotten, such as Classes(3) or Rows(0, 5);"
                " on the command line: --forget class=3"
            )
        if self.train is None:
            return Partition(None, None, self._gone_unseen(request))
        located = self.keys.locate(request)
        if isinstance(located, Features | Labels):
            return self._corrected(located, self.train)
        mask = rows_to_forget(located, self.train)
        count, total = int(mask.sum()), len(mask)
        if count == 0 or count == total:
            whole = "no row" if count == 0 else "all rows"
            raise InputError(
                f"forget: the request names {whole} ({count} of {total}); name some and keep some"
            )
        go, stay = View(self.train, mask.nonzero()[:, 0]), View(self.train, (~mask).nonzero()[:, 0])
        return Partition(go, stay, _gone(go, stay))

    def _corrected(self, request: Features | Labels, train: Data) -> Partition:
        """Return the rows that a request corrects, and the corrected training set."""
        located = [int(row) for row in request.rows or ()] if isinstance(request, Labels) else []
        named = self.keys.named(located)
        edit = edit_rows(
            request, train, self.task, own_loop=self.train_model is not None, names=named
        )
        rows = edit.mask.nonzero()[:, 0]
        go, stay = View(train, rows), View.all(edit.data)
        return Partition(go, stay, _gone(go, stay), View(edit.data, rows), edit.in_use)

    def after_deletion(self, request: ForgetRequest | str | Mapping[str, Any]) -> Case:
        """Return the case after a deletion: the training set is what stays.

        A correction of features or labels leaves all rows: the case then has the corrected ones.
        Keys and owners keep their meaning, and a later request for what is already deleted says so.
        Positions change with a deletion: without keys, a later request for rows is refused. All
        else stays as it is, the test rows and the number of classes among it. A case without data
        remembers its deleted classes. Input moments are of rows that are gone and of the model
        before: they are left out, and ``Unlearned.case_after_deletion`` updates them.

        Args:
            request: What must go, as a request or in its words.

        Returns:
            The case without these rows.

        Raises:
            UnsupportedError: If the case was made from parts.
        """
        if self.train is None and self.parts is None:
            gone = self.partition(parse_request(request)).removed_classes
            return self.replace(keys=replace(self.keys, deleted_classes=frozenset(gone)))
        if self.train is None:
            raise UnsupportedError(
                "after_deletion: the case has no whole training set; build it with train="
            )
        parts = self.partition(parse_request(request))
        assert parts.forget is not None
        assert parts.retain is not None
        if parts.corrections is not None:
            return self._after_correction(parts)
        stay = parts.retain.rows
        return self.replace(
            train=self.train.pick(stay),
            train_model=None if self.train_model is None else self.train_model.after_deletion(stay),
            manipulated=None if self.manipulated is None else self.manipulated.after_deletion(stay),
            keys=self.keys.after(parts.forget.rows, stay, self.train.group),
            input_moments=None,
        )

    def _after_correction(self, parts: Partition) -> Case:
        """Return the case with corrected rows: none is gone, and positions are what they were."""
        assert parts.retain is not None
        others = {"test": self.test, "validation": self.validation, "held_out": self.held_out}
        used = {n: None if rows is None else parts.as_used(rows) for n, rows in others.items()}
        return self.replace(
            train=parts.retain.data,
            **used,
            manipulated=None,
            input_moments=None,
        )

    def rows(self, positions: Tensor | Sequence[int]) -> Rows:
        """Return the request for rows at positions ``(k,)``, by key where they have one."""
        return Rows(self.keys.named(positions))

    def _gone_unseen(self, request: ForgetRequest) -> tuple[int, ...]:
        count = self.task.spec().get("classes")
        if not isinstance(request, Classes) or not isinstance(count, int):
            raise UnsupportedError(
                f"{request.kind}: the case has no training rows; name classes of a classification"
            )
        strange = [c for c in request.classes if not 0 <= c < count]
        if strange:
            raise InputError(f"class: {strange[0]} is not among 0 to {count - 1}; name one that is")
        self.keys.refuse_deleted_classes(request.classes)
        gone = self.keys.deleted_classes | set(request.classes)
        if not (request.classes and len(gone) < count):
            left = count - len(self.keys.deleted_classes)
            raise InputError(
                f"forget: the request names {len(request.classes)} of {left} classes; name some"
                " and keep some"
            )
        return tuple(sorted(gone))


def _sets(test: Any, validation: Any, held_out: Any) -> dict[str, Any]:
    return {"test": test, "validation": validation, "held_out": held_out}


def _read_texts(
    task: str | Task, rows: tuple[Any, Any, Any], what: str = "train", **others: Any
) -> tuple[tuple[Any, Any, Any], dict[str, Any], tuple[str, ...]]:
    """Return rows with owners and keys, other sets, and remarks; texts are read as tokens."""
    reader, (source, group, keys) = reader_of(task), rows
    if reader is None:
        return rows, others, ()
    remarks: tuple[str, ...] = ()
    if is_text(source):
        found = reader.read(source, what, group, keys)
        rows, remarks = (found.data, found.owners, found.keys), found.remarks
    for name, other in others.items():
        if is_text(other):
            read = reader.read(other, name)
            others[name], remarks = read.data, remarks + read.remarks
    return rows, others, remarks


def _columns(
    source: Any,
    name: str,
    target: str | None,
    inputs: tuple[str, ...],
    group: Any,
    keys: Any = None,
) -> tuple[str, ...]:
    """Return the input columns of the first table, which all others must then have too."""
    if not is_table(source):
        return inputs
    return input_columns(source, name=name, target=target, inputs=inputs, group=group, keys=keys)


def _other_rows(read: Callable[..., Data], task: Task, **sources: Any) -> dict[str, Data]:
    """Return the sets that are given, in the library's form, by name."""
    given = {name: rows for name, rows in sources.items() if rows is not None}
    return {name: _typed(read(rows, name=name), task, name) for name, rows in given.items()}


def _owners(*parts: tuple[Any, Any]) -> tuple[list[Any], tuple[str, ...] | None]:
    """Return the owners of rows as numbers, and their names where they are text."""
    return number_owners([column_values(rows, "group", group) for rows, group in parts])


def _ids(rows: Any, keys: Any, count: int) -> tuple[Key, ...] | None:
    ids = column_values(rows, "keys", keys)
    return None if ids is None else read_keys(ids, count)


def _fit(task: str | Task, *sets: Data) -> Task:
    if isinstance(task, type):
        raise InputError(f"task: give a task such as {task.__name__}(10) or its name, got a class")
    if not isinstance(task, str):
        if not hasattr(task, "losses"):
            raise _no_task(task)
        return task
    if not all(labelled(d) for d in sets):
        raise InputError(
            f"task: rows without targets say nothing to fit {task!r} to; give a task such as"
            " Classification(10)"
        )
    shapes = {tuple(d.y.shape[1:]) for d in sets}
    if len(shapes) > 1:
        raise InputError(f"y: targets of the parts differ in shape: {', '.join(map(str, shapes))}")
    y = torch.cat([d.y for d in sets])
    return task_named(task, TensorData(y, y))


def _no_task(given: object) -> InputError:
    return InputError(
        "task: give a task such as Classification(10), or its name, such as 'classification', got"
        f" {type(given).__name__}"
    )


def _typed(data: Data, task: Task, what: str) -> Data:
    if not labelled(data):
        return data
    try:
        return data.with_targets(task.targets(data.y), data.given)
    except InputError as e:
        raise InputError(f"{what}: {e}") from None


def _gone(go: View, stay: View) -> tuple[int, ...]:
    if not (go.labelled and stay.labelled) or go.y.is_floating_point() or go.y.ndim != 1:
        return ()
    return tuple(sorted(set(go.y.tolist()) - set(stay.y.tolist())))
