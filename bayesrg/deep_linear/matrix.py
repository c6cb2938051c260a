# SPDX-License-Identifier: Apache-2.0
"""Saddle point of several outputs, where the data change the shape of the kernel."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import least_point
from .joint import joint_of
from .order import order_parameter
from .problem import Problem
from .stationary import stationary_points
from .zero_noise import collapsed


class MatrixSaddle(eqx.Module):
    r"""Posterior of a wide network of several outputs at its saddle point, from `saddle`.

    Attributes
    ----------
    problem : Problem
        The data in the eigenbasis of the kernel, in units of the standard parametrisation.
    Q : (c, c), order parameter: the prior covariance of vec(f) is renormalised to Q times K
    delta : (c,)
        For each eigenvalue q of Q, in rising order, the root d of prod(1 + d / N_l) = q.
    rho : (L, c), factors 1 + d / N_l of the layers for each eigenvalue
    action : float
        Value of the action, in units of the standard network. Minus infinity where Q is singular
        because a width is below the number of points.
    slope : float
        Largest derivative of the action at Q: zero up to round-off; nan where Q is singular.
    log_evidence : float
        Laplace's approximation around the mode of the Bartlett factors, in units of Y. Infinite
        where the evidence diverges.
    """

    problem: Problem
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
        problem = self.problem
        cross, prior = problem.covariances(X_new)
        q, V = np.linalg.eigh(self.Q)
        signal = problem.values[:, None] * q
        live = signal > 0
        share = np.where(live, q / np.where(live, signal + problem.ridge, 1.0), 0.0)
        if problem.ridge == 0:  # without noise the mean does not depend on the order parameter
            share = np.broadcast_to(1.0 / problem.values[:, None], share.shape)
        mean = cross @ (share * (problem.targets @ V)) @ V.T / problem.output_scale
        variance = (q * (prior[:, None] - cross**2 @ share)) @ (V**2).T
        return mean, np.clip(variance, 0.0, None) / problem.output_scale**2


def matrix_saddle(problem: Problem, occam: bool) -> MatrixSaddle:
    """Minimise the action of several outputs over the factors of all layers; return the saddle.

    ``occam`` says whether the determinant of the likelihood is part of the action.
    """
    _checks.require_x64("deep_linear.saddle with several outputs")
    widths, c = np.asarray(problem.widths, float), problem.outputs
    if not widths.size or widths.min() < c:
        raise ValueError(
            f"widths are {problem.widths} for {c} outputs; the saddle needs hidden layers of a "
            "width of at least the number of outputs; use evidence(...) for narrower layers"
        )
    if problem.ridge == 0 and np.linalg.matrix_rank(problem.targets) < c:
        return _decoupled(problem, occam)
    joint, weight = joint_of(problem), jnp.asarray(float(occam))
    typical = np.log(np.repeat(widths[::-1], c))  # of the squared diagonals, under the prior
    x = least_point(lambda x: _value_and_grad(x, joint, weight), joint.starts(typical))
    action, gradient = _value_and_grad(x, joint, weight)
    Q = np.asarray(order_parameter(problem.widths, c, joint.latents(x)).Q)
    delta = np.array([_shared(q, widths) for q in np.linalg.eigvalsh(Q)])
    rho, slope = 1.0 + delta / widths[:, None], float(np.abs(gradient).max())
    return MatrixSaddle(problem, Q, delta, rho, float(action), slope, joint.laplace())


def _decoupled(problem, occam):
    """Return the saddle without noise, solved one output at a time.

    Without noise Q and Y^T K^-1 Y have the same eigenvectors, so that along each of them the
    problem is that of one output.
    """
    widths, c, Y = np.asarray(problem.widths, float), problem.outputs, problem.targets
    energies, V = np.linalg.eigh(Y.T @ (Y / problem.values[:, None]))
    targets = np.where(energies > 1e-14 * energies.max(initial=0.0), Y @ V, 0.0)
    alone = [eqx.tree_at(lambda p: p.targets, problem, targets[:, a : a + 1]) for a in range(c)]
    found = [stationary_points(p, occam) for p in alone]
    if not all(found):
        warnings.warn(
            f"ridge is 0, the targets of {c} outputs have rank {np.linalg.matrix_rank(Y)}, and the "
            f"least width is {int(widths.min())} for {problem.points} points: the order parameter "
            "is zero along directions without targets",
            stacklevel=4,
        )

    q = np.array([points[0].q if points else 0.0 for points in found])
    none = -float(problem.points)  # delta of a direction without targets
    delta = np.array([points[0].delta if points else none for points in found])
    order = np.argsort(q)
    rho = np.clip(1.0 + delta[order] / widths[:, None], 0.0, None)
    actions = [
        points[0].action if points else collapsed(p)[1]
        for points, p in zip(found, alone, strict=True)
    ]
    converges = widths.min() > problem.points + c - np.linalg.matrix_rank(Y) - 1
    value = joint_of(problem).laplace() if converges else float("inf")
    slope = 0.0 if all(found) else float("nan")
    Q = (V * q) @ V.T
    return MatrixSaddle(problem, Q, delta[order], rho, float(sum(actions)), slope, value)


@eqx.filter_jit
def _value_and_grad(x, joint, occam):
    """Return the action at coordinates x (k,) of a `Joint`, and its gradient (k,)."""
    return jax.value_and_grad(_action)(x, joint, occam)


def _action(x, joint, occam):
    """Return the action: rate function of the layers minus the log likelihood.

    ``occam`` (0 or 1) multiplies the log determinant in the likelihood.
    """
    logs, normals = joint.split(x)
    width = np.repeat(np.asarray(joint.problem.widths[::-1], float), joint.problem.outputs)
    rate = (jnp.exp(logs) - width * (1.0 + logs - np.log(width))).sum() + (normals**2).sum()
    misfit, log_det = joint.terms(x)
    return 0.5 * (rate + misfit + occam * log_det)


def _shared(q, widths):
    """Return the root d > -min N of ``prod(1 + d / N_l) = q``."""
    # Newton's method in u, d = min N (exp(u) - 1): every u is allowed, and log q is nearly linear.
    least, u = widths.min(), 0.0
    for _ in range(200):
        ratio = np.expm1(u) * least / widths
        slope = (np.exp(u) * least / widths / (1.0 + ratio)).sum()
        step = (np.log1p(ratio).sum() - np.log(q)) / slope
        u -= step
        if abs(step) < 1e-15 * max(1.0, abs(u)):
            break
    return float(least * np.expm1(u))
