# SPDX-License-Identifier: Apache-2.0
"""Kernel shape renormalisation: the saddle point of several outputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.optimize import minimize

from ... import _checks
from ..._checks import ArrayLike
from .problem import Problem


class MatrixSaddle(eqx.Module):
    r"""Posterior of wide networks of several outputs at one order parameter; see `saddle`.

    Attributes
    ----------
    problems : list of Problem
        The data of every output in the eigenbasis of the kernel.
    Q : (c, c) order parameter: the prior covariance of vec(f) is renormalised to Q times K
    delta : (c,) numbers d of the eigenvalues of Q, rising, which solve prod(1 + d / N_l) = q
    rho : (L, c) factors of the layers along these
    action : its value, in units of the standard network
    slope : largest derivative of the action at Q, zero to round-off
    log_evidence : Laplace's approximation around the mode of the layers' factors, in units of Y
    """

    problems: list[Problem]
    Q: Float[np.ndarray, "output output_bis"]
    delta: Float[np.ndarray, " output"]
    rho: Float[np.ndarray, "layer output"]
    action: float
    slope: float
    log_evidence: float

    def predict(self, X_new: ArrayLike):
        """Return posterior mean and variance of the function at X_new (m, d), noise excluded.

        Returns
        -------
        mean : (m, c)
        variance : (m, c)
        """
        problem, Y = self.problems[0], np.stack([p.target for p in self.problems], 1)
        cross, prior = problem.covariances(X_new)
        q, V = np.linalg.eigh(self.Q)
        share = q / (problem.values[:, None] * q + problem.ridge)
        mean = cross @ (share * (Y @ V)) @ V.T / problem.output_scale
        variance = (q * (prior[:, None] - cross**2 @ share)) @ (V**2).T
        return mean, np.clip(variance, 0.0, None) / problem.output_scale**2


def matrix_saddle(problems: list[Problem], occam: bool) -> MatrixSaddle:
    """Minimise the action of several outputs over the factors of all layers."""
    _checks.require_x64("theory.deep_linear.saddle with several outputs")
    problem, c = problems[0], len(problems)
    widths = np.asarray(problem.widths, float)
    if not widths.size or widths.min() < c:
        raise ValueError(
            f"widths are {problem.widths} for {c} outputs; the saddle needs hidden layers, all at "
            "least as wide as the outputs are many"
        )
    Y = np.stack([p.target for p in problems], 1)
    if problem.ridge == 0 and np.linalg.matrix_rank(Y) < c:
        raise ValueError(
            f"ridge is 0 and the targets of {c} outputs have rank {np.linalg.matrix_rank(Y)}: some "
            "direction has none, and its order parameter may be zero; give a ridge above zero, "
            "or rotate that direction out"
        )
    missed = sum(p.missed for p in problems) / problem.ridge if problem.ridge else 0.0
    unseen = (problem.points - problem.values.size) * c
    outside = unseen * np.log(2 * np.pi * problem.ridge) if unseen else 0.0
    args = (jnp.asarray(widths), jnp.asarray(problem.values), jnp.asarray(Y), problem.ridge)

    typical = np.log(max((Y**2 / problem.values[:, None]).mean(), 1e-8)) / widths.size
    starts = (0.0, max(typical, -5.0))  # the prior, and the scale of the targets

    x, action, slope = _lowest(starts, args, jnp.array([1.0, float(occam), 0.0]))
    Q = np.asarray(_order_parameter(x, args[0], c))
    delta = np.array([_shared(q, widths) for q in np.linalg.eigvalsh(Q)])
    joint = jnp.array([0.0, 1.0, 1.0])
    mode, value, _ = _lowest(starts, args, joint)
    log_det = np.linalg.slogdet(_hessian(mode, *args, joint))[1]
    log_evidence = -value + 0.5 * (mode.size * np.log(2 * np.pi) - log_det)
    return MatrixSaddle(
        problems, Q, delta, 1.0 + delta / widths[:, None],
        action + 0.5 * (missed + (outside if occam else 0.0)), slope,
        float(log_evidence - 0.5 * (missed + outside))
        + problem.points * c * float(np.log(problem.output_scale)),
    )  # fmt: skip


def _lowest(starts, args, weights):
    """Least point of the energy from some log scales: by L-BFGS, then Newton's method."""
    widths, c = np.asarray(args[0]), args[2].shape[1]

    def energy(x):
        value, gradient = _value_and_grad(x, *args, weights)
        return float(value), np.asarray(gradient)

    found = []
    for shift in starts:
        first = np.full((widths.size, c * (c + 1) // 2), 0.1)
        first[:, :c] = np.log(widths)[:, None] + shift
        options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
        found.append(minimize(energy, first.ravel(), jac=True, method="L-BFGS-B", options=options))
    x = min(found, key=lambda result: result.fun).x
    for _ in range(5):
        x = x - np.linalg.lstsq(_hessian(x, *args, weights), energy(x)[1])[0]
    value, gradient = energy(x)
    return x, value, float(np.abs(gradient).max())


def _factors(x, widths, c):
    """Triangular factors (L, c, c) of the layers, with log squared diagonals first in x."""
    x = x.reshape(widths.size, -1)
    rows, columns = np.tril_indices(c, -1)
    diagonal = np.arange(c)
    B = jnp.zeros((widths.size, c, c)).at[:, diagonal, diagonal].set(jnp.exp(0.5 * x[:, :c]))
    return B.at[:, rows, columns].set(x[:, c:]), x[:, :c]


def _order_parameter(x, widths, c) -> Array:
    """Q = G G^T, with G the product of the factors from the readout down."""
    B, _ = _factors(jnp.asarray(x), widths, c)
    G = jnp.eye(c)
    for layer in range(widths.size - 1, -1, -1):
        G = G @ B[layer] / jnp.sqrt(widths[layer])
    return G @ G.T


def _energy(x, widths, values, Y, ridge, weights):
    """Weighted sum of the action's rate, the determinant and the densities of the factors."""
    c = Y.shape[1]
    B, log_c = _factors(x, widths, c)
    Q = _order_parameter(x, widths, c)
    L = jnp.linalg.cholesky(values[:, None, None] * Q + ridge * jnp.eye(c))
    white = jax.scipy.linalg.solve_triangular(L, Y[:, :, None], lower=True)
    log_det = 2.0 * jnp.log(jnp.diagonal(L, axis1=1, axis2=2)).sum() + Y.size * np.log(2 * np.pi)
    squares = (B**2).sum((1, 2))
    rate = 0.5 * (squares - (widths[:, None] * (log_c - jnp.log(widths)[:, None])).sum(1))
    rate = (rate - 0.5 * widths * c).sum()
    half = 0.5 * (widths[:, None] - jnp.arange(c))  # c_i is twice a Gamma variable of this shape
    density = half * log_c - half * jnp.log(2.0) - jax.scipy.special.gammaln(half)
    normal = 0.25 * c * (c - 1) * np.log(2 * np.pi) * widths.size
    prior = 0.5 * squares.sum() - density.sum() + normal
    return 0.5 * (white**2).sum() + weights @ jnp.stack([rate, 0.5 * log_det, prior])


_value_and_grad = jax.jit(jax.value_and_grad(_energy))
_hessian = jax.jit(jax.hessian(_energy))


def _shared(q, widths):
    """Root d > -min N of ``prod(1 + d / N_l) = q``."""
    least, u = widths.min(), 0.0
    for _ in range(200):
        ratio = np.expm1(u) * least / widths
        slope = (np.exp(u) * least / widths / (1.0 + ratio)).sum()
        step = (np.log1p(ratio).sum() - np.log(q)) / slope
        u -= step
        if abs(step) < 1e-15 * max(1.0, abs(u)):
            break
    return float(least * np.expm1(u))
