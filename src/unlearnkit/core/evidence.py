"""Evidence: outputs of each model on each split, computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import nn

from unlearnkit.core.data import Batch, TensorData, View
from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.inference import check_logits, map_rows, predict
from unlearnkit.core.recipe import ASSUMED, Recipe
from unlearnkit.core.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor

    from unlearnkit.core.task import Task

T = TypeVar("T")


class ModelRole(StrEnum):
    """Whose outputs."""

    ORIGINAL = "original"
    UNLEARNED = "unlearned"
    ORACLE = "oracle"


class Split(StrEnum):
    """On which rows."""

    FORGET = "forget"
    RETAIN = "retain"
    HELD_OUT = "held_out"
    """Never trained on; target mix as on the forget rows where it can be matched."""

    TEST = "test"
    """Never trained on; of kept classes, or beyond the forgotten range of targets."""

    TEST_FORGET = "test_forget"
    """Test rows of the forgotten classes or range; exists for such requests only."""

    CORRECTED = "corrected"
    """The forget rows with corrected features or labels, as a retrained model is trained on them;
    exists for such requests only."""

    SHUFFLED = "shuffled"
    """The forget rows with each other's values of a removed feature; likewise."""

    CANDIDATES = "candidates"
    """What a model reads to rank a canary among the strings that it could have been; exists for
    cases with a canary only."""

    AFFECTED = "affected"
    """Never trained on; what tampered training rows act on, with right targets."""

    AIMED = "aimed"
    """The affected rows with the targets that the tampering is after."""

    ELSEWHERE = "elsewhere"
    """Never trained on; what tampered training rows do not act on."""


