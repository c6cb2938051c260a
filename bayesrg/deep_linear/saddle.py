# SPDX-License-Identifier: Apache-2.0
"""Posterior of a wide deep linear network at its saddle point: kernel renormalisation."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from ..kernels import Kernel
from ..networks import DeepLinear
from .matrix import MatrixSaddle, matrix_saddle, moments_given
from .problem import Problem, prepare
from .stationary import Stationary, stationary_points
from .zero_noise import collapsed


class Saddle(eqx.Module):
    r"""Posterior of a wide network of one output at its saddle point, from `saddle`.

    Attributes
    ----------
    problem : Problem, the data in the eigenbasis of the kernel, in units of the standard network
    q : float, order parameter: the kernel is renormalised to qK, the ridge to T/q
    rho : (L,), factors of the layers; their product is q
    delta : float, the number that all layers share, :math:`\rho_l = 1 + \Delta/N_l`
    action : float, least value of the action; minus infinity if it has no lower bound
    stationary : list of Stationary
        All stationary points, least action first; empty if q is zero.
    log_evidence : float
        Laplace's approximation, summed over the minima, in the units of y. Infinite if q is zero,
        because the evidence then diverges.
    """

    problem: Problem
    q: float
    rho: Float[np.ndarray, " level"]
    delta: float
    action: float
    stationary: list[Stationary]
    log_evidence: float

    def predict(self, X_new: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (m,) and variance (m,) of the function at X_new (m, d), noise excluded."""
        mean, variance = moments_given(self.problem, np.array([self.q]), np.eye(1), X_new)
        return mean[:, 0], variance[:, 0]

    def gain(self, level: int) -> float:
        r"""Return the gain of layer ``level``: how much its kernel grows along the target.

        :math:`y^TK_l^+E[\Phi_l]K_l^+y / y^TK_l^+y` with the prior mean :math:`K_l`, in the limit of
        wide layers: 1 under the prior, nan without targets. ``level`` is l, from 0 to L. For equal
        widths and no noise it is :math:`1 + (u - 1 + P/N)(u^l - 1)/(u - 1)` with :math:`u = \rho`,
        and for mean field :math:`u^l`.
        """
        problem = self.problem
        if self.q == 0 or problem.power == 0:
            return float("nan")
        learnt = problem.learnt(np.log(self.q))
        along = float((learnt * problem.target**2 / problem.values).sum()) ** 2 / problem.power
        return 1.0 + along * sum(self._pulls(level))

    def feature_kernel(self, level: int) -> Float[np.ndarray, "point point_bis"]:
        r"""Return the posterior mean of :math:`H_l H_l^T/N_l`, (n, n), to leading order in width.

        It is the prior kernel plus a rank-one part along the mean predictor. ``level`` is l, from
        0 (the inputs) to L.
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
        """Return 1 / (N_l q_(l)) for every layer l up to ``level``."""
        _checks.whole("level", level, least=0, most=self.rho.size)
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
    r"""Return the posterior in the limit of wide layers, at the least minimum of the action.

    :math:`A = \sum_l \frac{N_l}{2}(\rho_l - 1 - \log\rho_l) + \frac12\sum_i[\log 2\pi C_i +
    \tilde y_i^2/C_i]`, :math:`C_i = \kappa_i q + T`, at :math:`q = \prod\rho_l`.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d), inputs
    y : (n,), or (n, c) for c outputs, targets
    occam : bool, optional
        Keep the determinant of the likelihood, :math:`\log 2\pi C_i`, in the action. The default
        is True for the standard parametrisation (as many points as units). It is False for mean
        field, whose limit is that of wide layers at a fixed number of points.
    kernel : Kernel, or (n, n), optional
        Covariance K of an output at q = 1, in place of the kernel of the inputs. With the kernel
        of a wide non-linear network of odd activation, A is the effective action of one hidden
        layer, and an approximation for more layers (stacked Wishart matrices). A matrix does not
        allow predictions at new inputs.

    Returns
    -------
    Saddle, or MatrixSaddle for several outputs
        The error is of order 1 / width. A MatrixSaddle does not list other stationary points.

    Raises
    ------
    ValueError
        For mismatched shapes or non-finite data; without noise, for targets outside the range of
        the kernel; for several outputs, for a width below their number.

    Warns
    -----
    UserWarning
        If another minimum lies within log(1000) of the least one, so that both matter. If the
        order parameter is zero, for one output or along a direction of several: without noise,
        without targets, and with a width not above the number of points.

    References
    ----------
    arXiv 2012.04030, 2209.04882, 2406.03260; 2406.16689 for mean field; 2605.29684 for stacked
    Wishart matrices.
    """
    problem = prepare(net, X, y, kernel)
    occam = net.parametrisation == "standard" if occam is None else _checks.flag("occam", occam)
    if net.outputs > 1:
        return matrix_saddle(problem, occam)
    points = stationary_points(problem, occam)
    widths = np.asarray(problem.widths, float)

    if not points:
        warn(
            f"ridge is 0, the targets are zero and the least width is {min(problem.widths)} for "
            f"{problem.points} points: the order parameter is zero"
        )
        rho, action = collapsed(problem)
        return Saddle(problem, 0.0, rho, -float(problem.points), action, [], float("inf"))

    minima = [point for point in points if point.minimum]
    best = minima[0]
    near = [point for point in minima if point.action < best.action + np.log(1e3)]
    if len(near) > 1:
        listed = "; ".join(f"q {point.q:.6g} at action {point.action:.6g}" for point in near)
        warn(
            f"the action has several minima of similar depth ({listed}); the least is taken; use "
            "exact(...), which includes all of them"
        )
    log_evidence = float(np.logaddexp.reduce([point.log_evidence for point in minima]))
    rho = 1.0 + best.delta / widths
    return Saddle(problem, best.q, rho, best.delta, best.action, points, log_evidence)
