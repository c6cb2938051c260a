# SPDX-License-Identifier: Apache-2.0
"""Learning curves by experiment: regression on many random data sets, with standard errors."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve
from jaxtyping import Float

from .. import _checks
from .._callables import as_pytree
from .._checks import ArrayLike
from .._linalg import safe_sqrt
from ..kernels import Kernel
from ..spectrum import Spectrum
from ..spectrum.levels import LevelsLike, without_tail


class Population(eqx.Module):
    """Where data sets come from; see the functions whose names end in ``_population``."""

    @property
    def most(self) -> float:
        """Most inputs that one data set can have."""
        return np.inf

    @abstractmethod
    def inputs(self, key: Array, n: int) -> Array:
        """Draw n inputs, in a form of this population's own."""

    @abstractmethod
    def gram(self, inputs: Array) -> Float[Array, "point point"]:
        """Prior covariance (n, n) that the regression uses between drawn inputs."""

    @abstractmethod
    def target(self, inputs: Array) -> Float[Array, " point"]:
        """Noiseless target (n,) at drawn inputs."""

    @abstractmethod
    def predict(self, inputs: Array, weight: Array) -> tuple[Array, Array | None]:
        """Mean squared error of ``K(., inputs) @ weight``, and its coefficients if it has any."""


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


class FinitePopulation(Population):
    """Rows of a data set, drawn at random; see `finite_population`."""

    K: Float[Array, "point point"]
    y: Float[Array, " point"]
    replace: bool = eqx.field(static=True)

    @property
    def most(self):
        return np.inf if self.replace else self.y.size

    def inputs(self, key, n):
        return jax.random.choice(key, self.y.size, (n,), replace=self.replace)

    def gram(self, inputs):
        return self.K[inputs[:, None], inputs]

    def target(self, inputs):
        return self.y[inputs]

    def predict(self, inputs, weight):
        fitted = self.K[:, inputs] @ weight
        return ((fitted - self.y) ** 2).mean(), None


class FeaturePopulation(Population):
    """Rows of features and targets, or a function that draws them; see `feature_population`."""

    F: Float[Array, "point feature"]
    y: Float[Array, " point"]
    replace: bool = eqx.field(static=True)
    draw: Callable | None

    @property
    def most(self):
        return np.inf if self.replace or self.draw is not None else self.y.size

    def inputs(self, key, n):
        if self.draw is not None:
            return self.draw(key, n)
        rows = jax.random.choice(key, self.y.size, (n,), replace=self.replace)
        return self.F[rows], self.y[rows]

    def gram(self, inputs):
        return inputs[0] @ inputs[0].T

    def target(self, inputs):
        return inputs[1]

    def predict(self, inputs, weight):
        fitted = inputs[0].T @ weight
        return ((self.F @ fitted - self.y) ** 2).mean(), fitted


def gaussian_population(
    values: LevelsLike, coefficients: ArrayLike, *, cutoff: int | None = None
) -> GaussianPopulation:
    """Draw data sets with Gaussian features, for which theory is exact in the limit.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure
        One value per mode. Of a spectrum its modes alone are drawn.
    coefficients : (k,) of the noiseless target
    cutoff : int, optional
        Modes that the regression uses, all by default.

    Returns
    -------
    GaussianPopulation
        Errors are exact averages over new inputs.
    """
    values = without_tail(values, falling=False, single=True).values
    coefficients = _checks.finite("coefficients", coefficients, ndim=1)
    if values.shape != coefficients.shape:
        raise ValueError(
            f"coefficients has shape {coefficients.shape} and values {values.shape}; give one "
            "coefficient a mode"
        )
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
    """Draw data sets from the rows of one.

    Parameters
    ----------
    prior : Kernel or Spectrum
    X : (p, d) the population
    y : (p,) its noiseless targets
    cutoff : int, optional
        Modes of the spectrum that the regression uses; the whole kernel by default.
    replace : bool
        Whether a row may be drawn twice.

    Returns
    -------
    FinitePopulation
        Errors are averages over the whole population, training rows included. Holds a
        (p, p) matrix.

    Raises
    ------
    ValueError
        For a cutoff without a spectrum.
    """
    _checks.instance("prior", prior, Kernel | Spectrum, _checks.PRIOR)
    replace = _checks.flag("replace", replace)
    X = _checks.inputs("X", X)
    y = _checks.finite("y", _checks.targets("y", y, X.shape[0]), ndim=1)
    here = prior.at(X)
    return FinitePopulation((here if cutoff is None else here.low(cutoff)).dense(), y, replace)


def feature_population(
    features: ArrayLike,
    target: ArrayLike,
    draw: Callable | None = None,
    *,
    replace: bool = False,
) -> FeaturePopulation:
    """Draw data sets of features with a target, for ridge regression on the features.

    Parameters
    ----------
    features : (N, p)
        Those on which errors are measured, and from which data sets are drawn.
    target : (N,)
        With its label noise, if it has any: the error is then that on noisy labels.
    draw : callable (key, n) -> features (n, p), targets (n,), optional
        Draws data sets in place of rows, so that none is tested on what it was trained on.
    replace : bool
        Whether a row may be drawn twice.

    Returns
    -------
    FeaturePopulation
        Coefficients are the weights of the features.

    Raises
    ------
    ValueError
        For numbers of rows that differ.
    """
    replace = _checks.flag("replace", replace)
    if draw is not None:
        _checks.function("draw", draw, "a function of a key and a number")
    features = _checks.inputs("features", features)
    target = _checks.targets("target", target, features.shape[0])
    target = _checks.finite("target", target, ndim=1)
    draw = draw if draw is None else as_pytree(draw)
    return FeaturePopulation(features, target, replace, draw)