class Evidence:
    """Outputs of each model on each split, computed once and shared by all metrics.

    Models are named ``original``, ``unlearned``, ``oracle/0``, ``oracle/1``, …; outputs are kept on
    the CPU; what is derived from them is float64.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        views: Mapping[Split, View],
        task: Task,
        rt: Runtime,
        *,
        random: Callable[[int], nn.Module] | None = None,
        recipe: Recipe | None = None,
        at_random: bool = True,
        found: Mapping[str, dict[Hashable, object]] | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Take models and rows.

        Args:
            models: By name; run in eval mode, flags restored.
            views: The rows of each split that exists.
            task: What outputs mean.
            rt: Where to run.
            random: Builds an untrained model from a seed, for metrics that need one.
            recipe: How the models were trained, for metrics that train copies; an assumed one when
                None.
            at_random: Whether the forget rows may be a random draw of rows like the held-out ones;
                whole classes and owners are not.
            found: By model name, what other evidence has found out about the model and what this
                one finds: a memory for models that are read again and again.
            batch_size: Rows run at once; as suits the rows when None.
        """
        self.task = task
        self.views = dict(views)
        self.random = random
        self.recipe = ASSUMED if recipe is None else recipe
        self.at_random = at_random
        self._models = dict(models)
        self._roles = {name: name for name in models}
        self._rt = rt
        self._size = batch_size
        self._outputs: dict[tuple[str, Split], Tensor] = {}
        self._derived: dict[tuple[str, str, Split], Tensor] = {}
        self._found = dict(found or {})
        self._recalled: dict[str, dict[Hashable, object]] = {}

    @classmethod
    def from_outputs(
        cls,
        outputs: Mapping[str, Mapping[Split, Tensor]],
        targets: Mapping[Split, Tensor],
        task: Task,
        rt: Runtime,
    ) -> Evidence:
        """Return evidence made of stored outputs ``(n, K)``, without models.

        Args:
            outputs: By model name, then by split.
            targets: By split, ``(n, ...)``.
            task: What outputs mean.
            rt: Where per-row arithmetic runs.

        Returns:
            The evidence; metrics that need the models themselves refuse it.

        Raises:
            InputError: If outputs and targets differ in number.
        """
        views = {
            s: View.all(TensorData(torch.empty(len(y), 0), task.targets(y)))
            for s, y in targets.items()
        }
        self = cls({}, views, task, rt)
        self._roles = {name: name for name in outputs}
        for name, splits in outputs.items():
            for split, out in splits.items():
                if len(out) != len(views[split]):
                    raise InputError(
                        f"outputs of {name} on {split}: {len(out)} rows for"
                        f" {len(views[split])} targets"
                    )
                self._outputs[name, split] = _in_form(out, views[split].y, task)
                if name != "random" and not name.startswith("random/"):
                    check_logits(self._outputs[name, split], views[split].y, task, name)
        return self

    @property
    def oracles(self) -> int:
        """Return how many oracles there are."""
        return sum(name.startswith("oracle/") for name in self._roles)

    @property
    def has_models(self) -> bool:
        """Return whether the models themselves are at hand, not only their stored outputs."""
        return bool(self._models)

    def has(self, who: ModelRole) -> bool:
        """Return whether there is such a model."""
        return self.oracles > 0 if who is ModelRole.ORACLE else str(who) in self._roles

    def with_candidate(self, who: ModelRole, k: int = 0) -> Evidence:
        """Return the same evidence with another model in the place of the unlearned one.

        An oracle (number ``k``) that becomes the candidate leaves the oracles and is judged against
        the others. All memory is shared.
        """
        name = self._name(who, k)
        roles = {"unlearned": self._roles[name]}
        if "original" in self._roles:
            roles["original"] = self._roles["original"]
        others = [v for n, v in self._roles.items() if n.startswith("oracle/") and n != name]
        roles |= {f"oracle/{i}": v for i, v in enumerate(others)}
        twin = object.__new__(Evidence)
        twin.__dict__.update(self.__dict__)
        twin._roles = roles
        return twin

    def model(self, who: ModelRole, k: int = 0) -> nn.Module:
        """Return a model itself, to be read only; ``k`` counts oracles.

        Raises:
            InputError: If the evidence is made of stored outputs.
        """
        name = self._roles[self._name(who, k)]
        if name not in self._models:
            raise InputError(f"{name}: the evidence holds outputs only, not the model")
        return self._models[name]

    @property
    def rt(self) -> Runtime:
        """Return where copies are trained: same device, precision and seed, no reports."""
        return self._rt.fork(self._rt.seed, quiet=True)

    def cached(
        self, what: Hashable, make: Callable[[nn.Module], T], who: ModelRole, k: int = 0
    ) -> T:
        """Return ``make(model)``, computed once for each model whatever its role.

        ``what`` names it, with all that it depends on besides the model, which ``make`` must not
        change.
        """
        name = self._roles[self._name(who, k)]
        return self._remember(name, what, lambda: make(self.model(who, k)))

    def _remember(self, name: str, what: Hashable, make: Callable[[], T]) -> T:
        memory, key = self._recalled.setdefault(name, {}), what
        if name in self._found:
            memory, key = self._found[name], (what, self.context_key)
        if key not in memory:
            memory[key] = make()
        return cast("T", memory[key])

    @property
    def context_key(self) -> str:
        """Return the content address of all besides the models: rows, recipe, seed."""

        def make() -> str:
            return digest(
                {
                    "views": {s: view.key() for s, view in self.views.items()},
                    "task": dict(self.task.spec()),
                    "recipe": self.recipe.model_dump(),
                    "at_random": self.at_random,
                    "device": self._rt.device.type,
                    "precision": self._rt.precision,
                    "seed": self._rt.seed,
                }
            )

        memory = self._recalled.setdefault("", {})
        if "context_key" not in memory:
            memory["context_key"] = make()
        return cast("str", memory["context_key"])

    def targets(self, split: Split) -> Tensor:
        """Return the targets of a split ``(n, ...)``."""
        return self.views[split].y

    def outputs(self, who: ModelRole, split: Split, k: int = 0) -> Tensor:
        """Return outputs ``(n, K)``, on the CPU, rows in the view's order."""
        name = self._roles[self._name(who, k)]
        key = (name, split)
        if key not in self._outputs:
            view = self.views[split]
            out = self._remember(name, ("outputs", split), lambda: self._run(name, split))
            if view.labelled:
                check_logits(out, view.y, self.task, name)
            self._outputs[key] = out
        return self._outputs[key]

    def _run(self, name: str, split: Split) -> Tensor:
        out = predict(self._models[name], self.views[split], self.task, self._rt, self._size)
        bad = (~out.isfinite()).reshape(len(out), -1).any(1).nonzero()[:, 0]
        if len(bad):
            raise InputError(
                f"{name}: its outputs on {split} rows are not finite in {len(bad)} of {len(out)}"
                f" rows, first row {int(self.views[split].rows[bad[0]])}; rescale these inputs or"
                " use a model that did not diverge"
            )
        return out

    def predictions(self, who: ModelRole, split: Split, k: int = 0) -> Tensor:
        """Return predicted targets ``(n, K)`` in target units, float64; ``k`` counts oracles.

        Raises:
            UnsupportedError: If the task's targets are not numbers.
        """
        found = self.task.predictions(self.outputs(who, split, k).double())
        if found is None:
            raise UnsupportedError(
                f"predictions: targets of {self.task.name} are no numbers; read outputs"
            )
        return found

    def random_outputs(self, split: Split, k: int) -> Tensor | None:
        """Return outputs ``(n, K)`` of the untrained model of seed ``k``; None without a factory.

        Stored outputs have the name ``random/k``.
        """
        key = (f"random/{k}", split)
        if key not in self._outputs:
            if self.random is None:
                return None
            model = self.random(k)
            self._outputs[key] = predict(model, self.views[split], self.task, self._rt, self._size)
        return self._outputs[key]

    def losses(self, who: ModelRole, split: Split, k: int = 0) -> Tensor:
        """Return the loss of each row ``(n,)``, float64."""
        return self._rows("losses", self.task.losses, who, split, k)

    def margins(self, who: ModelRole, split: Split, k: int = 0) -> Tensor:
        """Return the margin of each row ``(n,)``, float64."""
        return self._rows("margins", self.task.margin, who, split, k)

    def errors(self, who: ModelRole, split: Split, k: int = 0) -> Tensor:
        """Return the error of each row ``(n,)``, float64."""
        return self._rows("errors", self.task.errors, who, split, k)

    def map(self, fn: Callable[..., Tensor], split: Split, *who: tuple[ModelRole, int]) -> Tensor:
        """Return ``fn`` of outputs ``(b, K)`` of several (model, number) in chunks: ``(n,)``."""
        return map_rows(fn, *(self.outputs(w, split, k) for w, k in who))

    def _rows(
        self, what: str, fn: Callable[[Tensor, Batch], Tensor], who: ModelRole, split: Split, k: int
    ) -> Tensor:
        key = (what, self._roles[self._name(who, k)], split)
        if key not in self._derived:
            out, y = self.outputs(who, split, k), self.targets(split)
            self._derived[key] = map_rows(
                lambda o, t, r: fn(o, Batch.of_targets(t, r)),
                out,
                y,
                torch.arange(len(y)),
            )
        return self._derived[key]

    def _name(self, who: ModelRole, k: int) -> str:
        name = f"oracle/{k}" if who is ModelRole.ORACLE else str(who)
        if name not in self._roles:
            raise InputError(f"there is no {name} model here; there are: {', '.join(self._roles)}")
        return name


def _in_form(out: Tensor, y: Tensor, task: Task) -> Tensor:
    """Return stored outputs in the form that the task computes with, as a model's would be read."""
    out = out.detach().cpu()
    return task.outputs(nn.Identity(), Batch(out, y, torch.arange(len(out))))
