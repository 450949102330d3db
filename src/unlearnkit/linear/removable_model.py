"""Removable linear model: unlearns rows, labels and features, and says what that guarantees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from unlearnkit.core.errors import InputError
from unlearnkit.linear.certificate import Certificate
from unlearnkit.linear.design_matrix import erase_rows, without_columns
from unlearnkit.linear.fitted_model import FittedModel
from unlearnkit.linear.losses import Matrix
from unlearnkit.linear.regularized_risk import Change, Risk
from unlearnkit.linear.removal import STEPS, alignment, newton_removal, proximal_removal
from unlearnkit.linear.removal_state import RemovalState, with_anchor
from unlearnkit.linear.residual_bounds import uniform_bound
from unlearnkit.linear.risk_minimizer import minimize_risk
from unlearnkit.linear.row_requests import column_numbers, new_targets, row_numbers


class RemovableModel(FittedModel):
    """A linear model that can unlearn."""

    def unlearn(
        self,
        *,
        rows: Sequence[int] | NDArray[np.intp] | None = None,
        labels: Mapping[int, Any] | None = None,
        features: Sequence[int | str] | None = None,
        X: Matrix | None = None,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        repair: bool = False,
        save_to: str | Path | None = None,
    ) -> Certificate:
        """Remove rows, correct labels or remove features, and say what that guarantees.

        ``NeedsRetrain`` comes exactly when the budget cannot pay; nothing has changed then.

        Args:
            rows: Rows to remove: positions in the data of the fit.
            labels: New label of each row to correct, by position.
            features: Columns to remove in all rows: positions or names.
            X: The rows of the request, where the model keeps no data.
            y: Their labels before the request.
            sample_weight: Their weights; ones if None.
            repair: Follow with trust-region Newton steps to the minimum on the data that stay, and
                charge the residual that is then measured; reads the rows.
            save_to: Folder in which the new state is written before this returns.

        Returns:
            The certificate of the model as it is now.

        Raises:
            InputError: If the request does not fit the model, or rows are needed and absent.
        """
        check_is_fitted(self)
        if sum(part is not None for part in (rows, labels, features)) != 1:
            raise InputError("unlearn: name exactly one of rows, labels and features")
        given = None if X is None else (X, y, sample_weight)
        if features is not None:
            found = self._remove_features(features, repair=repair)
        elif labels is not None:
            found = self._correct_labels(labels, given, repair=repair)
        else:
            assert rows is not None
            found = self._remove_rows(rows, given, repair=repair)
        if save_to is not None:
            self.save(save_to)
        return found

    def _remove_rows(self, rows: Any, given: Any, *, repair: bool) -> Certificate:
        at = row_numbers(rows, self._state)
        if not len(at):
            return self.certificate()
        before = self._affected(at, given)
        zeros = np.zeros(len(at))
        change = Change(before, replace(before, weights=zeros))
        pulled = alignment(self._state, change)
        removed = self._state.removed_rows.copy()
        removed[at] = True
        state = replace(self._state, removed_rows=removed)
        after = None
        if self._reads_rows(repair=repair):
            whole = self._data("rows")
            weights = whole.weights.copy()
            weights[at] = 0.0
            after = replace(whole, weights=weights)
        done = self._step(state, after, change, repair=repair)
        risk = self._risk
        if risk is not None and len(risk.y):
            risk.weights[at] = 0.0
            erase_rows(risk.x, at)
        self._release(done)
        return self.certificate(alignment=pulled)

    def _correct_labels(self, labels: Any, given: Any, *, repair: bool) -> Certificate:
        at = row_numbers(list(labels), self._state)
        if not len(at):
            return self.certificate()
        targets = self._encode(list(labels.values()))
        before = self._affected(at, given)
        present = dict(zip(at.tolist(), before.y.tolist(), strict=True))
        new = dict(zip(at.tolist(), targets.tolist(), strict=True))
        new_targets(labels, present, new)
        change = Change(before, replace(before, y=targets))
        state = replace(self._state, new_labels={**self._state.new_labels, **new})
        after = None
        if self._reads_rows(repair=repair):
            whole = self._data("labels")
            corrected = whole.y.copy()
            corrected[at] = targets
            after = replace(whole, y=corrected)
        done = self._step(state, after, change, repair=repair)
        if self._risk is not None and len(self._risk.y):
            self._risk.y[at] = targets
        self._release(done)
        return self.certificate()

    def _remove_features(self, features: Any, *, repair: bool) -> Certificate:
        names = getattr(self, "feature_names_in_", None)
        columns = column_numbers(features, names, self.n_features_in_, self._state)
        if not columns:
            return self.certificate()
        before = self._data("features")
        after = replace(before, x=without_columns(before.x, columns))
        state = replace(self._state, dropped_columns=(*self._state.dropped_columns, *columns))
        if not self.alpha * (1 - self.l1_ratio) > 0:
            raise InputError(
                "unlearn: without a squared penalty the weight of a removed feature is not"
                " determined; set alpha above 0 and l1_ratio below 1"
            )
        done = self._step(state, after, Change(before, after), repair=repair, whole=True)
        self._risk = after
        self._release(done)
        return self.certificate()

    def _step(
        self,
        state: RemovalState,
        after: Risk | None,
        change: Change,
        *,
        repair: bool,
        whole: bool = False,
    ) -> RemovalState:
        """Return the state after a request, or raise where the budget does not reach."""
        if after is not None and after.lasso.any():
            done = proximal_removal(state, after, change)
        elif whole and after is not None:
            done = newton_removal(state, after, change, corrected=True)
            if self._stores_factors():
                done = with_anchor(done, after, factors=True)
        else:
            done = STEPS[self.method](state, after or change.before, change)
        charge = "bound" if self.budget is None else self.budget.charge
        if charge == "uniform":
            bound = uniform_bound(self._data("uniform bound"), change, done.spectral, done.row_norm)
            done = replace(done, budget_spent=(0.0 if whole else state.budget_spent) + bound)
        if repair and after is not None:
            done = self._repaired(done, after)
        if charge == "measured" and after is not None:
            done = replace(done, budget_spent=float(np.linalg.norm(after.gradient(done.w))))
        done = replace(done, history=(*done.history, done.budget_spent))
        self._refuse_if_spent(done)
        return done

    def _repaired(self, state: RemovalState, risk: Risk) -> RemovalState:
        found = minimize_risk(risk, state.w, steps=self.max_iter)
        done = replace(state, w=found.w, budget_spent=found.residual)
        return with_anchor(done, risk, factors=self._stores_factors())

    def _reads_rows(self, *, repair: bool) -> bool:
        b = self.budget
        measured = b is not None and b.charge == "measured"
        return repair or measured or not self._stores_factors()

    def _affected(self, at: NDArray[np.intp], given: Any) -> Risk:
        """Return the rows of a request as they are now, from the model or from the caller."""
        risk = self._risk
        assert risk is not None
        if len(risk.y):
            return risk.rows(at)
        if given is None or given[1] is None:
            raise InputError(
                "unlearn: the model keeps no data; give X and y of the rows of the request"
            )
        X, y, weights = given
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        x = without_columns(self._with_intercept(X, check=True), self._state.dropped_columns)
        targets = self._encode(list(np.asarray(y)))
        moved = self._state.new_labels
        targets = np.array([moved.get(int(r), t) for r, t in zip(at, targets, strict=False)])
        s = np.ones(len(at)) if weights is None else np.asarray(weights, dtype=np.float64)
        if x.shape[0] != len(at) or len(targets) != len(at) or s.shape != (len(at),):
            raise InputError(f"unlearn: X, y and sample_weight must have {len(at)} rows each")
        return replace(risk, x=x, y=targets, weights=s).rows(np.arange(len(at)))

    def repair(self) -> Certificate:
        """Take the present model to the minimum on the data that stay by trust-region Newton steps.

        The noise of the objective stays the same. What is spent is then the measured residual.

        Returns:
            The new certificate.
        """
        check_is_fitted(self)
        done = self._repaired(self._state, self._data("repair"))
        done = replace(done, history=(*done.history, done.budget_spent))
        self._refuse_if_spent(done)
        self._release(done)
        return self.certificate()

    def retrain(self, **request: Any) -> Self:
        """Apply a request to the data and train on what stays, with fresh noise.

        Args:
            **request: ``rows``, ``labels`` or ``features`` as ``unlearn`` takes them, or nothing.

        Returns:
            The model itself, its accounts at the start.
        """
        check_is_fitted(self)
        old = self._state
        risk = self._data("retrain")
        x, y, weights = risk.x, risk.y.copy(), risk.weights.copy()
        removed, relabelled, dropped = (
            old.removed_rows.copy(),
            dict(old.new_labels),
            old.dropped_columns,
        )
        if request.get("rows") is not None:
            at = row_numbers(request["rows"], old)
            weights[at], removed[at] = 0.0, True
            x = x.copy()
            erase_rows(x, at)
        if request.get("labels") is not None:
            at = row_numbers(list(request["labels"]), old)
            y[at] = self._encode(list(request["labels"].values()))
            relabelled |= dict(zip(at.tolist(), y[at].tolist(), strict=True))
        if request.get("features") is not None:
            names = getattr(self, "feature_names_in_", None)
            columns = column_numbers(request["features"], names, self.n_features_in_, old)
            x, dropped = without_columns(x, columns), (*dropped, *columns)
        self._fits += 1
        self._train(x, y, weights)
        self._state = replace(
            self._state, removed_rows=removed, new_labels=relabelled, dropped_columns=dropped
        )
        return self
