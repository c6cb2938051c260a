# SPDX-License-Identifier: Apache-2.0
"""All stationary points of the action of the order parameter of one output."""

import equinox as eqx
import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln

from .problem import Problem, in_parts

_RESOLUTION = 0.02  # largest step of the scan, in log q


class Stationary(eqx.Module):
    r"""One stationary point of the action.

    Attributes
    ----------
    log_q, q : float, order parameter and its logarithm
    delta : float, the number that all layers share, :math:`\rho_l = 1 + \Delta/N_l`
    action : float, minus the log density of targets and layer factors, to leading order
    minimum : bool, True for a minimum, False for a maximum along :math:`\log q`
    log_evidence : float, Laplace's approximation around this point; nan at a maximum
    sd_log_q : float, standard deviation of :math:`\log q` around it; nan at a maximum
    """

    log_q: float
    q: float
    delta: float
    action: float
    minimum: bool
    log_evidence: float
    sd_log_q: float


def stationary_points(problem: Problem, occam: bool = True) -> list[Stationary]:
    r"""Return all stationary points of the action, least action first.

    They are the roots of :math:`\Delta = \Delta(q)` with :math:`q = \prod_l(1 + \Delta/N_l)`. There
    is none where q goes to zero: without noise, without targets and with a width not above the
    number of points. If ``occam`` is False, the determinant of the likelihood is not part of the
    action but a prefactor of the evidence (mean-field limit).
    """
    # The search is along Delta = N_min (exp(u) - 1), where log q is an explicit function of u,
    # with a slope of at most L. Without noise the root is unique. With noise the scan takes steps
    # of at most 0.02 in log q between exact bounds, and refines every change of sign.
    widths = np.asarray(problem.widths, float)
    if not widths.size:
        return [_point(problem, widths, float(problem.excess(0.0, occam)), True, occam)]
    least = widths.min()
    unique, count = np.unique(widths, return_counts=True)

    def log_q(u):
        ratio = np.expm1(np.asarray(u))[..., None] * (least / unique)
        return (count * np.log1p(ratio)).sum(-1)

    def slope(u):
        return least * np.expm1(u) - problem.excess(log_q(u), occam)

    if problem.ridge == 0 and problem.power == 0:
        if occam and problem.values.size >= least:
            return []
        delta = -float(problem.values.size) if occam else 0.0
        return [_point(problem, widths, delta, True, occam)]

    low = high = 0.0
    while slope(low) >= 0:
        low = 2.0 * low - 1.0
    if problem.ridge == 0:
        while slope(high) <= 0:
            high = 2.0 * high + 1.0
        ends = [(low, high, True)]
    else:
        # Bounds of the roots: Delta(q) is at least -min(rank, q tr K / T) and, since the product
        # kappa q T is at most C^2 / 4, at most sum y^2 / 4T.
        trace = problem.values.sum() / problem.ridge if occam else 0.0
        rank = float(problem.values.size)
        while least * np.expm1(low) > -min(rank, np.exp(log_q(low)) * trace):
            low = 2.0 * low - 1.0

        step = _RESOLUTION / widths.size
        high = np.log1p((problem.target**2).sum() / (4.0 * problem.ridge) / least) + step
        u = np.linspace(low, high, int(np.ceil((high - low) / step)) + 1)
        rises = in_parts(slope, u, problem.values.size) > 0
        ends = [
            (u[i], u[i + 1], bool(rises[i + 1])) for i in np.flatnonzero(rises[1:] != rises[:-1])
        ]

    points = []
    for a, b, minimum in ends:
        u = brentq(slope, a, b, xtol=1e-15, rtol=1e-14)
        points.append(_point(problem, widths, float(least * np.expm1(u)), minimum, occam))
    return sorted(points, key=lambda point: point.action)


def _point(problem, widths, delta, minimum, occam):
    """Return the stationary point at ``delta``, with its action, width and evidence."""
    rho = 1.0 + delta / widths
    log_q = float(np.log(rho).sum())
    rate = float((widths / 2.0 * (rho - 1.0 - np.log(rho))).sum())
    prefactor = -0.5 * float(problem.log_det(log_q))
    action = rate + 0.5 * float(problem.misfit(log_q)) - (prefactor if occam else 0.0)

    # In the logarithms of the layer factors the Hessian is this diagonal plus a rank-one matrix
    # (the curvature of the likelihood, which depends on their sum alone). So its determinant is
    # that of the diagonal times ``stretch``, and spread / stretch is the variance of the sum.
    b, diagonal = widths / 2.0, widths * rho / 2.0
    spread = float((1.0 / diagonal).sum())
    stretch = 1.0 + float(problem.curvature(log_q, occam)) * spread
    log_evidence = sd = float("nan")
    if minimum and stretch > 0:
        front = b * np.log(b) - b - gammaln(b) + 0.5 * np.log(2 * np.pi / diagonal)
        log_evidence = -action + float(front.sum()) - 0.5 * float(np.log(stretch))
        log_evidence += 0.0 if occam else prefactor
        log_evidence += problem.points * problem.log_scale  # in units of y
        sd = float(np.sqrt(spread / stretch))
    return Stationary(log_q, float(np.exp(log_q)), delta, action, minimum, log_evidence, sd)
