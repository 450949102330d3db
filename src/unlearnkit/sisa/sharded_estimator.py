"""Sharded estimator: a scikit-learn estimator trained in shards, with its state on disk."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone, is_classifier
from sklearn.dummy import DummyClassifier
from sklearn.utils import _safe_indexing

from unlearnkit.core.digest import digest
from unlearnkit.core.errors import InputError, UnsupportedError
from unlearnkit.core.runtime import check_seed
from unlearnkit.sisa.shard_network import Aggregation
from unlearnkit.sisa.shard_plan import (
    Balance,
    Positions,
    plan_at_random,
    plan_by_expected_deletions,
    row_ids,
)
from unlearnkit.sisa.sharded_training import ShardedTraining, ShardRemoval

GROWS = ("warm_start", "n_estimators")
"""Parameters of estimators that train on from a checkpoint: ensembles that add members."""


@dataclass
class EstimatorLearner:
    """Trains one shard's estimator: a refit, or members added to an ensemble slice by slice."""

    estimator: Any
    x: Any
    y: NDArray[Any]
    counts: dict[str, str]
    """Shards and slices, as they were requested."""

    slices: int
    seed: int

    def identity(self) -> dict[str, str]:
        """Return the settings that decide what is trained, by name."""
        kind = type(self.estimator)
        settings = {k: repr(v) for k, v in self.estimator.get_params(deep=True).items()}
        return self.counts | {
            "estimator": f"{kind.__module__}.{kind.__qualname__}",
            "settings": digest(settings),
            "seed": str(self.seed),
        }

    def passes(self, stage: int) -> int:
        """Return the members that are added after a slice was added; 1 for a refit."""
        return self._members(stage + 1) - self._members(stage) if self.slices > 1 else 1

    def train(self, start: Any, shard: int, stage: int, rows: Positions) -> Any:
        """Return the estimator after a slice was added to the training."""
        x, y = _safe_indexing(self.x, rows), self.y[rows]
        if is_classifier(self.estimator) and len(np.unique(y)) == 1:
            return DummyClassifier(strategy="most_frequent").fit(x, y)
        more: dict[str, Any] = {}
        if self.slices > 1:
            more = {"warm_start": True, "n_estimators": self._members(stage + 1)}
        if start is not None and self._goes_on(start, y):
            return copy.deepcopy(start).set_params(**more).fit(x, y)
        new = clone(self.estimator)
        names = [k for k in new.get_params(deep=True) if k.split("__")[-1] == "random_state"]
        seed = int(digest({"seed": self.seed, "at": [shard, stage]})[:7], 16)
        new.set_params(**dict.fromkeys(names, seed), **more)
        return new.fit(x, y)

    def _goes_on(self, start: Any, y: NDArray[Any]) -> bool:
        """Return whether members can be added: an ensemble of the same classes."""
        if isinstance(start, DummyClassifier):
            return False
        return not is_classifier(start) or np.array_equal(start.classes_, np.unique(y))

    def _members(self, stage: int) -> int:
        return round(int(self.estimator.get_params()["n_estimators"]) * stage / self.slices)

    def dump(self, trained: Any) -> bytes:
        """Return an estimator as bytes, by skops: no pickle."""
        content: bytes = _skops().dumps(trained)
        return content

    def restore(self, content: bytes) -> Any:
        """Return the estimator in bytes; types of other packages than its own are refused."""
        io = _skops()
        own = {"sklearn", "numpy", "scipy", type(self.estimator).__module__.partition(".")[0]}
        found = io.get_untrusted_types(data=content)
        strange = [name for name in found if name.partition(".")[0] not in own]
        if strange:
            raise InputError(f"sisa: a checkpoint holds {strange[0]!r}, which is not trusted")
        return io.loads(content, trusted=found)

    def digest(self, rows: Positions) -> str:
        """Return the digest of the content of rows."""
        if not len(rows):
            return ""
        part = (_safe_indexing(self.x, rows), self.y[rows])
        return str(joblib.hash(part, hash_name="sha1"))


