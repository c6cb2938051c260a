# SPDX-License-Identifier: Apache-2.0
"""Evidence and moments of the order parameter without noise (interpolation), in closed form."""

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from .meijer import log_meijer_g
from .problem import Problem


def log_tilted(problem: Problem, k: float) -> float:
    r"""Return the log of the prior average of :math:`q^k\, p(y|q)` for a real k, without noise.

    :math:`-\frac P2\log 2\pi - \frac12\log|K| + (k - \frac P2)\log\frac s2 - \sum\log\Gamma(b_l)
    + \log G(z\,|\,P/2 - k, b)`, with :math:`s = y^TK^{-1}y` and :math:`z = (s/2)\prod b_l` (arXiv
    2212.14457, 2104.11734). For k = 0 it is the log evidence, in units of the standard network. It
    is infinite where the average diverges. ``problem`` has at least one hidden layer.
    """
    b, half = problem.shapes, problem.points / 2.0
    constant = -half * np.log(2 * np.pi) - 0.5 * np.log(problem.values).sum()

    if problem.power == 0:  # z = 0, where G is a product of Gamma functions
        if (b - half + k <= 0).any():
            return float("inf")
        return float(constant + ((half - k) * np.log(b) + gammaln(b - half + k) - gammaln(b)).sum())

    scale = np.log(problem.power) - np.log(2.0)
    log_g = log_meijer_g(scale + np.log(b).sum(), np.append(b, half - k))
    return float(constant + (k - half) * scale - gammaln(b).sum() + log_g)


def collapsed(problem: Problem) -> tuple[Float[np.ndarray, " layer"], float]:
    r"""Return the layer factors (L,) and the least action of an output without noise and targets.

    :math:`A = \sum_l[\frac{N_l}2(\rho_l - 1 - \log\rho_l) + \frac P2\log\rho_l] +
    \frac12\sum_i\log 2\pi\kappa_i` is least at :math:`\rho_l = 1 - P/N_l` if :math:`N_l > P`, and
    at zero otherwise. For :math:`N_l = P` the action has a limit at zero. If a width is below P it
    falls without bound, and the result is minus infinity.
    """
    widths, points = np.asarray(problem.widths, float), float(problem.points)
    rho = np.clip(1.0 - points / widths, 0.0, None)
    if widths.min() < points:
        return rho, -np.inf
    bent = (points - widths) * np.log(np.where(rho > 0, rho, 1.0))
    action = 0.5 * (widths * (rho - 1.0) + bent).sum()
    return rho, float(action + 0.5 * np.log(2 * np.pi * problem.values).sum())
