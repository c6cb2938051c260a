# SPDX-License-Identifier: Apache-2.0
"""Slow and obvious answers in plain NumPy, and the problem that many tests share."""

import itertools
from types import SimpleNamespace

import numpy as np
from scipy.stats import multivariate_normal


def fourier_problem():
    """24 quasi-random points and 61 Fourier modes, as in the reference numbers."""
    i = np.arange(1, 25)
    x = (i * (np.sqrt(5) - 1) / 2) % 1
    y = np.sin(2 * np.pi * x) + 0.3 * np.cos(10 * np.pi * x) + 0.1 * np.cos(7 * i)
    j = np.arange(61)
    values = (1.0 + j) ** -2
    return SimpleNamespace(
        x=x, y=y, ridge=0.05, values=values, Phi=fourier_modes(x, 61),
        x_new=0.03 + np.arange(3) / 7, cutoffs=(0, 1, 5, 13, 24, 40, 61),
    )  # fmt: skip


def fourier_modes(x, k):
    columns = [np.ones_like(x)]
    for m in range(1, k):
        columns += [np.sqrt(2) * np.cos(2 * np.pi * m * x), np.sqrt(2) * np.sin(2 * np.pi * m * x)]
    return np.stack(columns[:k], 1)


def log_normal(y, mean, covariance):
    return multivariate_normal(mean, covariance, allow_singular=False).logpdf(y)


def conditional(covariance, given, wanted, values, mean=None):
    """Mean and covariance of some coordinates of a joint Gaussian given others."""
    covariance = np.asarray(covariance)
    mean = np.zeros(len(covariance)) if mean is None else np.asarray(mean)
    inverse = np.linalg.inv(covariance[np.ix_(given, given)])
    gain = covariance[np.ix_(wanted, given)] @ inverse
    return (
        mean[wanted] + gain @ (np.asarray(values) - mean[given]),
        covariance[np.ix_(wanted, wanted)] - gain @ covariance[np.ix_(given, wanted)],
    )


def gaussian_law(y, C):
    """Log density of N(0, C), and of each entry given the others."""
    P = np.linalg.inv(C)
    own = np.diag(P)
    return log_normal(y, 0 * y, C), -0.5 * ((P @ y) ** 2 / own + np.log(2 * np.pi / own))


def brute_force(covariance, log_density, y, loc=0.3):
    """Log evidence of y at points of covariance N(loc, covariance), on a product of nodes."""
    n = len(covariance)
    x, w = np.polynomial.hermite_e.hermegauss(60)
    nodes = np.array(list(itertools.product(x, repeat=n)))
    weights = np.array(list(itertools.product(w / w.sum(), repeat=n))).prod(1)
    f = loc + nodes @ np.linalg.cholesky(covariance).T
    return float(np.log(weights @ np.exp(log_density(f, y).sum(-1))))


def covariance(F, values, ridge, scale=1.0):
    """Prior covariance of modes F with variances ``values``, and a ridge, at the points."""
    return scale * (F * values) @ F.T + np.diag(np.broadcast_to(ridge, len(F)))


def log_bernoulli(f, y):
    """Log probability of labels 0 or 1, given logits."""
    return -np.logaddexp(0.0, np.where(y == 1, -f, f))


def slope_of_labels(f, y):
    """First and second derivative of `log_bernoulli` in the logits."""
    chance = 1 / (1 + np.exp(-f))
    return y - chance, -chance * (1 - chance)


def newton(C, slope, y):
    """Mode of a latent function of covariance C, by Newton steps; slope(f, y), its derivative."""
    f = np.zeros(len(C))
    for _ in range(30):
        g, dg = slope(f, y)
        f = C @ np.linalg.solve(np.eye(len(C)) - dg[:, None] * C, g - dg * f)
    return f


def central_difference(function, x, step=1e-6):
    """Gradient of a scalar function of a flat array."""
    x = np.asarray(x, float)
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[index] = step * max(1.0, abs(x[index]))
        gradient[index] = (function(x + shift) - function(x - shift)) / (2 * shift[index])
    return gradient


def within(value, expected, errors, factor=4.0):
    """Say whether Monte Carlo numbers agree within some of their standard errors."""
    return bool((np.abs(np.asarray(value) - expected) <= factor * np.asarray(errors)).all())
