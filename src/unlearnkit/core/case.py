"""What a model was trained on, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from unlearnkit.core.border import border
from unlearnkit.core.data import Data, TensorData, View, labelled
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.input_formats import as_data, input_columns, is_table, owners_of_parts
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, ForgetRequest, parse_request
from unlearnkit.core.row_selection import rows_to_forget
from unlearnkit.core.tampering import Tampering
from unlearnkit.core.task import Task, task_named
from unlearnkit.core.training_summary import TrainingSummary


@dataclass(frozen=True)
class Partition:
    """The training rows in two parts: disjoint, and complete where the training set is known."""

    forget: View | None
    """Rows that must go; None when there is no data."""

    retain: View | None
    """Rows that stay; None when they are not at hand."""

    removed_classes: tuple[int, ...]
    """Classes that no kept row has."""


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
    name: str
    parts: tuple[View, View | None] | None
    input_shape: tuple[int, ...] | None
    manipulated: Tampering | None
    """What was done to the training set, where somebody tampered with it."""
    input_moments: TrainingSummary | None
    """What was kept of the layer inputs on all training rows, for methods without a retain set."""

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
        name: str = "case",
        target: str | None = None,
        inputs: tuple[str, ...] | list[str] = (),
        group: Any = None,
        workers: int = 0,
        input_moments: TrainingSummary | None = None,
    ) -> None:
        """Take the whole training set.

        Args:
            train: The training rows: a pair ``(x, y)`` of arrays or tensors (``x`` may be a dict of
                them, ``y`` None for rows without targets), a map-style torch ``Dataset``, a Hugging
                Face ``Dataset``, a ``DataFrame``.
            task: ``"classification"``, ``"multilabel"``, ``"regression"``, or a ``Task``.
            test: Rows never trained on: utility is measured on them.
            validation: Rows never trained on, for stop rules of methods; no metric looks at them.
            held_out: Non-members for attacks, never tuned on; the test rows when None.
            fresh: Builds an untrained model; needed for oracles and where a method declares it.
            recipe: How the model was trained; likewise.
            name: What to call the case in reports.
            target: The target column, when rows are a table.
            inputs: The input columns, when rows are a table; all others when empty.
            group: The owner of each training row: integers ``(N,)``, or a table's column.
            workers: Loader processes for map-style sets.
            input_moments: ``InputMoments`` of all training rows, kept after training.
        """
        columns = _columns(train, "train", target, tuple(inputs), group)

        def read(source: Any, what: str, owners: Any = None) -> Data:
            return as_data(
                source, name=what, target=target, inputs=columns, group=owners, workers=workers
            )

        rows = read(train, "train", group)
        fitted = _fit(task, rows)

        def rest(source: Any, what: str) -> Data | None:
            return None if source is None else _typed(read(source, what), fitted, what)

        self._set(
            task=fitted,
            train=_typed(rows, fitted, "train"),
            test=rest(test, "test"),
            validation=rest(validation, "validation"),
            held_out=rest(held_out, "held_out"),
            fresh=fresh,
            recipe=recipe,
            name=name,
            input_moments=input_moments,
        )

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
        name: str = "case",
        target: str | None = None,
        inputs: tuple[str, ...] | list[str] = (),
        group: Any = None,
        workers: int = 0,
        input_moments: TrainingSummary | None = None,
    ) -> Case:
        """Take the rows to forget and, where they are at hand, all or some of the rows that stay.

        Args:
            forget: The rows that must go, in any form that ``train`` may have.
            task: As in the constructor. By name, it is fitted to the rows of both parts; pass
                ``Classification(10)`` where these do not show all classes.
            retain: Rows that stay; None when none are left.
            test: As in the constructor.
            validation: As in the constructor.
            held_out: As in the constructor.
            fresh: As in the constructor.
            recipe: As in the constructor.
            name: As in the constructor.
            target: As in the constructor.
            inputs: As in the constructor.
            group: The owner of each row: a column that both tables have, or a pair of integers
                ``(N,)``, for the rows to forget and for the rows that stay.
            workers: As in the constructor.
            input_moments: As in the constructor.

        Returns:
            The case; requests on it are None, because the parts say what must go.
        """
        mine, theirs = owners_of_parts(group)
        columns = _columns(forget, "forget", target, tuple(inputs), mine)

        def read(source: Any, what: str, owners: Any = None) -> Data:
            return as_data(
                source, name=what, target=target, inputs=columns, group=owners, workers=workers
            )

        go = read(forget, "forget", mine)
        stay = None if retain is None else read(retain, "retain", theirs)
        fitted = _fit(task, go, *([] if stay is None else [stay]))

        def rest(source: Any, what: str) -> Data | None:
            return None if source is None else _typed(read(source, what), fitted, what)

        kept = None if stay is None else View.all(_typed(stay, fitted, "retain"))
        case = object.__new__(cls)
        case._set(
            task=fitted,
            test=rest(test, "test"),
            validation=rest(validation, "validation"),
            held_out=rest(held_out, "held_out"),
            fresh=fresh,
            recipe=recipe,
            name=name,
            parts=(View.all(_typed(go, fitted, "forget")), kept),
            input_moments=input_moments,
        )
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
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, values.get(name))

    def replace(self, **changes: Any) -> Case:
        """Return the case with some fields changed, such as ``recipe``."""
        case = object.__new__(type(self))
        case._set(**{name: getattr(self, name) for name in self.__dataclass_fields__} | changes)
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
        mask = rows_to_forget(request, self.train)
        count, total = int(mask.sum()), len(mask)
        if count == 0 or count == total:
            whole = "no row" if count == 0 else "all rows"
            raise InputError(
                f"forget: the request names {whole} ({count} of {total}); name some and keep some"
            )
        go, stay = View(self.train, mask.nonzero()[:, 0]), View(self.train, (~mask).nonzero()[:, 0])
        return Partition(go, stay, _gone(go, stay))

    def after_deletion(self, request: ForgetRequest | str | Mapping[str, Any]) -> Case:
        """Return the case after a deletion: the training set is what stays.

        Rows are renumbered; ask for the next deletion in the new numbers. All else stays as it is,
        the test rows and the number of classes among it.

        Args:
            request: What must go, as a request or in its words.

        Returns:
            The case without these rows.

        Raises:
            UnsupportedError: If the case has no whole training set.
        """
        if self.train is None:
            raise UnsupportedError(
                "after_deletion: the case has no whole training set; build it with train="
            )
        stay = self.partition(parse_request(request)).retain
        assert stay is not None
        left = None if self.manipulated is None else self.manipulated.left(stay.rows)
        return self.replace(train=self.train.pick(stay.rows), manipulated=left)

    def _gone_unseen(self, request: ForgetRequest) -> tuple[int, ...]:
        count = self.task.spec().get("classes")
        if not isinstance(request, Classes) or not isinstance(count, int):
            raise UnsupportedError(
                f"{request.kind}: the case has no training rows; name classes of a classification"
            )
        strange = [c for c in request.classes if not 0 <= c < count]
        if strange:
            raise InputError(f"class: {strange[0]} is not among 0 to {count - 1}; name one that is")
        if not 0 < len(set(request.classes)) < count:
            raise InputError(
                f"forget: the request names {len(request.classes)} of {count} classes; name some"
                " and keep some"
            )
        return request.classes


def _columns(
    source: Any, name: str, target: str | None, inputs: tuple[str, ...], group: Any
) -> tuple[str, ...]:
    """Return the input columns of the first table, which all others must then have too."""
    if not is_table(source):
        return inputs
    return input_columns(source, name=name, target=target, inputs=inputs, group=group)


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
        return data.with_targets(task.targets(data.y))
    except InputError as e:
        raise InputError(f"{what}: {e}") from None


def _gone(go: View, stay: View) -> tuple[int, ...]:
    if not (go.labelled and stay.labelled) or go.y.is_floating_point() or go.y.ndim != 1:
        return ()
    return tuple(sorted(set(go.y.tolist()) - set(stay.y.tolist())))
