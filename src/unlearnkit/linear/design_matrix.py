"""Design matrix: rows with an intercept, inside a norm bound, dense or sparse."""

import hashlib
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from unlearnkit.linear.losses import Array, Matrix

SLACK = 1 + 1e-9
"""Factor by which a computed norm is enlarged, far above its rounding error."""


def is_sparse(x: Matrix) -> bool:
    """Return whether rows are stored sparse."""
    return bool(sp.issparse(x))


def design_matrix(X: Matrix, *, intercept: bool, longest: float | None) -> Matrix:
    """Return a float64 copy of rows, with a last column of ones if wanted.

    Args:
        X: Rows ``(N, D)``, dense or sparse.
        intercept: Whether to add the column.
        longest: Longer rows are scaled down to this norm, the column of ones excluded; None leaves
            them.

    Returns:
        Rows ``(N, D)`` or ``(N, D + 1)``: a dense array or a CSR array.
    """
    x: Matrix = sp.csr_array(X, dtype=np.float64, copy=True) if is_sparse(X) else np.array(X)
    if longest is not None:
        lengths = row_norms(x)
        factor = np.minimum(1.0, longest / np.maximum(lengths, np.finfo(float).tiny))
        x = sp.csr_array(sp.diags_array(factor) @ x) if is_sparse(x) else factor[:, None] * x
    if intercept:
        ones: Matrix = np.ones((x.shape[0], 1))
        x = sp.csr_array(sp.hstack([x, ones])) if is_sparse(x) else np.hstack([x, ones])
    if is_sparse(x) and max(x.nnz, *x.shape) < np.iinfo(np.int32).max:
        x.indices, x.indptr = x.indices.astype(np.int32), x.indptr.astype(np.int32)
    return x


def squares(x: Matrix) -> Matrix:
    """Return the square of each entry."""
    return x.power(2) if is_sparse(x) else x**2


def row_norms(x: Matrix) -> Array:
    """Return the Euclidean norm of each row ``(N,)``."""
    out: Array = np.sqrt(np.asarray(squares(x).sum(axis=1)).ravel())
    return out


def norm_bound(x: Matrix, weights: Array) -> float:
    """Return an upper bound on the spectral norm of ``diag(sqrt s) X`` without forming its square.

    The smaller of the Frobenius norm and the root of largest row sum times largest column sum.
    """
    scaled: Matrix = abs(sp.diags_array(np.sqrt(weights)) @ sp.csr_array(x))
    rows, columns = scaled.sum(axis=1), scaled.sum(axis=0)
    frobenius = np.sqrt(scaled.power(2).sum())
    return float(min(frobenius, np.sqrt(rows.max() * columns.max())) * SLACK)


def without_columns(x: Matrix, columns: Sequence[int]) -> Matrix:
    """Return a copy of rows with some columns at zero."""
    keep = np.ones(x.shape[1])
    keep[list(columns)] = 0.0
    if not is_sparse(x):
        return x * keep
    found = x.copy()
    found.data = found.data * keep[found.indices]
    return found


def erase_rows(x: Matrix, rows: NDArray[np.intp]) -> None:
    """Overwrite rows with zeros, in place."""
    if not is_sparse(x):
        x[rows] = 0.0
        return
    for row in rows:
        x.data[x.indptr[row] : x.indptr[row + 1]] = 0.0


def data_digest(x: Matrix, y: Array, weights: Array) -> str:
    """Return the SHA-256 of rows, targets and weights."""
    h = hashlib.sha256(f"{x.shape}".encode())
    parts = (x.data, x.indices, x.indptr) if is_sparse(x) else (x,)
    for part in (*parts, y, weights):
        h.update(np.ascontiguousarray(part).tobytes())
    return h.hexdigest()
