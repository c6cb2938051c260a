# SPDX-License-Identifier: Apache-2.0
"""The Meijer G function of products of Gamma variables, by a rule on its saddle path."""

import numpy as np
from scipy.special import loggamma, polygamma, psi

from .. import _checks
from .._checks import ArrayLike

_STEP = 0.05  # of w; halving it changes no digit that is kept
_SWAMPED = 1e10  # an exponent whose round-off exceeds what the rule adds up
_BEND = 0.5  # tangent of the angle by which the path leans to the left far out
_AT_ONCE = 4096  # values of z whose nodes are held in memory together


def log_meijer_g(log_z: ArrayLike, b: ArrayLike) -> np.ndarray:
    r"""Logarithm of the Meijer function :math:`G^{m,0}_{0,m}(z\,|\,b_1..b_m)`.

    :math:`G = \frac{1}{2\pi i}\int \prod_k\Gamma(b_k + t)\, z^{-t}\, dt`, along a path through the
    saddle point. It is the density of a product of Gamma variables: with :math:`q/c` their
    product, :math:`p(\log q) = G(q/c|b)/\prod\Gamma(b_k)`.

    Parameters
    ----------
    log_z : (...) logarithm of the argument, any real number
    b : (m,) parameters, any real numbers; equal ones are grouped, so m may be thousands

    Returns
    -------
    (...)
        In float64, on the host. Absolute error about 1e-12, or the round-off of
        :math:`\sum\log\Gamma(b_k)` where that is larger.

    Raises
    ------
    ValueError
        For empty b, or non-finite numbers.

    Notes
    -----
    Nodes are :math:`t_0 + \sigma[i\sinh w - \tau(\cosh w - 1)]` with :math:`t_0` the saddle,
    :math:`\sigma` its width and w equidistant: a hyperbola that leaves the saddle upright and
    bends to the left, as the path of steepest descent does. On the upright line the step must be
    finer than the distance to the nearest pole, which shrinks like :math:`1/|\log z|`; here the
    number of nodes does not depend on z.

    References
    ----------
    arXiv 2212.14457, 2104.11734 for the function; the rule is the package's own.
    """
    _checks.on_host("deep_linear.log_meijer_g", log_z, b)
    log_z = _checks.on_64_bits("log_z", log_z)
    b = _checks.on_64_bits("b", b, ndim=1)
    if not b.size:
        raise ValueError("b is empty; a product of no variables has no density")
    flat = log_z.ravel()
    pieces = [_rule(flat[i : i + _AT_ONCE], b) for i in range(0, flat.size, _AT_ONCE)]
    return np.concatenate([*pieces, np.empty(0)]).reshape(log_z.shape)


def _rule(log_z, b):
    """Log G at log_z (n,): the trapezoid rule in w, on the upper half of the path."""
    b, count = np.unique(b, return_counts=True)
    shift = b - b.min()
    d = _saddle(log_z, shift, count)[:, None]  # distance of the saddle from the nearest pole
    width = 1.0 / np.sqrt((count * polygamma(1, d + shift)).sum(-1))
    reach = np.arcsinh(14.0 + 60.0 / (count.sum() * width)).max()
    if not np.isfinite(reach):
        raise ValueError(
            f"log_z (of a prior log_q) runs from {log_z.min():.3g} to {log_z.max():.3g}, beyond "
            "what the rule resolves; G is zero or infinite there in 64 bits"
        )
    w = np.linspace(0.0, reach, int(np.ceil(reach / _STEP)) + 1)
    t = d + width[:, None] * (1j * np.sinh(w) - _BEND * (np.cosh(w) - 1.0))
    exponent = -(t - b.min()) * log_z[:, None]
    for s, m in zip(shift, count, strict=True):
        exponent += m * loggamma(t + s)
    top = exponent.real[:, :1]
    lost = np.abs(top) > _SWAMPED  # there the saddle alone has all digits
    fall = np.where(lost, 0.0, exponent - top)
    terms = (np.exp(fall) * (1j * np.cosh(w) - _BEND * np.sinh(w))).imag
    terms[:, 0] *= 0.5
    total = np.where(lost[:, 0], np.sqrt(np.pi / 2.0), terms.sum(-1) * w[1])
    return top[:, 0] + np.log(total * width / np.pi)


def _saddle(log_z, shift, count):
    """Root d > 0 of ``sum_k count_k psi(d + shift_k) = log z``, for every entry of log_z.

    The sum is concave and rises, so Newton's method arrives from below.
    """
    mean = log_z / count.sum()
    d = np.where(mean > -2.0, np.exp(np.maximum(mean, -2.0)) + 0.5, -1.0 / (mean - psi(1.0)))
    for _ in range(100):
        x = d[:, None] + shift
        step = ((count * psi(x)).sum(-1) - log_z) / (count * polygamma(1, x)).sum(-1)
        new = np.maximum(d - step, 0.1 * d)
        if (np.abs(new - d) <= 1e-12 * d).all():
            break
        d = new
    return d
