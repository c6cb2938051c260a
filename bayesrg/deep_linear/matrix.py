# SPDX-License-Identifier: Apache-2.0
"""Saddle point of several outputs, where the data change the shape of the kernel."""

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from .joint import joint_of
from .problem import Problem
from .stationary import stationary_points
from .zero_noise import collapsed


class MatrixSaddle(eqx.Module):
    r"""Posterior of a wide network of several outputs at its saddle point, from `saddle`.

    Attributes
    ----------
    problem : Problem, the data in the eigenbasis of the kernel, in units of the standard network
    Q : (c, c), order parameter: the prior covariance of vec(f) is renormalised to Q times K
    delta : (c,)
        For each eigenvalue q of Q, in rising order, the root d of prod(1 + d / N_l) = q.
    rho : (L, c), factors 1 + d / N_l of the layers for each eigenvalue
    action : float
        Value of the action. Minus infinity where Q is singular because a width is below the number
        of points.
    log_evidence : float
        Laplace's approximation around the mode of the Bartlett factors, in units of y. Infinite
        where the evidence diverges.
    """

    problem: Problem
    Q: Float[np.ndarray, "output output_bis"]
    delta: Float[np.ndarray, " output"]
    rho: Float[np.ndarray, "layer output"]
    action: float
    log_evidence: float

    def predict(self, X_new: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (m, c) and variance (m, c) of the function at X_new (m, d), without noise."""
        return moments_given(self.problem, *np.linalg.eigh(self.Q), X_new)


def moments_given(problem, q, V, X_new):
    """Return mean and variance (m, c) at X_new (m, d), given eigenvalues and -vectors of Q."""
    cross, prior = problem.covariances(X_new)
    q = np.clip(q, 0.0, None)  # a singular Q may have eigenvalues below zero by rounding
    if problem.ridge == 0:  # without noise the mean does not depend on the order parameter
        share = np.repeat(1.0 / problem.values[:, None], q.size, 1)
    else:
        share = q / (problem.values[:, None] * q + problem.ridge)
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

    joint, counts = joint_of(problem), np.repeat(widths[::-1], c)
    x, energy = joint.least(counts, occam)
    value, _, Q = energy(x)

    # The action has N (log N - 1) for each squared diagonal, which does not depend on x.
    action = float(value + 0.5 * (counts * (np.log(counts) - 1.0)).sum())
    delta = np.array([_shared(q, widths) for q in np.linalg.eigvalsh(Q)])
    return MatrixSaddle(problem, Q, delta, 1.0 + delta / widths[:, None], action, joint.laplace())


def _decoupled(problem, occam):
    """Return the saddle without noise, solved one output at a time.

    Without noise Q and Y^T K^-1 Y have the same eigenvectors, so that along each of them the
    problem is that of one output.
    """
    widths, c, Y = np.asarray(problem.widths, float), problem.outputs, problem.targets
    rank = np.linalg.matrix_rank(Y)
    energies, V = np.linalg.eigh(Y.T @ (Y / problem.values[:, None]))
    targets = np.where(energies > 1e-14 * energies.max(initial=0.0), Y @ V, 0.0)
    alone = [eqx.tree_at(lambda p: p.targets, problem, targets[:, a : a + 1]) for a in range(c)]
    q, delta, actions = np.array([_least(p, occam) for p in alone]).T
    if (q == 0).any():
        warn(
            f"ridge is 0, the targets of {c} outputs have rank {rank}, and the least width is "
            f"{int(widths.min())} for {problem.points} points: the order parameter is zero along "
            "directions without targets"
        )

    order = np.argsort(q)
    rho = np.clip(1.0 + delta[order] / widths[:, None], 0.0, None)
    converges = widths.min() > problem.points + c - rank - 1
    value = joint_of(problem).laplace() if converges else float("inf")
    return MatrixSaddle(problem, (V * q) @ V.T, delta[order], rho, float(actions.sum()), value)


def _least(problem, occam):
    """Return q, delta and action of the least stationary point of one output, or of q = 0."""
    points = stationary_points(problem, occam)
    if points:
        return points[0].q, points[0].delta, points[0].action
    return 0.0, -float(problem.points), collapsed(problem)[1]


def _shared(q, widths):
    """Return the root d > -min N of ``prod(1 + d / N_l) = q``."""

    def excess(u):
        return np.log1p(least * np.expm1(u) / widths).sum() - np.log(q)

    # In u, with d = min N (exp(u) - 1), every number is allowed, and the slope is at least 1.
    least, reach = widths.min(), abs(np.log(q)) + 1.0
    u = brentq(excess, -reach if q < 1 else -1.0, reach if q > 1 else 1.0, xtol=1e-15, rtol=1e-15)
    return float(least * np.expm1(u))
