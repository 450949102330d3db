"""Skew-normal tail: the share of a population below a value far from its sample."""

import math
import warnings

import numpy as np
from numpy.typing import NDArray


def fitted_log_share(sample: NDArray[np.float64], value: float) -> float:
    """Return the logarithm of the share of a population that lies below a value, in nats.

    A skew-normal distribution is fitted to the sample by maximum likelihood.

    Args:
        sample: Numbers drawn from the population ``(n,)``.
        value: The value.

    Returns:
        The log-share; minus infinity where it is lost to rounding, or where all numbers of the
        sample are equal and larger.
    """
    from scipy.stats import skewnorm  # late: scipy.stats takes half a second to import

    if sample.std() == 0:
        return -math.inf if value < sample[0] else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # trial shapes that overflow lose the fit
        fitted = skewnorm.fit(sample, loc=sample.mean(), scale=sample.std())
        return float(skewnorm.logcdf(value, *fitted))
