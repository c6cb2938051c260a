# SPDX-License-Identifier: Apache-2.0
"""How strongly training shakes the weights: two routes to the noise, and temperatures."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from ... import _checks
from ..._checks import ArrayLike
from .levels import real_matrices
from .summary import mean_of


class Noise(NamedTuple):
    r"""Result of `noise_by_width` and `noise_by_variation`.

    ``theta`` () is the variance that the noise adds to one weight per unit of time, with time in
    units of steps times learning rate, and ``error`` () its standard error.
    """

    theta: float
    error: float


def noise_by_width(
    summary: xr.Dataset,
    *,
    learning_rate: ArrayLike,
    relaxation: ArrayLike = 1.0,
    curvature: ArrayLike | None = None,
) -> Noise:
    r"""Return the noise of a stationary run from the widths of the groups of levels.

    Levels of W^T W around :math:`c^2` have the width :math:`\sigma = 2c\sqrt v` if the weights have
    the variance v, and :math:`v = \Theta/(\gamma(2 - \alpha\gamma'))` for weights that relax at the
    rate :math:`\gamma`.

    Parameters
    ----------
    summary : Dataset
        From `summary` of one layer; all groups with a positive mean level are used.
    learning_rate : float
        Of each step.
    relaxation : float
        Rate gamma at which a weight relaxes, per unit of time: the curvature of the loss.
    curvature : float, optional
        gamma' of the correction for finite steps; by default the relaxation. For batches of B fresh
        inputs of N dimensions and whitened covariance it is 1 + (N + 1)/B.

    Returns
    -------
    Noise

    References
    ----------
    arXiv 2407.16427.
    """
    _checks.instance("summary", summary, xr.Dataset, "a Dataset from weights.summary")
    if not {"level", "sigma"} <= set(summary):
        raise ValueError("summary lacks level or sigma; give a Dataset from weights.summary")
    rate = _checks.number("learning_rate", learning_rate, above=0.0)
    gamma = _checks.number("relaxation", relaxation, above=0.0)
    extra = gamma if curvature is None else _checks.number("curvature", curvature, above=0.0)
    _checks.below_limit(rate, 2 / extra)

    level = summary["level"].sel(statistic="mean").to_numpy().ravel()
    sigma = summary["sigma"].sel(statistic="mean").to_numpy().ravel()
    error = summary["sigma"].sel(statistic="sd").to_numpy().ravel()
    used = (level > 0) & (sigma > 0) & (error > 0)
    if not used.any():
        raise ValueError("summary has no group with a positive level and a width; give more draws")
    level, sigma, error = level[used], sigma[used], error[used]

    # variance of one weight from each group, weighted by its precision
    v, dv = sigma**2 / (4 * level), sigma * error / (2 * level)
    weight = dv**-2 / (dv**-2).sum()
    factor = gamma * (2 - rate * extra)
    return Noise(float(factor * weight @ v), float(factor / np.sqrt((dv**-2).sum())))


def noise_by_variation(W: ArrayLike, *, dt: ArrayLike) -> Noise:
    r"""Return the noise from the changes of weights, whether the run is stationary or not.

    Of the change of each weight the part that is linear in the weight, its drift, is removed by
    least squares over the run. The mean square of the rest over ``dt`` is the noise.

    Parameters
    ----------
    W : (chain, step, M, N) or (step, M, N)
        Weights at successive records.
    dt : float
        Time between records: steps between them times the learning rate. Drift that is not linear
        must be small in this time.

    Returns
    -------
    Noise

    Raises
    ------
    ValueError
        For fewer than eight records.

    References
    ----------
    arXiv 2407.16427.
    """
    W = _draws("W", W, "step")
    dt = _checks.number("dt", dt, above=0.0)
    chains, records = W.shape[:2]
    if records < 8:
        raise ValueError(f"W has {records} records; the noise needs at least 8")
    now, change = W[:, :-1], np.diff(W, axis=1)
    now = now - now.mean(1, keepdims=True)
    rest = change - change.mean(1, keepdims=True)
    size = (now**2).sum(1, keepdims=True)
    slope = (now * rest).sum(1, keepdims=True) / np.where(size > 0, size, 1.0)
    rest = rest - slope * now
    each = (rest**2).sum(1) / (records - 3) / dt  # two numbers are fitted per weight
    if each.size > 1:
        error = each.std(ddof=1) / np.sqrt(each.size)
    else:
        error = each.mean() * np.sqrt(2 / (records - 3))  # chi-squared
    return Noise(float(each.mean()), float(error))


def effective_temperature(
    gradients: ArrayLike,
    noise_variance: ArrayLike,
    *,
    learning_rate: ArrayLike,
    batch: int,
    langevin: ArrayLike = 0.0,
    curvature: ArrayLike = 1.0,
) -> float:
    r"""Predict the temperature of SGD relative to the posterior, for whitened linear regression.

    It is :math:`[T + \frac{\alpha n}{2B}\frac{G}{s^2}]\frac{2}{2 - \alpha\gamma'}`. At one, weights
    are spread as under the posterior with a flat prior.

    Parameters
    ----------
    gradients : (n, ...)
        Gradient of the loss of each of n samples at the solution; G is the mean over weights of its
        variance over samples. Measure it: :math:`s^2` in its place is off by 10 % at n = 256.
    noise_variance : float
        :math:`s^2` of the observations.
    learning_rate : float
    batch : int
        B, drawn with replacement; n with ``langevin`` alone means the whole sum.
    langevin : float
        Temperature T of the noise that Langevin dynamics adds, 1 for `bayesrg.dynamics.sgld` at the
        temperature s^2/n.
    curvature : float
        gamma' of the correction for finite steps; 1 + (N + 1)/B with that of the batches.

    Returns
    -------
    float

    References
    ----------
    Mandt, Hoffman and Blei (2017), arXiv 1704.04289; arXiv 2407.16427.
    """
    g = _checks.on_64_bits("gradients", gradients)
    if g.ndim < 2 or len(g) < 2:
        raise ValueError(f"gradients has shape {g.shape}; give one row per sample, (n, ...)")
    n = len(g)
    square = _checks.number("noise_variance", noise_variance, above=0.0)
    rate = _checks.number("learning_rate", learning_rate, above=0.0)
    batch = _checks.whole("batch", batch)
    kick = _checks.number("langevin", langevin, least=0.0)
    curvature = _checks.number("curvature", curvature, above=0.0)
    _checks.below_limit(rate, 2 / curvature)
    G = g.reshape(n, -1).var(0).mean()
    shaken = rate * n / (2 * batch) * G / square
    return float((kick + shaken) * 2 / (2 - rate * curvature))


def spectral_temperature(
    W: ArrayLike,
    posterior: ArrayLike | float,
    *,
    group: ArrayLike | None = None,
    at: ArrayLike | None = None,
) -> Noise:
    r"""Return how much hotter a chain of weights is than the posterior, from its levels.

    The levels are those of :math:`V_g^T(W^TW - \hat X)V_g`, with the right singular vectors V_g of
    a group of levels of :math:`\hat W`. Raw levels would be wrong: the split of the levels of
    :math:`\hat W` adds to both widths, and gives (T + 1)/2 in place of T.

    Parameters
    ----------
    W : (chain, draw, M, N) or (draw, M, N)
    posterior : (chain, draw, M, N), (draw, M, N), or float
        Draws of the posterior, or its squared width :math:`\sigma^2`.
    group : (k,) of int, optional
        Levels of the group, 0 the largest; by default all.
    at : (M, N), optional
        The solution :math:`\hat W`; by default the mean over the chain.

    Returns
    -------
    Noise
        ``theta`` is the temperature, ``error`` its standard error.

    References
    ----------
    arXiv 2407.16427.
    """
    shape = np.shape(_checks.numbers("W", W))[-2:]
    if at is not None:
        at = np.asarray(_checks.shaped("at", at, shape, "that of a matrix of W"), float)
        at = _checks.squares("at", at)
    square, error = _block_width("W", W, group, at)
    if not np.ndim(_checks.numbers("posterior", posterior)):
        other, beside = _checks.number("posterior", posterior, above=0.0), 0.0
    elif np.shape(posterior)[-2:] != shape:
        raise ValueError(
            f"posterior has matrices {np.shape(posterior)[-2:]} and W {shape}; give draws of the "
            "same weights"
        )
    else:
        other, beside = _block_width("posterior", posterior, group, at)
    ratio = square / other
    return Noise(ratio, ratio * float(np.hypot(error / square, beside / other)))


def _draws(name, W, axis):
    """Return weights (chain, draw or step, M, N) as 64-bit floats."""
    W = np.asarray(_checks.numbers(name, W), float)
    W, _ = real_matrices(name, W[None] if W.ndim == 3 else W, ("chain", axis))
    return _checks.squares(name, W)


def _block_width(name, W, group, at):
    """Return the squared width of the levels in the block of a group, and its standard error."""
    W = _draws(name, W, "draw")
    centre = W.mean((0, 1)) if at is None else at
    _, _, Vt = np.linalg.svd(centre)
    V = Vt.T if group is None else Vt.T[:, sorted(set(_checks.indices("group", group, len(Vt))))]
    X = np.swapaxes(W, -1, -2) @ W - centre.T @ centre
    x = np.linalg.eigvalsh(V.T @ X @ V)
    n = x.shape[-1]
    mean = x.mean() if n == 1 else x.mean(-1, keepdims=True)
    degrees = n + n * (n - 1) / 2 - (n > 1)
    each = ((x - mean) ** 2).sum(-1) / degrees
    if not 0 < each.mean() < np.inf:
        raise ValueError(
            f"{name} has levels of variance {each.mean()} over its draws; give several draws, and "
            "rescale weights that are too large"
        )
    return float(each.mean()), mean_of(each)[1]
