# SPDX-License-Identifier: Apache-2.0
"""Learning curves by experiment: regression on many random data sets, with standard errors."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import safe_sqrt
from ..kernels import Kernel
from ..spectrum import Spectrum
from ..spectrum.levels import LevelsLike, without_tail


class Population(eqx.Module):
    """Source of random data sets, made by a function whose name ends in ``_population``."""

    @property
    def most(self) -> float:
        """Largest number of inputs in one data set."""
        return np.inf

    @abstractmethod
    def inputs(self, key: Array, n: int) -> Array:
        """Draw n inputs, in any form that the other methods take."""

    @abstractmethod
    def gram(self, inputs: Array) -> Float[Array, "point point"]:
        """Return the prior covariance (n, n) that the regression uses between drawn inputs."""

    @abstractmethod
    def target(self, inputs: Array) -> Float[Array, " point"]:
        """Return the noiseless target (n,) at drawn inputs."""

    @abstractmethod
    def predict(self, inputs: Array, weight: Array) -> tuple[Array, Array | None]:
        """Return the mean squared error of ``K(., inputs) @ weight``, and its coefficients.

        The coefficients are None if the population has no modes.
        """


class GaussianPopulation(Population):
    """Independent standard normal mode functions; see `gaussian_population`."""

    values: Float[Array, " mode"]
    coefficients: Float[Array, " mode"]
    used: Float[Array, " mode"]

    def inputs(self, key, n):
        return jax.random.normal(key, (n, self.values.size), self.values.dtype)

    def gram(self, inputs):
        root = inputs * safe_sqrt(self.used)
        return root @ root.T

    def target(self, inputs):
        return inputs @ self.coefficients

    def predict(self, inputs, weight):
        fitted = self.used * (inputs.T @ weight)
        return ((fitted - self.coefficients) ** 2).sum(), fitted


class _Rows(Population):
    """Rows of a data set; inputs are their indices."""

    y: Float[Array, " point"]
    replace: bool = eqx.field(static=True)

    @property
    def most(self):
        return np.inf if self.replace else self.y.size

    def inputs(self, key, n):
        return jax.random.choice(key, self.y.size, (n,), replace=self.replace)

    def target(self, inputs):
        return self.y[inputs]


class FinitePopulation(_Rows):
    """Rows of a data set with the kernel matrix of all of them; see `finite_population`."""

    K: Float[Array, "point point"]

    def gram(self, inputs):
        return self.K[inputs[:, None], inputs]

    def predict(self, inputs, weight):
        fitted = self.K[:, inputs] @ weight
        return ((fitted - self.y) ** 2).mean(), None


class FeaturePopulation(_Rows):
    """Rows of features; see `feature_population`."""

    F: Float[Array, "point feature"]

    def gram(self, inputs):
        return self.F[inputs] @ self.F[inputs].T

    def predict(self, inputs, weight):
        fitted = self.F[inputs].T @ weight
        return ((self.F @ fitted - self.y) ** 2).mean(), fitted


def gaussian_population(
    values: LevelsLike, coefficients: ArrayLike, *, cutoff: int | None = None
) -> GaussianPopulation:
    """Make a population of Gaussian features, for which theory is exact in the limit.

    Errors are exact averages over new inputs.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure
        One value per mode. Only the modes of a spectrum are drawn.
    coefficients : (k,) of the noiseless target
    cutoff : int, optional
        Modes that the regression uses, all by default.
    """
    values = without_tail(values, falling=False, single=True).values
    coefficients = _checks.shaped("coefficients", coefficients, values.shape, "one per mode")
    cutoff = _checks.cutoff(values.size if cutoff is None else cutoff, values.size)
    used = jnp.where(jnp.arange(values.size) < cutoff, values, 0.0)
    return GaussianPopulation(values, coefficients, used)


def finite_population(
    prior: Kernel | Spectrum,
    X: ArrayLike,
    y: ArrayLike,
    *,
    cutoff: int | None = None,
    replace: bool = False,
) -> FinitePopulation:
    """Make a population of the rows of one data set.

    Errors are averages over all rows, those of training included. It holds a (p, p) matrix.

    Parameters
    ----------
    prior : Kernel or Spectrum
    X : (p, d) inputs of the population
    y : (p,) their noiseless targets
    cutoff : int, optional
        Modes of the spectrum that the regression uses; the whole kernel by default.
    replace : bool
        Whether a row may be drawn twice.

    Raises
    ------
    ValueError
        For a cutoff without a spectrum.
    """
    _checks.instance("prior", prior, Kernel | Spectrum, _checks.PRIOR)
    X, y, replace = _rows("X", X, y, replace)
    here = prior.at(X)
    K = (here if cutoff is None else here.low(cutoff)).dense()
    return FinitePopulation(y, replace, K)


def feature_population(
    features: ArrayLike, y: ArrayLike, *, replace: bool = False
) -> FeaturePopulation:
    """Make a population of rows of features, for ridge regression on them.

    Errors are averages over all rows, those of training included. Coefficients are the weights of
    the features.

    Parameters
    ----------
    features : (n, p)
    y : (n,) targets
        If they hold label noise, the error is that on noisy labels.
    replace : bool
        Whether a row may be drawn twice.

    Raises
    ------
    ValueError
        For numbers of rows that differ.
    """
    features, y, replace = _rows("features", features, y, replace)
    return FeaturePopulation(y, replace, features)


def _rows(name, X, y, replace):
    """Check the rows of a population, their targets, and whether they may be drawn twice."""
    X = _checks.inputs(name, X)
    y = _checks.finite("y", _checks.targets("y", y, len(X)), ndim=1)
    return X, y, _checks.flag("replace", replace)


class CurveMC(eqx.Module):
    """Means over random data sets and their standard errors; see `learning_curve_mc`.

    Attributes
    ----------
    n : (s,) points
    test, generalisation, train, log_evidence : (s,) described at `Curve`
    test_error, ... : (s,) standard errors of these means
    coefficients, coefficient_variance : (s, k)
        Mean and variance over data sets of the predictor's coefficients; None for a finite
        population.
    draws : number of data sets for each n
    """

    n: Float[Array, " n_train"]
    test: Float[Array, " n_train"]
    test_error: Float[Array, " n_train"]
    generalisation: Float[Array, " n_train"]
    generalisation_error: Float[Array, " n_train"]
    train: Float[Array, " n_train"]
    train_error: Float[Array, " n_train"]
    log_evidence: Float[Array, " n_train"]
    log_evidence_error: Float[Array, " n_train"]
    coefficients: Float[Array, "n_train mode"] | None
    coefficient_variance: Float[Array, "n_train mode"] | None
    draws: int = eqx.field(static=True)


def learning_curve_mc(
    population: Population,
    n: ArrayLike,
    ridge: ArrayLike,
    label_noise: ArrayLike = 0.0,
    *,
    key: Array | int,
    draws: int = 100,
    poisson: bool = False,
    batch: int = 8,
) -> CurveMC:
    """Run the regression on many random data sets of each size, and return means and errors.

    Parameters
    ----------
    population : Population
        From `gaussian_population`, `finite_population` or `feature_population`.
    n : int, or (s,) integers, points per data set; with ``poisson`` their mean
    ridge : () or (s,) positive noise variance of the model; for a coarse model the renormalised one
    label_noise : () or (s,) true noise variance of the labels
    key : JAX key or int
    draws : int, data sets for each size, at least 2
    poisson : bool
        Whether sizes are drawn too. A data set without points predicts zero, and counts with a
        training error of 0.
    batch : int, data sets solved at once

    Raises
    ------
    ValueError
        For a ridge of zero, fewer than 2 draws, or more points than a population without
        replacement has.

    Notes
    -----
    One program is compiled for each size. For Gaussian features ``generalisation`` is exact at
    each data set; noise of new labels is added as its variance.

    References
    ----------
    The experiment that arXiv 2405.06008 compares its theory with.
    """
    _checks.require_x64("theory.learning_curve_mc")
    what = "a Population; see theory.gaussian_population, finite_population, feature_population"
    _checks.instance("population", population, Population, what)
    draws = _checks.whole("draws", draws, least=2)  # one draw has no standard error
    batch = _checks.whole("batch", batch)
    poisson = _checks.flag("poisson", poisson)
    _checks.on_host("theory.learning_curve_mc counts rows: it", n)
    sizes = np.array(_checks.whole_numbers("n", n))
    if not sizes.size:
        raise ValueError("n is empty; give at least one number of points")
    ridge = _checks.squares("ridge", _checks.positive("ridge", ridge))
    label_noise = _checks.nonnegative("label_noise", label_noise)
    for name, value in (("ridge", ridge), ("label_noise", label_noise)):
        if value.shape not in ((), sizes.shape):
            raise ValueError(
                f"{name} has shape {value.shape} for {sizes.size} sizes; give one each"
            )
    key = _checks.random_key(key)
    rows = []
    for index, size in enumerate(sizes):
        # a Poisson number of points exceeds it in less than one of 10^12 data sets
        longest = int(size + 8 * np.sqrt(size) + 8) if poisson else int(size)
        if longest > population.most:
            raise ValueError(
                f"n = {size} needs up to {longest} rows but the population has {population.most}; "
                "use fewer, or replace=True"
            )
        given = (population, ridge, label_noise, key, np.asarray(index), np.asarray(float(size)))
        rows.append(_experiments(*given, longest, draws, poisson, batch))
    sizes = jnp.asarray(sizes, label_noise.dtype)
    return CurveMC(n=sizes, draws=draws, **_by_name(rows, label_noise))


@jax.jit
def _by_name(rows, label_noise):
    """Fields of `CurveMC` from the results of each size."""
    means, errors, coefficients, variances = jax.tree.map(lambda *x: jnp.stack(x), *rows)
    names = "generalisation", "train", "log_evidence"
    found = dict(zip(names, means.T, strict=True))
    found |= {f"{name}_error": error for name, error in zip(names, errors.T, strict=True)}
    return found | {
        "test": found["generalisation"] + label_noise,
        "test_error": found["generalisation_error"],
        "coefficients": coefficients,
        "coefficient_variance": variances,
    }


@eqx.filter_jit
def _experiments(population, ridge, label_noise, key, index, size, n, draws, poisson, batch):
    """Run the experiments of one size, with data sets of at most n rows.

    ``index`` is the place of this size among all, as an array so that equal sizes share a program.
    Returns mean and standard error of generalisation, training error and log evidence, and mean
    and variance of the coefficients, or None twice.
    """
    ridge, label_noise = (x[index] if x.ndim else x for x in (ridge, label_noise))
    fold = jax.random.fold_in(key, index)
    keys, counts = jax.random.split(fold, draws), jnp.full(draws, n)
    if poisson:
        counts = jax.random.poisson(jax.random.fold_in(fold, draws), size, (draws,))
        counts = jnp.minimum(counts, n)

    def one(given):
        key, count = given
        for_inputs, for_noise = jax.random.split(key)
        inputs = population.inputs(for_inputs, n)

        # Arrays have n rows for any number of points. Rows beyond ``count`` are made independent of
        # the others, with variance ridge and value zero: they change nothing but the determinant.
        there = jnp.arange(n) < count
        K = jnp.where(there[:, None] & there, population.gram(inputs), 0.0)
        y = population.target(inputs)
        y = y + jnp.sqrt(label_noise) * jax.random.normal(for_noise, y.shape, y.dtype)
        y = jnp.where(there, y, 0.0)
        L = jnp.linalg.cholesky(K + ridge * jnp.eye(n, dtype=K.dtype))
        weight = cho_solve((L, True), y)
        error, coefficients = population.predict(inputs, weight)
        train = ridge**2 * (weight**2).sum() / jnp.maximum(count, 1)  # residuals: ridge * weight
        log_det = 2 * jnp.log(jnp.diagonal(L)).sum() - (n - count) * jnp.log(ridge)
        evidence = -0.5 * (y @ weight + log_det + count * np.log(2 * np.pi))
        return jnp.stack([error, train, evidence]), coefficients

    results, coefficients = jax.lax.map(one, (keys, counts), batch_size=batch)
    errors = results.std(0, ddof=1) / np.sqrt(draws)
    spread = jax.tree.map(lambda c: (c.mean(0), c.var(0, ddof=1)), coefficients)
    return results.mean(0), errors, *(spread or (None, None))
