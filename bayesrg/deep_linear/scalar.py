# SPDX-License-Identifier: Apache-2.0
"""Exact posteriors of deep linear networks of one output, at any widths, without sampling."""

import equinox as eqx
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.special import logsumexp

from .. import _checks
from .._checks import ArrayLike
from ..kernels import Kernel
from ..networks import DeepLinear
from .draws import ExactDraws, stratified
from .grid import log_prior, weigh
from .meijer import log_meijer_g
from .problem import Problem, prepare
from .zero_noise import log_tilted


class Exact(eqx.Module):
    r"""Posterior of a deep linear network of one output, from `exact`.

    Given the order parameter q the posterior is that of a Gaussian process with kernel qK: kernel
    ridge regression with the effective ridge T/q. All other results are averages over q.

    Attributes
    ----------
    problem : Problem, the data in the eigenbasis of the kernel, in units of the standard network
    log_q : (g,), grid, equidistant, where the posterior has weight
    weights : (g,), posterior probability of each point of the grid
    log_evidence : float, log density of y, in the units of y
    """

    problem: Problem
    log_q: Float[np.ndarray, " node"]
    weights: Float[np.ndarray, " node"]
    log_evidence: float

    @property
    def mean_log_q(self) -> float:
        r"""Posterior mean of :math:`\log q`."""
        return float(self.weights @ self.log_q)

    @property
    def sd_log_q(self) -> float:
        r"""Posterior standard deviation of :math:`\log q`."""
        return float(np.sqrt(self.weights @ (self.log_q - self.mean_log_q) ** 2))

    @property
    def effective_ridge(self) -> Float[np.ndarray, " node"]:
        r"""Ridge T/q for the kernel of infinitely wide layers, at every point of the grid, (g,).

        In mean field it is :math:`T\gamma^2/q`, for the kernel with an ``output_scale`` of 1.
        """
        return self.problem.ridge * np.exp(-self.log_q)

    @property
    def layer_excess(self) -> float:
        r"""Posterior mean of :math:`\Delta(q)`: the change of every layer from its prior.

        At any widths and any noise it equals :math:`E\|z_l\|^2 - N_l N_{l-1}` for the standardised
        weights of every layer, and :math:`N_l(E\rho_l - 1)`.
        """
        return float(self.weights @ self.problem.excess(self.log_q))

    def moment(self, k: ArrayLike) -> float:
        """Return the posterior mean of ``q**k`` for a real k; infinite where it diverges."""
        problem, k = self.problem, _checks.number("k", k)
        if not problem.widths or k == 0:
            return 1.0
        if problem.ridge == 0:
            return float(np.exp(log_tilted(problem, k) - log_tilted(problem, 0.0)))
        if k <= -problem.shapes.min():  # the likelihood is finite at q = 0
            return float("inf")
        log_q, log_weight = weigh(problem, k)
        return float(np.exp(logsumexp(log_weight + k * log_q) - logsumexp(log_weight)))

    def predict(self, X_new: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (m,) and variance (m,) of the function at X_new (m, d), noise excluded.

        The variance is the sum of `variance_parts`.
        """
        mean, within, between = self._moments(X_new)
        return mean, within + between

    def variance_parts(self, X_new: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the two parts, (m,) each, of the posterior variance at X_new (m, d).

        The first is the mean over q of the variance given q. The second is the variance over q of
        the mean given q; it is zero without noise and at infinite width.
        """
        return self._moments(X_new)[1:]

    def _moments(self, X_new):
        """Return the mean and the two parts of the variance at X_new (m, d), three of (m,)."""
        problem, w = self.problem, self.weights
        cross, prior = problem.covariances(X_new)
        q, units = np.exp(self.log_q), problem.output_scale
        share = problem.learnt(self.log_q) / problem.values
        within = (w @ q) * prior - cross**2 @ (w @ (q[:, None] * share))

        # weights of the modes in the mean predictor given each q, (g, r), and their covariance
        coefficients = share * problem.target
        mean = w @ coefficients
        covariance = (coefficients - mean).T @ (w[:, None] * (coefficients - mean))
        between = ((cross @ covariance) * cross).sum(-1) * (problem.ridge > 0)
        within, between = (np.clip(v, 0.0, None) / units**2 for v in (within, between))
        return cross @ mean / units, within, between

    def log_density(self, X_new: ArrayLike, y_new: ArrayLike) -> Float[np.ndarray, " point_new"]:
        """Return the log density of each new observation ``y_new`` (m,) at ``X_new`` (m, d), (m,).

        Noise is included. Without noise an input whose output is certain has no density, and
        raises ValueError.
        """
        problem = self.problem
        cross, prior = problem.covariances(X_new)
        _checks.on_host("a posterior of deep_linear", y_new)
        y_new = _checks.on_64_bits("y_new", y_new, _checks.targets, n=cross.shape[0])
        y_new = y_new.reshape(-1) * problem.output_scale

        def terms(log_q):
            """Log density of each observation given q, (g, m)."""
            q, share = np.exp(log_q)[:, None], problem.learnt(log_q) / problem.values
            variance = q * (prior - share @ (cross**2).T)
            if problem.ridge == 0 and (variance <= 1e-12 * q * prior).any():
                raise ValueError(
                    "ridge is 0 and an output at X_new is certain given the training data, so that "
                    "it has no density; give a ridge above zero, or inputs outside their span"
                )
            variance = np.clip(variance, 0.0, None) + problem.ridge
            deviation = y_new - share * problem.target @ cross.T
            return -0.5 * (deviation**2 / variance + np.log(2 * np.pi * variance))

        # An unlikely observation has its weight at order parameters that are unlikely given the
        # data, so that the grid must cover the product.
        log_q, log_weight = weigh(problem, factors=terms)
        mixed = logsumexp(terms(log_q) + log_weight[:, None], axis=0) - logsumexp(log_weight)
        return mixed + problem.log_scale

    def feature_kernel(self, level) -> Float[np.ndarray, "point point_bis"]:
        r"""Return the posterior mean of :math:`H_l H_l^T/N_l` at the training inputs, (n, n).

        ``level`` is l, from 0 (the inputs) to L.
        """
        problem = self.problem
        _checks.whole("level", level, least=0, most=len(problem.widths))
        squares = problem.scales**2
        inner = np.diag(problem.input_values)
        share = problem.learnt(self.log_q)
        mean = share * problem.target

        # Layer by layer, from the inputs up, in the eigenbasis of the kernel: N - 1 of N units keep
        # the prior given the layer below, and one combination of units follows the function f.
        for i, width in enumerate(problem.widths[:level]):
            weight = self._inverse(i + 1)
            second = mean.T @ (weight[:, None] * mean) + np.diag(weight @ (problem.ridge * share))
            prior = (1.0 - 1.0 / width) * squares[i] * inner
            inner = prior + second / (width * squares[i + 1 :].prod())
        return problem.vectors @ inner @ problem.vectors.T

    def gain(self, level) -> float:
        r"""Return the gain of layer ``level``: how much its kernel grows along the target.

        :math:`y^TK_l^+E[\Phi_l]K_l^+y / y^TK_l^+y` with the prior mean :math:`K_l`. The gain is 1
        under the prior and at infinite width, and nan without targets. ``level`` is l, from 0 to L.
        """
        problem = self.problem
        _checks.whole("level", level, least=0, most=len(problem.widths))
        if problem.power == 0:
            return float("nan")
        learnt, ratio = problem.learnt(self.log_q), problem.target / problem.values

        # mean of (y^T K^+ f)^2 given q: the square of its mean, plus its variance
        along = (learnt @ (ratio * problem.target)) ** 2 + problem.ridge * learnt @ ratio**2
        gain = 1.0
        for i, width in enumerate(problem.widths[:level]):
            pull = self._inverse(i + 1) @ along
            gain = (1.0 - 1.0 / width) * gain + pull / (width * problem.power)
        return float(gain)

    def inverse_factor(self, level) -> float:
        r"""Return the posterior mean of :math:`1/q_{(l)}`, for the factors of layers l and above.

        :math:`q_{(l)}` is the product of the factors of the layers l..L, so that level 1 gives the
        mean of 1/q. ``level`` is l, from 1 to L. The mean is infinite with noise and a width of 1
        or 2 in one of these layers.
        """
        problem = self.problem
        _checks.whole("level", level, most=len(problem.widths))
        # Only the prior suppresses small q if the likelihood is finite at q = 0, or even grows
        # there because all targets are zero without noise.
        if problem.ridge > 0 or problem.power == 0:
            steepness = 2 + (0 if problem.ridge else problem.points)
            if min(problem.widths[level - 1 :]) <= steepness:
                return float("inf")
        if level == 1:
            return self.moment(-1.0)

        # Towards small q the prior falls as q^b with the least b, and with 1 / q_(l) the b of the
        # layers from l on are one less.
        b = problem.shapes
        steep = min(b[: level - 1].min(), b[level - 1 :].min() - 1.0)
        log_q, log_weight = weigh(problem, steep - b.min())
        log_inverse = _log_inverse(problem, log_q, level)
        return float(np.exp(logsumexp(log_weight + log_inverse) - logsumexp(log_weight)))

    def draws(self, count: int, *, key: Array | int) -> ExactDraws:
        """Draw ``count`` order parameters, and the outputs at the training inputs given each.

        One draw comes from each of ``count`` equal parts of the posterior of q, in random order.
        ``key`` is a JAX key or an integer.
        """
        return stratified(self.problem, self.log_q, self.weights, count, key)

    def _inverse(self, level):
        """Return the posterior probability of q times the mean of 1 / q_(l) given q, (g,)."""
        return np.exp(np.log(self.weights) + _log_inverse(self.problem, self.log_q, level))


def _log_inverse(problem, log_q, level):
    r"""Return the log of the mean of 1 / q_(l) given q, (g,), as a ratio of two densities.

    :math:`\prod_{k\ge l} b_k\, G(q/c\,|\,b_k - 1 \text{ for } k\ge l) / G(q/c\,|\,b)` with
    :math:`1/c = \prod b_k`.
    """
    if level == 1:
        return -log_q
    b = problem.shapes
    above = np.arange(1, b.size + 1) >= level
    log_z = log_q + np.log(b).sum()
    return np.log(b[above]).sum() + log_meijer_g(log_z, b - above) - log_meijer_g(log_z, b)


def exact(
    net: DeepLinear,
    X: ArrayLike,
    y: ArrayLike,
    *,
    kernel: Kernel | ArrayLike | None = None,
) -> Exact:
    r"""Return the exact posterior of a deep linear network of one output, at any widths.

    The order parameter :math:`q = \prod_l \chi^2_{N_l}/N_l` of hidden layers of widths :math:`N_l`
    has the prior density :math:`p(\log q) = G(q\prod b_l|b)/\prod\Gamma(b_l)` with Meijer's
    function G and :math:`b_l = N_l/2`. Given q, the targets are normal with covariance
    :math:`qK+T`, where K is the kernel at the inputs and T the ridge. One integral over
    :math:`\log q` remains; without noise the evidence has a closed form. All is computed on the
    host, in float64.

    Parameters
    ----------
    net : DeepLinear
        With one output; a ridge of zero interpolates.
    X : (n, d), inputs
    y : (n,), targets
    kernel : Kernel, or (n, n), optional
        Covariance K of an output at q = 1, in place of the kernel of the inputs, as if the network
        took fixed features of X as inputs. For a mean-field network give K of the standard network.
        A matrix does not allow predictions at new inputs.

    Raises
    ------
    NotImplementedError
        For several outputs.
    ValueError
        For mismatched shapes or non-finite data. Without noise: for targets outside the range of
        the kernel; for targets that are all zero if a width is not above the number of points,
        because the evidence then diverges.

    References
    ----------
    arXiv 2012.04030, 2212.14457, 2406.16689 without noise; 2406.03260 for the mixture.
    """
    _checks.instance("net", net, DeepLinear, _checks.NET)
    if net.outputs > 1:
        raise NotImplementedError(
            f"the network has {net.outputs} outputs and this solver needs one; sample the "
            "collapsed model (deep_linear_collapsed) for several"
        )
    problem = prepare(net, X, y, kernel)
    least = min(problem.widths, default=np.inf)
    if problem.ridge == 0 and problem.power == 0 and least <= problem.points:
        raise ValueError(
            f"ridge is 0, the {problem.points} targets are zero and the least width is {least}: "
            "the evidence diverges unless every width exceeds the number of targets; give a ridge "
            "above zero"
        )

    log_q, log_weight = weigh(problem)
    if problem.ridge == 0 and problem.widths:
        log_evidence = log_tilted(problem, 0.0)
    else:
        log_evidence = float(logsumexp(log_weight))
    log_evidence += problem.points * problem.log_scale
    weights = np.exp(log_weight - logsumexp(log_weight))
    kept = weights > 1e-40
    return Exact(problem, log_q[kept], weights[kept] / weights[kept].sum(), log_evidence)


def prior_density(widths: ArrayLike, log_q: ArrayLike) -> Float[np.ndarray, "..."]:
    r"""Return the prior density of :math:`\log q`, (...), for a network of one output.

    Divide it by q for the density of q (arXiv 2212.14457). ``widths`` (L,) are those of at least
    one hidden layer, and ``log_q`` (...) is the logarithm of the order parameter.
    """
    _checks.on_host("deep_linear.prior_density", widths, log_q)
    widths = _checks.on_64_bits("widths", widths, _checks.positive, ndim=1)
    if not widths.size:
        raise ValueError("widths is empty; without hidden layers the order parameter is one")
    return np.exp(log_prior(_checks.on_64_bits("log_q", log_q), widths / 2.0))
