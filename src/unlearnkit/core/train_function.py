"""A user's own training loop: what it is, and its content address."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from unlearnkit.core.content import NoDigestError, strict_digest
from unlearnkit.core.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor

    from unlearnkit.core.data import Data, View
    from unlearnkit.core.runtime import Runtime

TrainModel = Callable[[nn.Module, Any, int], nn.Module]
"""From an untrained model, the rows as the user gave them, and a seed, to the trained model."""


@dataclass(frozen=True)
class TrainFunction:
    """A training loop of the user's own, in the place of a recipe."""

    fn: TrainModel
    version: str | None = None
    """Names the loop with all that it reads; its code and what that refers to when None."""

    @classmethod
    def of(cls, fn: object, version: str | None) -> TrainFunction | None:
        """Return the loop of a case; None where it has none.

        Args:
            fn: What the user gave.
            version: As in the constructor.

        Returns:
            The loop.

        Raises:
            InputError: If it is no function of three arguments, or there is a version alone.
        """
        if fn is None:
            if version is not None:
                raise InputError(
                    "version: names a train_model, and the case has none; leave it out"
                )
            return None
        if isinstance(fn, nn.Module) or not callable(fn):
            raise InputError(
                "train_model: give a function fn(model, data, seed) that returns the trained model,"
                f" got {type(fn).__name__}"
            )
        if version is not None and (not isinstance(version, str) or not version):
            raise InputError(f"version: give a text such as '1', got {version!r}")
        try:
            inspect.signature(fn).bind(None, None, 0)
        except TypeError as e:
            raise InputError(
                f"train_model: is called as fn(model, data, seed), but {e}; take these three"
                " arguments"
            ) from None
        except ValueError:  # a function without a readable signature is tried as it is
            pass
        return cls(fn, version)

    def after_deletion(self, stay: Tensor) -> TrainFunction:
        """Return the training of the rows at these positions ``(k,)`` of the training set alone."""
        del stay
        return self

    def bind(self, view: View, rt: Runtime) -> Callable[[nn.Module], nn.Module]:
        """Return the loop on some rows: a function from an untrained to the trained model.

        Args:
            view: The rows, which the loop gets as the user gave them.
            rt: Gives the seed.

        Returns:
            The function.
        """
        data = view.as_given()
        return lambda model: self.fn(model, data, rt.seed)

    def row_content(self, data: Data) -> str:
        """Return the digest of what the loop reads of rows besides inputs and targets."""
        return data.extra_content()

    def spec(self) -> dict[str, str]:
        """Return what names the loop in a content address.

        Returns:
            Its version, or the digest of its code with all that this refers to.

        Raises:
            InputError: If it reads something whose content cannot be known.
        """
        if self.version is not None:
            return {"name": self.name, "version": self.version}
        try:
            return {"name": self.name, "content": strict_digest(self.fn)}
        except NoDigestError as e:
            raise InputError(
                f"train_model: what {self.name} trains cannot be cached, because it reads {e}; give"
                " Case(train_model=..., version='1'), and another version whenever the function or"
                " what it reads changes"
            ) from None

    @property
    def name(self) -> str:
        """Return the function's name."""
        inner = getattr(self.fn, "func", self.fn)
        return str(getattr(inner, "__qualname__", type(inner).__qualname__))


def _not_called(model: nn.Module, data: Any, seed: int) -> nn.Module:
    raise UnsupportedError("train_model: train with uk.train_original or uk.oracle")


@dataclass(frozen=True)
class TrainingOfViews(TrainFunction):
    """A training of the library's own, which reads more of rows than a user's loop is given."""

    fn: TrainModel = _not_called
    version: str | None = None

    def bind(self, view: View, rt: Runtime) -> Callable[[nn.Module], nn.Module]:
        """Return the training on some rows: a function from an untrained to the trained model."""

        def train(model: nn.Module) -> nn.Module:
            self.train(model, view, rt)
            return model

        return train

    def train(self, model: nn.Module, view: View, rt: Runtime) -> None:
        """Train a model on some rows, in place."""
        raise NotImplementedError
