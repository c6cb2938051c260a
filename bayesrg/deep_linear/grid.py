# SPDX-License-Identifier: Apache-2.0
"""Prior and posterior of a scalar order parameter on a grid in its logarithm."""

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, logsumexp, polygamma, psi

from .meijer import log_meijer_g
from .problem import Problem, in_parts
from .stationary import stationary_points

_EDGE = np.log(1e-14)  # a tail ends where one node has this share of the total weight
_MOST = 200_000  # points of a grid


def log_prior(log_q, shapes):
    r"""Return the prior log density of :math:`\log q` at ``log_q`` (g,), as (g,).

    q is a product of independent variables Gamma(b) / b with the ``shapes`` b (L,). The density is
    :math:`G(q\prod b_l\,|\,b)/\prod\Gamma(b_l)` (arXiv 2212.14457).
    """
    return log_meijer_g(log_q + np.log(shapes).sum(), shapes) - gammaln(shapes).sum()


def weigh(
    problem: Problem, tilt: float = 0.0, factors: Callable | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return a grid over all of :math:`q^k p(q) p(y|q)` and weights of the trapezoid rule.

    The grid first covers the prior, and 12 standard deviations around every minimum of the action
    (there may be two, far apart). It then grows until both ends have a weight below 1e-14 of the
    total. Six points per standard deviation give all digits, because the integrand is analytic.

    Parameters
    ----------
    problem : Problem
    tilt : float
        Power k. The integral must converge; this is not checked.
    factors : callable, optional
        From log q (g,) to the logarithms (g, m) of m further factors. The grid then covers the
        product of the integrand with each of them.

    Returns
    -------
    log_q : (g,), equidistant
    log_weight : (g,)
        Logarithm of prior times likelihood times step, without :math:`q^k` and the factors.
    """
    b = problem.shapes
    if not b.size:  # no hidden layer: the order parameter is one
        return np.zeros(1), problem.log_likelihood(np.zeros(1))

    mean, sd = (psi(b) - np.log(b)).sum(), np.sqrt(polygamma(1, b).sum())
    low, high, finest = mean - max(10.0 * sd, 30.0 / b.min()), mean + 8.0 * sd, sd
    for point in stationary_points(problem):
        if np.isfinite(point.sd_log_q):
            low = min(low, point.log_q - 12.0 * point.sd_log_q)
            high = max(high, point.log_q + 12.0 * point.sd_log_q)
            finest = min(finest, point.sd_log_q)
    step = min(finest / 6.0, (high - low) / 800.0)
    if (high - low) / step > _MOST:
        raise ValueError(
            f"widths {problem.widths} make the order parameter so sharp that a grid would need "
            f"{(high - low) / step:.0f} points; use saddle(...), whose error is then negligible"
        )

    def evaluate(first, last):
        x = step * np.arange(first, last)
        likelihood = in_parts(problem.log_likelihood, x, problem.values.size)
        return x, log_prior(x, b) + likelihood + np.log(step)

    # Nodes are integers times the step, so that a part added at an end continues the grid.
    first, last = int(np.floor(low / step)), int(np.ceil(high / step)) + 1
    x, w = evaluate(first, last)
    while True:
        tilted = (w + tilt * x)[:, None]
        if factors is not None:
            tilted = tilted + factors(x)
        edge = _EDGE + logsumexp(tilted, axis=0)
        more = (last - first) // 4
        if (tilted[0] > edge).any():
            ends, first = evaluate(first - more, first), first - more
            x, w = np.append(ends[0], x), np.append(ends[1], w)
        elif (tilted[-1] > edge).any():
            ends, last = evaluate(last, last + more), last + more
            x, w = np.append(x, ends[0]), np.append(w, ends[1])
        else:
            return x, w