class _Sharded(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What classifiers and regressors in shards have in common."""

    _aggregations: tuple[str, ...] = ("mean",)

    def __init__(
        self,
        estimator: Any,
        *,
        shards: int = 5,
        slices: int = 1,
        aggregation: Aggregation = "mean",
        seed: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        self.estimator, self.shards, self.slices = estimator, shards, slices
        self.aggregation, self.seed, self.folder = aggregation, seed, folder

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        keys: Sequence[object] | None = None,
        expected_deletions: ArrayLike | None = None,
        balance: Balance = "cost",
    ) -> Self:
        """Train all shards; a training in the same folder that was killed goes on.

        Args:
            X: Rows ``(N, D)``: an array, a sparse matrix or a table.
            y: Targets ``(N,)``.
            keys: Each row's own name: whole numbers or texts; positions when None.
            expected_deletions: How likely each row is to go ``(N,)``: shards by expected deletions.
                At random when None.
            balance: Of these, as in ``plan_by_expected_deletions``.

        Returns:
            The model itself.
        """
        learner, names = self._learner(X, y), self._keys(y, keys)
        counts = {"shards": self.shards, "slices": self.slices, "seed": self.seed}
        if expected_deletions is None:
            plan = plan_at_random(names, **counts)
        else:
            plan = plan_by_expected_deletions(names, expected_deletions, balance=balance, **counts)
        self._training = ShardedTraining.begin(learner, plan, self._folder())
        return self._fitted(learner)

    def load(self, X: Any, y: ArrayLike, *, keys: Sequence[object] | None = None) -> Self:
        """Go on with the model in the folder; what a killed removal left open is trained.

        Args:
            X: The rows of the fit; with keys, removed rows may be left out.
            y: Their targets.
            keys: Each row's own name, as in ``fit``.

        Returns:
            The model itself.

        Raises:
            InputError: If there is no folder, or these are not the rows of the fit.
        """
        folder = self._folder()
        if folder is None:
            raise InputError("sisa: there is no folder to load from; give folder=...")
        learner, names = self._learner(X, y), self._keys(y, keys)
        self._training = ShardedTraining.resume(learner, row_ids(names, self.seed), folder)
        return self._fitted(learner)

    def resume(self) -> Self:
        """Train what an interrupted removal left open."""
        self._trained().complete()
        return self

    def unlearn(self, rows: Sequence[object]) -> ShardRemoval:
        """Remove rows, and retrain the shards that held them.

        Args:
            rows: Keys of the rows, or their positions in the data of the fit.

        Returns:
            What was retrained, the work, and the evidence.

        Raises:
            InputError: If a row is unknown, named twice or removed already, or no row is left.
        """
        training, wanted = self._trained(), list(rows)
        again = [row for row, count in Counter(wanted).items() if count > 1]
        if again:
            raise InputError(f"sisa: row {again[0]!r} is named twice; name each row once")
        ids = row_ids(wanted, self.seed)
        known = set(training.state.plan.ids.tolist())
        for row, number in zip(wanted, ids.tolist(), strict=True):
            if number not in known:
                raise InputError(
                    f"sisa: no row {row!r:.60}; name rows by their keys, or by their positions in"
                    " the data of the fit"
                )
            if number in training.state.removed_ids:
                raise InputError(f"sisa: row {row!r:.60} is removed already; leave it out")
        return training.remove(ids.tolist())

    def _fitted(self, learner: EstimatorLearner) -> Self:
        self.n_features_in_ = int(np.shape(learner.x)[1])
        return self

    def _trained(self) -> ShardedTraining:
        if not hasattr(self, "_training"):
            raise InputError("sisa: the model is not trained; call fit, or load")
        return self._training

    def _models(self) -> list[Any]:
        return [m for m in self._trained().models if m is not None]

    def _learner(self, X: Any, y: ArrayLike) -> EstimatorLearner:
        targets = np.asarray(y)
        if targets.ndim != 1 or np.shape(X)[0] != len(targets):
            raise InputError(
                f"sisa: y needs one target a row, got shape {targets.shape} for {np.shape(X)[0]}"
                " rows"
            )
        if self.aggregation not in self._aggregations:
            raise InputError(
                f"aggregation: must be {' or '.join(self._aggregations)}, got {self.aggregation!r}"
            )
        if self.slices > 1 and not set(GROWS) <= set(self.estimator.get_params()):
            raise UnsupportedError(
                f"slices: {type(self.estimator).__name__} is refitted as a whole, so that slices"
                " would save nothing; set slices=1, or choose an ensemble that has warm_start and"
                " n_estimators"
            )
        if self.slices > 1 and self.estimator.get_params()["n_estimators"] < self.slices:
            raise InputError(
                f"slices: {self.slices} slices need as many members; raise n_estimators"
            )
        seed = check_seed(self.seed, "seed")
        counts = {"shards": str(self.shards), "slices": str(self.slices)}
        return EstimatorLearner(self.estimator, X, targets, counts, self.slices, seed)

    def _folder(self) -> Path | None:
        if self.folder is None:
            return None
        _skops()
        return Path(self.folder)

    @staticmethod
    def _keys(y: ArrayLike, keys: Sequence[object] | None) -> Sequence[object]:
        rows = len(np.asarray(y))
        if keys is None:
            return range(rows)
        if len(keys) != rows:
            raise InputError(f"keys: {len(keys)} name {rows} rows; give one a row")
        return keys


class ShardedClassifier(ClassifierMixin, _Sharded):  # type: ignore[misc]  # as above
    """Classifiers of shards (SISA) whose answers are put together: forgets rows exactly.

    Works for any classifier of scikit-learn: the shard of a removed row is refitted. Ensembles with
    ``warm_start`` and ``n_estimators`` (gradient boosting, forests) may train in slices: each slice
    adds its share of the members, which are fitted on all slices so far. Every ``random_state`` is
    set from the seed, the shard and the slice.

    Args:
        estimator: The classifier of a shard, unfitted.
        shards: Parts that are trained alone (paper: S).
        slices: Parts of a shard that its training adds one after another (paper: R).
        aggregation: ``mean`` of probabilities, or ``vote`` of classes.
        seed: Of the places of rows, and of training.
        folder: Where the state is kept (needs skops: the extra ``[sisa]``); in memory alone when
            None.
    """

    _aggregations = ("mean", "vote")

    @property
    def classes_(self) -> NDArray[Any]:
        """Return the classes of the rows that are left ``(C,)``."""
        return np.unique(np.concatenate([m.classes_ for m in self._models()]))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the mean probability of each class, or its share of the votes ``(N, C)``."""
        models, classes = self._models(), self.classes_
        total = np.zeros((np.shape(X)[0], len(classes)))
        for model in models:
            if self.aggregation == "vote":
                at = np.searchsorted(classes, model.predict(X))
                total[np.arange(len(total)), at] += 1
            else:
                columns = np.searchsorted(classes, model.classes_)
                total[:, columns] += model.predict_proba(X)
        out: NDArray[np.float64] = total / len(models)
        return out

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the class that has most of it ``(N,)``; of equals, the first."""
        out: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(1)]
        return out

    def _learner(self, X: Any, y: ArrayLike) -> EstimatorLearner:
        if not is_classifier(self.estimator):
            raise InputError(
                f"estimator: {type(self.estimator).__name__} is no classifier; use ShardedRegressor"
            )
        if self.aggregation == "mean" and not hasattr(self.estimator, "predict_proba"):
            raise InputError(
                f"aggregation: {type(self.estimator).__name__} has no predict_proba; choose vote"
            )
        return super()._learner(X, y)


class ShardedRegressor(RegressorMixin, _Sharded):  # type: ignore[misc]  # as above
    """Regressors of shards (SISA) whose answers are averaged: forgets rows exactly.

    Arguments are those of ``ShardedClassifier``; the only aggregation is ``mean``.
    """

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the mean prediction of all shards ``(N,)``."""
        return np.asarray(np.mean([m.predict(X) for m in self._models()], axis=0))

    def _learner(self, X: Any, y: ArrayLike) -> EstimatorLearner:
        if is_classifier(self.estimator):
            raise InputError(
                f"estimator: {type(self.estimator).__name__} is a classifier; use ShardedClassifier"
            )
        return super()._learner(X, y)


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise UnsupportedError(
            "sisa: a folder of scikit-learn estimators needs skops; pip install 'unlearnkit[sisa]',"
            " or keep the model in memory with folder=None"
        ) from None
    return skops.io
