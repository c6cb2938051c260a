# SPDX-License-Identifier: Apache-2.0
"""Kernel renormalisation: the posterior of a deep linear network at its saddle point."""

import warnings

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..kernels import Kernel
from ..networks import DeepLinear
from .matrix import MatrixSaddle, matrix_saddle
from .problem import Problem, check_level, prepare
from .stationary import Stationary, stationary_points
from .zero_noise import collapsed


class Saddle(eqx.Module):
    r"""Posterior of wide networks at one value of the order parameter; see `saddle`.

    Attributes
    ----------
    problem : Problem
        The data in the eigenbasis of the kernel, in units of the standard parametrisation.
    q : order parameter: the kernel is renormalised to qK, the ridge to T/q
    rho : (L,) factors of the layers, whose product q is
    delta : the number that all layers share, :math:`\rho_l = 1 + \Delta/N_l`
    action : its least value, in units of the standard network; minus infinity if it has none
    stationary : every stationary point, least action first; empty if q is zero
    log_evidence : Laplace's approximation, summed over the minima, in the units of y; infinite if
        q is zero, where the evidence diverges
    """

    problem: Problem
    q: float
    rho: Float[np.ndarray, " level"]
    delta: float
    action: float
    stationary: list[Stationary]
    log_evidence: float

    def predict(self, X_new: ArrayLike):
        """Return posterior mean and variance of the function at X_new (m, d), noise excluded.

        Returns
        -------
        mean : (m,)
        variance : (m,)
        """
        problem = self.problem
        cross, prior = problem.covariances(X_new)
        if self.q > 0:
            share = problem.learnt(np.log(self.q)) / problem.values
        else:  # without noise the mean does not depend on q
            share = 1.0 / problem.values
        mean = cross @ (share * problem.target) / problem.output_scale
        variance = self.q * (prior - cross**2 @ share)
        return mean, np.clip(variance, 0.0, None) / problem.output_scale**2

    def gain(self, level: int) -> float:
        r"""Growth of a feature kernel along the target, as in `Exact.gain`, in the wide limit.

        With equal widths, no noise and :math:`\alpha = P/N` it is
        :math:`1 + (u - 1 + \alpha)(u^l - 1)/(u - 1)`, and in mean field :math:`u^l`, with
        :math:`u = \rho`. ``level`` is l, from 0 to L.
        """
        problem = self.problem
        if self.q == 0 or problem.power == 0:
            return float("nan")
        learnt = problem.learnt(np.log(self.q))
        along = float((learnt * problem.target**2 / problem.values).sum()) ** 2 / problem.power
        return 1.0 + along * sum(self._pulls(level))

    def feature_kernel(self, level: int) -> Float[np.ndarray, "point point_bis"]:
        r"""Posterior mean of :math:`H_l H_l^T/N_l`, (n, n), to leading order in the width.

        The prior kernel and a rank-one part along the mean predictor; ``level`` is l, 0 to L.
        """
        problem, squares = self.problem, self.problem.scales**2
        above = squares[level:].prod()
        U = problem.vectors
        prior = (U * (problem.values / above)) @ U.T
        if self.q == 0:  # without targets nothing is learnt
            return prior
        pulls = sum(self._pulls(level))
        mean = U @ (problem.learnt(np.log(self.q)) * problem.target)
        return prior + pulls / above * np.outer(mean, mean)

    def _pulls(self, level):
        """One over width and 1 / q_(l), for every layer up to ``level``."""
        check_level(level, self.rho.size)
        factors = np.cumprod(self.rho[::-1])[::-1]
        return [1.0 / (self.problem.widths[i] * factors[i]) for i in range(level)]


def saddle(
    net: DeepLinear,
    X: ArrayLike,
    y: ArrayLike,
    *,
    occam: bool | None = None,
    kernel: Kernel | ArrayLike | None = None,
) -> Saddle | MatrixSaddle:
    r"""Take the limit of wide layers: every stationary point of the action, and the least.

    :math:`A = \sum_l \frac{N_l}{2}(\rho_l - 1 - \log\rho_l) + \frac12\sum_i[\log 2\pi C_i +
    \tilde y_i^2/C_i]`, :math:`C_i = \kappa_i q + T`, at :math:`q = \prod\rho_l`.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d)
    y : (n,), or (n, c) for c outputs
    occam : bool, optional
        Whether the determinant moves the saddle. By default it does in the standard
        parametrisation (as many points as units), and does not in mean field, whose limit is that
        of wide layers at a fixed number of points.
    kernel : Kernel, or (n, n), optional
        As in `exact`. With the kernel of a wide non-linear network of odd activation this is the
        effective action of one hidden layer, and for more layers an approximation (stacked
        Wishart matrices).

    Returns
    -------
    Saddle, or MatrixSaddle for several outputs
        In float64. Its error is of the order of 1 / width. For several outputs the search is for
        the least action, and other stationary points are not listed.

    Raises
    ------
    ValueError
        For mismatched shapes or non-finite data, or without noise for targets outside the range
        of the kernel; for several outputs also for a width below their number.

    Warns
    -----
    UserWarning
        If another minimum lies within log(1000) of the least, so that both matter; or if the
        order parameter is zero, of one output or along a direction of several: no noise, no
        targets, and a width not above the number of points.

    References
    ----------
    arXiv 2012.04030, 2209.04882, 2406.03260; 2406.16689 for mean field; 2605.29684 for stacked
    Wishart matrices.
    """
    problem = prepare(net, X, y, kernel)
    if occam is not None:
        occam = _checks.flag("occam", occam)
    occam = net.parametrisation == "standard" if occam is None else occam
    if net.outputs > 1:
        return matrix_saddle(problem, occam)
    points = stationary_points(problem, occam)
    widths = np.asarray(problem.widths, float)
    if not points:
        warnings.warn(
            f"ridge is 0, the targets are zero and the least width is {min(problem.widths)} for "
            f"{problem.points} points: the order parameter is zero",
            stacklevel=2,
        )
        rho, action = collapsed(problem)
        return Saddle(problem, 0.0, rho, -float(problem.points), action, [], float("inf"))
    minima = [point for point in points if point.minimum]
    best = minima[0]
    near = [point for point in minima if point.action < best.action + np.log(1e3)]
    if len(near) > 1:
        listed = "; ".join(f"q {point.q:.6g} at action {point.action:.6g}" for point in near)
        warnings.warn(
            f"the action has several minima of like depth ({listed}); the least is taken, and "
            "exact(...) weighs them all",
            stacklevel=2,
        )
    log_evidence = float(np.logaddexp.reduce([point.log_evidence for point in minima]))
    rho = 1.0 + best.delta / widths
    return Saddle(problem, best.q, rho, best.delta, best.action, points, log_evidence)
