# SPDX-License-Identifier: Apache-2.0
"""Weighted draws: averages, their standard errors, and a check of the weights."""

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.special import gammaln, logsumexp

from .._checks import ArrayLike


class Importance(eqx.Module):
    """Draws from a proposal, with the log ratio of target to proposal density for each.

    Attributes
    ----------
    latents : dict, from name of a site to its draws (s, ...)
    log_weights : (s,), log ratios; the target density need not be normalised
    """

    latents: dict[str, np.ndarray]
    log_weights: Float[np.ndarray, " draw"]

    @property
    def log_mean(self) -> float:
        """Logarithm of the mean weight, which estimates the log integral of the target."""
        return float(logsumexp(self.log_weights) - np.log(self.log_weights.size))

    @property
    def standard_error(self) -> float:
        """Standard error of `log_mean`, to first order."""
        w = np.exp(self.log_weights - self.log_mean)
        return float(w.std(ddof=1) / np.sqrt(w.size))

    @property
    def ess(self) -> float:
        """Effective number of draws: the squared sum of the weights over the sum of squares."""
        return float(1.0 / (self.weights**2).sum())

    @property
    def weights(self) -> Float[np.ndarray, " draw"]:
        """Weights, scaled to add up to one, (s,)."""
        w = np.exp(self.log_weights - self.log_weights.max())
        return w / w.sum()

    def expect(self, values: ArrayLike):
        """Return averages (...) of ``values`` (s, ...) under the target, and standard errors."""
        values = np.asarray(values)
        w = self.weights.reshape((-1,) + (1,) * (values.ndim - 1))
        mean = (w * values).sum(0)
        return mean, np.sqrt((w**2 * (values - mean) ** 2).sum(0))


def tail_index(log_weights) -> float:
    """Return the tail index of weights: the shape of a generalised Pareto law fitted to the tail.

    ``log_weights`` (s,) are at least 25; a constant added to all of them changes nothing. Below 0.5
    the weights have a finite variance. Above 0.7 their mean cannot be trusted. The index is minus
    infinity if the largest weights are all equal. See arXiv 1507.02646; the fit is that of Zhang
    and Stephens (2009).
    """
    log_w = np.sort(log_weights)

    # Excess x of the m largest weights over the next one.
    m = int(np.ceil(min(0.2 * log_w.size, 3.0 * np.sqrt(log_w.size))))
    w = np.exp(log_w - log_w[-1])
    x = w[-m:] - w[-m - 1]
    if x[-1] <= 0:
        return -np.inf

    # Posterior mean of b = -shape / scale, on a grid weighed by the profile likelihood.
    grid = 30 + int(np.sqrt(m))
    b = 1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3.0 * max(x[int(m / 4 + 0.5) - 1], 1e-300)) + 1.0 / x[-1]
    k = np.log1p(-b[:, None] * x).mean(1)
    profile = m * (np.log(-b / k) - k - 1.0)
    posterior = np.exp(profile - profile.max())
    b = (b * posterior).sum() / posterior.sum()
    shape = np.log1p(-b * x).mean()
    return float((m * shape + 5.0) / (m + 10.0))  # a weak prior: ten weights of shape one half


class Student(eqx.Module):
    """Multivariate t distribution around ``loc`` (k,) with ``dof`` degrees of freedom.

    ``factor`` (k, k) is the lower Cholesky factor of the inverse scale matrix, which is the
    precision of the Gaussian in the limit of infinite ``dof``.
    """

    loc: Float[np.ndarray, " k"]
    factor: Float[np.ndarray, "k k_bis"]
    dof: float

    def sample(self, rng, draws):
        """Draw ``draws`` points, (s, k), with a NumPy generator."""
        z = rng.standard_normal((draws, self.loc.size))
        z = z / np.sqrt(rng.chisquare(self.dof, (draws, 1)) / self.dof)
        return self.loc + solve_triangular(self.factor, z.T, lower=True, trans=1).T

    def log_prob(self, x):
        """Return the log density at points ``x`` (s, k), as (s,)."""
        k, half = self.loc.size, 0.5 * (self.dof + self.loc.size)
        z = (x - self.loc) @ self.factor
        front = gammaln(half) - gammaln(self.dof / 2.0) - 0.5 * k * np.log(np.pi * self.dof)
        front = front + np.log(np.diagonal(self.factor)).sum()
        return front - half * np.log1p((z**2).sum(-1) / self.dof)
