# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues of random matrices as a gas of particles that repel each other."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from .gamma import log_gamma
from .statistics import GasStatistics, over_spectra


class Gas(dist.Distribution):
    r"""Law of n ascending levels, :math:`\prod_{i<j}(x_j - x_i)^\beta \prod_i w(x_i)`.

    A subclass writes what depends on the weight w: `log_weight`, `log_normaliser`, and `draw`.
    """

    event_dims = ("level",)

    def log_weight(self, found: GasStatistics) -> Array:
        """Return the sum of log w over all levels, (...)."""
        raise NotImplementedError

    def log_normaliser(self) -> Array:
        """Return the log integral over levels in any order, (...)."""
        raise NotImplementedError

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Return ascending levels, ``shape + (n,)``."""
        raise NotImplementedError

    def of_statistics(self, found: GasStatistics) -> Float[Array, "*batch"]:
        """Return the log density of the spectra with these statistics, (...)."""
        orders = math.lgamma(
            found.levels + 1
        )  # a density over sorted levels counts every order once
        each = orders - self.log_normaliser()
        return self.beta * found.pairs + self.log_weight(found) + found.spectra * each

    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of ascending levels ``value`` (..., n).

        It is minus infinity for levels that are not strictly ascending, outside the support, or,
        where they are traced, not finite. Its derivatives are finite there.
        """
        return self._checked(_at_levels(value, self.event_shape[0]))

    @validate_sample
    def _checked(self, value):
        return _log_density(self, value)

    def sample(
        self, key: Array | int, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*shape level"]:
        """Draw ascending levels, ``sample_shape + batch_shape + (n,)``."""
        return _draw(self, _checks.random_key(key), tuple(sample_shape) + self.batch_shape)


@jax.jit
def _log_density(law, value):
    inside = law.support(value) & jnp.isfinite(value).all(-1)
    apart = jnp.arange(1.0, value.shape[-1] + 1).astype(value.dtype)
    found = over_spectra(jnp.where(inside[..., None], value, apart), axis=-1)
    return jnp.where(inside, law.of_statistics(found), -jnp.inf)


@jax.jit(static_argnames="shape")
def _draw(law, key, shape):
    return law.draw(key, shape)


def _at_levels(value, n):
    """Return levels as floats; raise unless there are n, warn if they descend."""
    value = _checks.finite("levels", value)
    if np.shape(value)[-1:] != (n,):
        raise ValueError(
            f"levels have shape {np.shape(value)} for a law of {n} levels; give (..., {n})"
        )
    steps = np.diff(np.asarray(value), axis=-1) if _checks.known(value) else np.ones(1)
    if steps.size and (steps < 0).all():
        warn("levels descend, and the density is zero; flip them: levels[..., ::-1]")
    return value


def _chi(key, degrees, shape):
    """Draw from chi distributions with ``degrees`` (..., k), zero where these are zero."""
    positive = degrees > 0
    draws = random.gamma(key, jnp.where(positive, degrees, 1.0) / 2, shape, degrees.dtype)
    return jnp.where(positive, jnp.sqrt(2 * draws), 0.0)


class CoulombGas(Gas):
    r"""Levels of a symmetric Gaussian matrix: a gas in a quadratic potential.

    The density over ascending levels is

    .. math:: \frac{n!}{Z}\prod_{i<j}(x_j - x_i)^\beta\, e^{-\sum_i (x_i - x_0)^2/2\sigma^2}.

    Parameters
    ----------
    n : int
        Number of levels.
    scale : (...), positive
        Width sigma. For beta = 1 these are the levels of :math:`x_0` plus a symmetric matrix with
        off-diagonal variance :math:`\sigma^2/2` and diagonal variance :math:`\sigma^2`.
    loc : (...)
        Centre :math:`x_0`.
    beta : (...), at least 0
        Repulsion: 1 for real symmetric matrices, 2 for Hermitian ones, 0 for independent levels.

    Raises
    ------
    ValueError
        For parameters out of range.

    Notes
    -----
    Event shape (n,). Draws are eigenvalues of a tridiagonal matrix, which exists for every beta.
    In 32-bit floats gaps below 1e-7 of the scale lose their digits.

    References
    ----------
    arXiv 2407.16427; Dumitriu and Edelman (2002).
    """

    arg_constraints = {
        "scale": constraints.positive,
        "loc": constraints.real,
        "beta": constraints.nonnegative,
    }
    support = constraints.ordered_vector

    def __init__(
        self,
        n: int,
        scale: ArrayLike,
        loc: ArrayLike = 0.0,
        beta: ArrayLike = 1.0,
        *,
        validate_args: bool | None = None,
    ):
        _checks.warn_32_bits("a gas of levels")
        n = _checks.whole("n", n)
        self.scale = _checks.positive("CoulombGas scale", scale)
        self.loc, self.beta = _checks.finite("loc", loc), _checks.finite("beta", beta)
        if _checks.known(self.beta) and (np.asarray(self.beta) < 0).any():
            raise ValueError(
                f"beta must be >= 0, got {np.asarray(self.beta).min()}; 1 for real matrices"
            )
        shapes = {name: getattr(self, name).shape for name in ("scale", "loc", "beta")}
        super().__init__(_checks.fit(**shapes), (n,), validate_args=validate_args)

    def log_weight(self, found: GasStatistics) -> Array:
        count = found.spectra * found.levels
        squares = found.scatter + count * (found.mean - self.loc) ** 2
        return -squares / (2 * self.scale**2)

    def log_normaliser(self) -> Array:
        n, half = self.event_shape[0], self.beta / 2
        gammas = log_gamma(1 + jnp.arange(1, n + 1) * half[..., None])
        power = n + half * n * (n - 1)
        front = n / 2 * float(np.log(2 * np.pi)) + power * jnp.log(self.scale)
        return front + gammas.sum(-1) - n * gammas[..., 0]

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        n = self.event_shape[0]
        on, off = random.split(key)
        diagonal = random.normal(on, (*shape, n), self.scale.dtype)
        degrees = jnp.broadcast_to(self.beta[..., None] * jnp.arange(n - 1, 0, -1), (*shape, n - 1))
        beside = _chi(off, degrees, (*shape, n - 1)) / 2**0.5
        i = np.arange(n - 1)
        T = jnp.zeros((*shape, n, n), diagonal.dtype).at[..., i + 1, i].set(beside)
        T = T.at[..., np.arange(n), np.arange(n)].set(diagonal)
        levels = jnp.linalg.eigvalsh(T, symmetrize_input=False)
        return self.loc[..., None] + self.scale[..., None] * levels


class LaguerreGas(Gas):
    r"""Squared singular values of a matrix with independent entries: the levels of W^T W.

    The density over ascending positive levels is, with :math:`a = \beta(M - n + 1)/2 - 1`,

    .. math:: \frac{n!}{Z}\prod_{i<j}(x_j - x_i)^\beta \prod_i x_i^a\, e^{-\sum_i x_i/2s^2}.

    Parameters
    ----------
    n : int
        Number of levels, the smaller side of the matrix.
    dof : (...), above n - 1
        Degrees of freedom M, the larger side of the matrix. It need not be an integer.
    scale : (...), positive
        Standard deviation s of an entry.
    beta : (...), positive
        Repulsion: 1 for real matrices.

    Raises
    ------
    ValueError
        For parameters out of range.

    Notes
    -----
    Event shape (n,). Draws are squared singular values of a bidiagonal matrix. In 32-bit floats
    gaps below 1e-7 of the largest level lose their digits.

    References
    ----------
    arXiv 2407.16427; Dumitriu and Edelman (2002).
    """

    arg_constraints = {
        "dof": constraints.positive,
        "scale": constraints.positive,
        "beta": constraints.positive,
    }
    support = constraints.positive_ordered_vector

    def __init__(
        self,
        n: int,
        dof: ArrayLike,
        scale: ArrayLike,
        beta: ArrayLike = 1.0,
        *,
        validate_args: bool | None = None,
    ):
        _checks.warn_32_bits("a gas of levels")
        n = _checks.whole("n", n)
        self.scale = _checks.positive("LaguerreGas scale", scale)
        self.dof, self.beta = _checks.finite("dof", dof), _checks.finite("beta", beta)
        known = _checks.known(self.dof) and _checks.known(self.beta)
        if known and not (
            (np.asarray(self.beta) > 0).all() and (np.asarray(self.dof) > n - 1).all()
        ):
            raise ValueError(
                f"LaguerreGas needs beta > 0 and dof > n-1, got beta={self.beta}, dof={self.dof} "
                f"for n={n}; dof is the larger side of the matrix"
            )
        shapes = {name: getattr(self, name).shape for name in ("dof", "scale", "beta")}
        super().__init__(_checks.fit(**shapes), (n,), validate_args=validate_args)

    @property
    def _exponent(self):
        return self.beta * (self.dof - self.event_shape[0] + 1) / 2 - 1

    def log_weight(self, found: GasStatistics) -> Array:
        total = found.spectra * found.levels * found.mean
        return self._exponent * found.logs - total / self.scale / self.scale / 2

    def log_normaliser(self) -> Array:
        n, half, a = self.event_shape[0], self.beta / 2, self._exponent
        j = jnp.arange(n)
        gammas = log_gamma(1 + (j + 1) * half[..., None])
        weights = log_gamma(1 + a[..., None] + j * half[..., None])
        power = n * (a + 1) + half * n * (n - 1)
        front = power * (float(np.log(2)) + 2 * jnp.log(self.scale))
        return front + (weights + gammas).sum(-1) - n * gammas[..., 0]

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        n = self.event_shape[0]
        on, off = random.split(key)
        beta, i = self.beta[..., None], np.arange(n)
        degrees = jnp.broadcast_to(beta * (self.dof[..., None] - i), (*shape, n))
        L = jnp.zeros((*shape, n, n), self.scale.dtype)
        L = L.at[..., i, i].set(_chi(on, degrees, (*shape, n)))
        degrees = jnp.broadcast_to(beta * i[:0:-1], (*shape, n - 1))
        L = L.at[..., i[1:], i[:-1]].set(_chi(off, degrees, (*shape, n - 1)))
        singular = jnp.linalg.svd(L, compute_uv=False)[..., ::-1]
        return (self.scale[..., None] * singular) ** 2
