# SPDX-License-Identifier: Apache-2.0
"""Kernel shape renormalisation: the saddle point of several outputs."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import least_point
from .._linalg import quad_logdet
from .joint import joint_of
from .problem import Problem
from .stationary import stationary_points
from .zero_noise import collapsed


class MatrixSaddle(eqx.Module):
    r"""Posterior of wide networks of several outputs at one order parameter; see `saddle`.

    Attributes
    ----------
    problems : list of Problem
        The data of every output in the eigenbasis of the kernel.
    Q : (c, c) order parameter: the prior covariance of vec(f) is renormalised to Q times K
    delta : (c,) numbers d of the eigenvalues of Q, rising, which solve prod(1 + d / N_l) = q
    rho : (L, c) factors of the layers along these
    action : its value, in units of the standard network; minus infinity where Q is singular as a
        width is below the number of points
    slope : largest derivative of the action at Q, zero to round-off; nan where Q is singular
    log_evidence : Laplace's approximation around the mode of the layers' factors, in units of Y;
        infinite where the evidence diverges
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
        signal = problem.values[:, None] * q
        live = signal > 0  # without noise the mean is the same at any order parameter
        share = np.where(live, q / np.where(live, signal + problem.ridge, 1.0), 0.0)
        if problem.ridge == 0:
            share = np.broadcast_to(1.0 / problem.values[:, None], share.shape)
        mean = cross @ (share * (Y @ V)) @ V.T / problem.output_scale
        variance = (q * (prior[:, None] - cross**2 @ share)) @ (V**2).T
        return mean, np.clip(variance, 0.0, None) / problem.output_scale**2


def matrix_saddle(problems: list[Problem], occam: bool) -> MatrixSaddle:
    """Minimise the action of several outputs over the factors of all layers."""
    _checks.require_x64("deep_linear.saddle with several outputs")
    problem, c = problems[0], len(problems)
    widths = np.asarray(problem.widths, float)
    if not widths.size or widths.min() < c:
        raise ValueError(
            f"widths are {problem.widths} for {c} outputs; the saddle needs hidden layers, all at "
            "least as wide as the outputs are many; evidence(...) knows narrower ones"
        )
    Y = np.stack([p.target for p in problems], 1)
    if problem.ridge == 0 and np.linalg.matrix_rank(Y) < c:
        return _decoupled(problems, Y, occam)
    joint = joint_of(problems)
    weight = jnp.asarray(float(occam))
    args = (jnp.asarray(widths), joint.values, joint.targets, joint.ridge, weight)
    energies = Y**2 / problem.values[:, None]
    typical = np.log(max(energies.mean() if energies.size else 0.0, 1e-8)) / widths.size
    starts = (0.0, max(typical, -5.0))  # the prior, and the scale of the targets
    x, action, slope = _lowest(starts, args)
    Q = np.asarray(_order_parameter(x, args[0], c))
    delta = np.array([_shared(q, widths) for q in np.linalg.eigvalsh(Q)])
    if problem.ridge:
        action += 0.5 * sum(p.missed for p in problems) / problem.ridge
        unseen = (problem.points - problem.values.size) * c
        action += 0.5 * unseen * np.log(2 * np.pi * problem.ridge) * occam
    rho = 1.0 + delta / widths[:, None]
    return MatrixSaddle(problems, Q, delta, rho, float(action), slope, joint.laplace())


def _decoupled(problems, Y, occam):
    """Solve one output at a time in eigenvectors of Y^T K^-1 Y: without noise they are Q's own."""
    problem, c = problems[0], len(problems)
    widths = np.asarray(problem.widths, float)
    energies, V = np.linalg.eigh(Y.T @ (Y / problem.values[:, None]))
    targets = np.where(energies > 1e-14 * energies.max(initial=0.0), Y @ V, 0.0)
    alone = [eqx.tree_at(lambda p: p.target, problem, targets[:, a]) for a in range(c)]
    found = [stationary_points(p, occam) for p in alone]
    if not all(found):
        warnings.warn(
            f"ridge is 0, the targets of {c} outputs have rank {np.linalg.matrix_rank(Y)}, and the "
            f"least width is {int(widths.min())} for {problem.points} points: the order parameter "
            "is zero along directions without targets",
            stacklevel=4,
        )
    q = np.array([points[0].q if points else 0.0 for points in found])
    none = -float(problem.points)  # of a direction without targets
    delta = np.array([points[0].delta if points else none for points in found])
    order = np.argsort(q)
    rho = np.clip(1.0 + delta[order] / widths[:, None], 0.0, None)
    actions = [
        points[0].action if points else collapsed(p)[1]
        for points, p in zip(found, alone, strict=True)
    ]
    converges = widths.min() > problem.points + c - np.linalg.matrix_rank(Y) - 1
    value = joint_of(problems).laplace() if converges else float("inf")
    slope = 0.0 if all(found) else float("nan")
    Q = (V * q) @ V.T
    return MatrixSaddle(problems, Q, delta[order], rho, float(sum(actions)), slope, value)


def _lowest(starts, args):
    """Find the least point of the action from some log scales; return its value and slope too."""
    widths, c = np.asarray(args[0]), args[2].shape[1]
    first = np.full((widths.size, c * (c + 1) // 2), 0.1)
    first[:, :c] = np.log(widths)[:, None]
    scale = (np.arange(first.shape[1]) < c) * np.ones_like(first)
    x = least_point(
        lambda x: _value_and_grad(x, *args), [(first + shift * scale).ravel() for shift in starts]
    )
    value, gradient = _value_and_grad(x, *args)
    return x, float(value), float(np.abs(gradient).max())


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


def _energy(x, widths, values, Y, ridge, occam):
    """Rate of the layers and minus the log likelihood, whose determinant ``occam`` weighs."""
    c = Y.shape[1]
    B, log_c = _factors(x, widths, c)
    Q = _order_parameter(x, widths, c)
    quad, log_det = quad_logdet(values[:, None, None] * Q + ridge * jnp.eye(c), Y[:, None, :])
    rate = (B**2).sum((1, 2)) - widths * ((log_c - jnp.log(widths)[:, None]).sum(1) + c)
    prefactor = log_det.sum() + Y.size * np.log(2 * np.pi)
    return 0.5 * (quad.sum() + rate.sum() + occam * prefactor)


_value_and_grad = jax.jit(jax.value_and_grad(_energy))


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