class CurveMC(eqx.Module):
    """Means over random data sets and their standard errors; see `learning_curve_mc`.

    Attributes
    ----------
    n : (s,) points
    test, generalisation, train, log_evidence : (s,) as in `Curve`
    test_error, ... : (s,) their standard errors
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
    """Run the regression on many random data sets of each size.

    Parameters
    ----------
    population : Population
        From `gaussian_population`, `finite_population` or `feature_population`.
    n : () or (s,) integers, points a data set; with ``poisson`` their mean
    ridge : () or (s,) positive, the model's noise variance; of a coarse model its renormalised one
    label_noise : () or (s,) true noise variance of the labels
    key : JAX key or int
    draws : int, data sets for each size, at least 2
    poisson : bool
        Whether sizes are drawn too; a data set without points predicts zero, and counts with a
        training error of 0.
    batch : int, data sets solved at once

    Returns
    -------
    CurveMC

    Raises
    ------
    ValueError
        For a ridge of zero, fewer than 2 draws, or more points than a population without
        replacement has.

    Notes
    -----
    One program is compiled for each size. Generalisation is exact at each data set for Gaussian
    features; noise of new labels is added as its variance.

    References
    ----------
    The experiment that arXiv 2405.06008 compares its theory with.
    """
    _checks.require_x64("theory.learning_curve_mc")
    what = "a Population; see theory.gaussian_population, finite_population, feature_population"
    _checks.instance("population", population, Population, what)
    if _checks.whole("draws", draws) < 2:
        raise ValueError(f"draws must be at least 2 for a standard error, got {draws}")
    batch = _checks.whole("batch", batch)
    poisson = _checks.flag("poisson", poisson)
    _checks.on_host("theory.learning_curve_mc counts rows: it", n)
    sizes = np.atleast_1d(np.asarray(_checks.numbers("n", n)))
    sizes = np.atleast_1d(_checks.integer(n)) if _checks.integer(n) is not None else sizes
    if not np.issubdtype(sizes.dtype, np.integer) or (sizes < 1).any() or sizes.ndim != 1:
        got = _checks.shown(n)
        raise ValueError(f"n must hold positive integers, shape () or (s,), got {got}")
    ridge = _checks.squares("ridge", _checks.positive("ridge", ridge))
    noise = _checks.nonnegative("label_noise", label_noise)
    for name, value in (("ridge", ridge), ("label_noise", noise)):
        if value.shape not in ((), sizes.shape):
            raise ValueError(
                f"{name} has shape {value.shape} for {sizes.size} sizes; give one each"
            )
    key = _checks.random_key(key)
    rows = []
    for index, size in enumerate(sizes):
        longest = int(size + 8 * np.sqrt(size) + 8) if poisson else int(size)
        if longest > population.most:
            raise ValueError(
                f"n = {size} needs up to {longest} rows but the population has {population.most}; "
                "use fewer, or replace=True"
            )
        given = (population, ridge, noise, key, np.asarray(index), np.asarray(float(size)))
        rows.append(_experiments(*given, longest, draws, poisson, batch))
    return CurveMC(n=jnp.asarray(sizes, noise.dtype), draws=draws, **_by_name(rows, noise))


@jax.jit
def _by_name(rows, label_noise):
    """Fields of `CurveMC` from the results of each size."""
    means, errors, coefficients, variances = (
        jax.tree.map(lambda *x: jnp.stack(x), *parts) for parts in zip(*rows, strict=True)
    )
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
    """Run the experiments of the size number ``index``, whose data sets have n rows at most."""
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
        there = jnp.arange(n) < count
        K = jnp.where(there[:, None] & there, population.gram(inputs), 0.0)
        y = population.target(inputs)
        y = y + jnp.sqrt(label_noise) * jax.random.normal(for_noise, y.shape, y.dtype)
        y = jnp.where(there, y, 0.0)
        L = jnp.linalg.cholesky(K + ridge * jnp.eye(n, dtype=K.dtype))
        weight = cho_solve((L, True), y)
        error, coefficients = population.predict(inputs, weight)
        train = ridge**2 * (weight**2).sum() / jnp.maximum(count, 1)
        # a row that is not there is one of variance ridge and value zero
        log_det = 2 * jnp.log(jnp.diagonal(L)).sum() - (n - count) * jnp.log(ridge)
        evidence = -0.5 * (y @ weight + log_det + count * np.log(2 * np.pi))
        return jnp.stack([error, train, evidence]), coefficients

    results, coefficients = jax.lax.map(one, (keys, counts), batch_size=batch)
    errors = results.std(0, ddof=1) / np.sqrt(draws)
    spread = jax.tree.map(lambda c: (c.mean(0), c.var(0, ddof=1)), coefficients)
    return results.mean(0), errors, *(spread or (None, None))
