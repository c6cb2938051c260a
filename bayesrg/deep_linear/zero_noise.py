# SPDX-License-Identifier: Apache-2.0
"""Interpolation: evidence and moments of the order parameter without noise, in closed form."""

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln

from .meijer import log_meijer_g
from .problem import Problem


def log_tilted(problem: Problem, k: float) -> float:
    r"""Logarithm of the average of :math:`q^k\, p(y|q)` over the prior of q, without noise.

    :math:`-\frac P2\log 2\pi - \frac12\log|K| + (k - \frac P2)\log\frac s2 - \sum\log\Gamma(b_l)
    + \log G(z\,|\,P/2 - k, b)`, with :math:`s = y^TK^{-1}y` and :math:`z = (s/2)\prod b_l`; at
    k = 0 the log evidence.

    Parameters
    ----------
    problem : Problem
        With ridge 0 and at least one hidden layer.
    k : power, a real number

    Returns
    -------
    () in units of the standard network; infinite where the average diverges

    References
    ----------
    arXiv 2212.14457, 2104.11734.
    """
    b, half = problem.shapes, problem.points / 2.0
    constant = -half * np.log(2 * np.pi) - 0.5 * np.log(problem.values).sum()
    if problem.power == 0:  # z = 0
        if (b - half + k <= 0).any():
            return float("inf")
        return float(constant + ((half - k) * np.log(b) + gammaln(b - half + k) - gammaln(b)).sum())
    scale = np.log(problem.power / 2.0)
    log_g = log_meijer_g(scale + np.log(b).sum(), np.append(b, half - k))
    return float(constant + (k - half) * scale - gammaln(b).sum() + log_g)


def collapsed(problem: Problem) -> tuple[Float[np.ndarray, " layer"], float]:
    r"""Factors and least action of an output without noise and targets, layer by layer.

    :math:`A = \sum_l[\frac{N_l}2(\rho_l - 1 - \log\rho_l) + \frac P2\log\rho_l] +
    \frac12\sum_i\log 2\pi\kappa_i` has its least value at :math:`\rho_l = 1 - P/N_l`, at zero for
    a width of P or below; there the action has a limit at P, and falls forever below.

    Returns
    -------
    rho : (L,)
    action : ()
    """
    widths, points = np.asarray(problem.widths, float), float(problem.points)
    rho = np.clip(1.0 - points / widths, 0.0, None)
    if widths.min() < points:
        return rho, -np.inf
    bent = (points - widths) * np.log(np.where(rho > 0, rho, 1.0))
    action = 0.5 * (widths * (rho - 1.0) + bent).sum()
    return rho, float(action + 0.5 * np.log(2 * np.pi * problem.values).sum())
