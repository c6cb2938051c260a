# SPDX-License-Identifier: Apache-2.0
"""Meijer's G function for products of Gamma variables, by quadrature through the saddle point."""

import numpy as np
from scipy.special import loggamma, polygamma, psi

_STEP = 0.05  # in w; half of it gives the same digits
_SWAMPED = 1e10  # size of an exponent whose round-off exceeds the sum that the rule computes
_BEND = 0.5  # far out, the path goes this much to the left per unit upwards
_AT_ONCE = 4096  # values of z whose nodes are held in memory together


def log_meijer_g(log_z, b) -> np.ndarray:
    r"""Return the logarithm of Meijer's function :math:`G^{m,0}_{0,m}(z\,|\,b_1..b_m)`, (...).

    :math:`G = \frac{1}{2\pi i}\int \prod_k\Gamma(b_k + t)\, z^{-t}\, dt`. It gives the density of a
    product of Gamma variables: if the product is :math:`q/c`, then
    :math:`p(\log q) = G(q/c|b)/\prod\Gamma(b_k)` (arXiv 2212.14457, 2104.11734).

    ``log_z`` (...) and the parameters ``b`` (m,) are any real numbers. Equal parameters are
    grouped, so m may be thousands. The absolute error is about 1e-12, or the round-off of
    :math:`\sum\log\Gamma(b_k)` where that is larger.

    Notes
    -----
    The nodes are :math:`t_0 + \sigma[i\sinh w - \tau(\cosh w - 1)]` with the saddle :math:`t_0`,
    its width :math:`\sigma` and equidistant w. They lie on a hyperbola that leaves the saddle
    vertically and bends to the left, like the path of steepest descent. A vertical line would need
    a step smaller than the distance to the nearest pole, which shrinks like :math:`1/|\log z|`. On
    the hyperbola the number of nodes does not depend on z. The rule is the package's own.
    """
    log_z, b = np.asarray(log_z, float), np.asarray(b, float)
    flat = log_z.ravel()
    pieces = [_rule(flat[i : i + _AT_ONCE], b) for i in range(0, flat.size, _AT_ONCE)]
    return np.concatenate([*pieces, np.empty(0)]).reshape(log_z.shape)


def _rule(log_z, b):
    """Return log G at log_z (n,) by the trapezoid rule in w, on the upper half of the path."""
    b, count = np.unique(b, return_counts=True)
    shift = b - b.min()
    d = _saddle(log_z, shift, count)[:, None]  # distance of the saddle from the nearest pole
    width = 1.0 / np.sqrt((count * polygamma(1, d + shift)).sum(-1))
    reach = np.arcsinh(14.0 + 60.0 / (count.sum() * width)).max()
    if not np.isfinite(reach):
        raise ValueError(
            f"log_z runs from {log_z.min():.3g} to {log_z.max():.3g} (in prior_density, log_q plus "
            "a constant), where G is zero or infinite in 64 bits; give values nearer to zero"
        )

    w = np.linspace(0.0, reach, int(np.ceil(reach / _STEP)) + 1)
    t = d + width[:, None] * (1j * np.sinh(w) - _BEND * (np.cosh(w) - 1.0))
    exponent = -(t - b.min()) * log_z[:, None]
    for s, m in zip(shift, count, strict=True):
        exponent += m * loggamma(t + s)
    top = exponent.real[:, :1]

    # Where round-off swamps the sum, take the Gaussian integral around the saddle: it is exact
    # to all digits that the exponent itself has.
    lost = np.abs(top) > _SWAMPED
    fall = np.where(lost, 0.0, exponent - top)

    # The lower half of the path gives the complex conjugate, so the imaginary part is enough.
    terms = (np.exp(fall) * (1j * np.cosh(w) - _BEND * np.sinh(w))).imag
    terms[:, 0] *= 0.5
    total = np.where(lost[:, 0], np.sqrt(np.pi / 2.0), terms.sum(-1) * w[1])
    return top[:, 0] + np.log(total * width / np.pi)


def _saddle(log_z, shift, count):
    """Return the root d > 0 of ``sum_k count_k psi(d + shift_k) = log z``, for every log_z."""
    # The sum is concave and rises, so that Newton's method converges from below, for all log_z
    # together. Start from the limits of psi(d): log(d - 1/2) for a large d, and psi(1) - 1/d for a
    # small one.
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
