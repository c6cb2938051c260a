# SPDX-License-Identifier: Apache-2.0
"""Densities of one eigenvalue of a random matrix: semicircle, two levels, Marchenko-Pastur.

Each law is a class that is not instantiated: its functions take x (or a probability) first and then
the parameters, as the distributions of `scipy.stats` do.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erf
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import bisect, implicit

_HALVINGS = 60


class semicircle:
    r"""Semicircle law of Wigner, the eigenvalue density of a large symmetric Gaussian matrix.

    The density is :math:`\frac{2}{\pi R^2}\sqrt{R^2 - (x - x_0)^2}` for :math:`|x - x_0| < R`.
    Off-diagonal entries of variance :math:`\sigma^2/2` give n levels the radius
    :math:`R = \sqrt{2n}\,\sigma`. The largest level lies inside R by some n^(-2/3): at n = 10 its
    mean is 0.84 R.

    Parameters of all functions: ``radius`` R (...), positive, and ``loc`` the centre (...). Values
    and parameters broadcast.

    References
    ----------
    arXiv 2407.16427.
    """

    @staticmethod
    def pdf(x: ArrayLike, radius: ArrayLike, loc: ArrayLike = 0.0) -> Float[Array, "*shape"]:
        """Return the density at x (...)."""
        x, radius, loc = _given(x=x, radius=radius, loc=loc)
        return _semicircle_pdf(x, radius, loc)

    @staticmethod
    def cdf(x: ArrayLike, radius: ArrayLike, loc: ArrayLike = 0.0) -> Float[Array, "*shape"]:
        """Return the probability of a level below x (...)."""
        x, radius, loc = _given(x=x, radius=radius, loc=loc)
        return _semicircle_cdf(x, radius, loc)

    @staticmethod
    def ppf(q: ArrayLike, radius: ArrayLike, loc: ArrayLike = 0.0) -> Float[Array, "*shape"]:
        """Return the level below which the probability is q (...), from 0 to 1."""
        q, radius, loc = _given(q=q, radius=radius, loc=loc)
        return _semicircle_ppf(q, radius, loc)


@jax.jit
def _semicircle_pdf(x, radius, loc):
    u = (x - loc) / radius
    inside = jnp.abs(u) < 1
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, 1 - u**2, 1.0)), 0.0) * 2 / jnp.pi / radius


@jax.jit
def _semicircle_cdf(x, radius, loc):
    return _share(jnp.arcsin(jnp.clip((x - loc) / radius, -1.0, 1.0)))


def _share(angle):
    """Probability below u = sin(angle) under the semicircle of radius one."""
    return 0.5 + (angle + jnp.sin(2 * angle) / 2) / jnp.pi


@jax.jit
def _semicircle_ppf(q, radius, loc):
    return loc + radius * jnp.sin(_inverse(_share, q, -jnp.pi / 2, jnp.pi / 2))


class two_level_density:
    r"""Density of one of two levels that repel each other: the semicircle law of n = 2.

    With :math:`u = (x - x_0)/\sigma` it is

    .. math:: \frac{e^{-u^2/2}}{4\sqrt\pi\,\sigma}
              \left[2e^{-u^2/2} + \sqrt{2\pi}\,u\,\mathrm{erf}(u/\sqrt2)\right],

    flat at its centre, with the variance :math:`\frac32\sigma^2`. The matrix has off-diagonal
    entries of variance :math:`\sigma^2/2` and diagonal ones of variance :math:`\sigma^2`.

    Parameters of all functions: ``loc`` the centre (...), and ``scale`` the width sigma (...),
    positive. Values and parameters broadcast.

    References
    ----------
    arXiv 2407.16427.
    """

    @staticmethod
    def pdf(x: ArrayLike, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Float[Array, "*shape"]:
        """Return the density at x (...)."""
        x, loc, scale = _given(x=x, loc=loc, scale=scale)
        return _two_level_pdf(x, loc, scale)

    @staticmethod
    def cdf(x: ArrayLike, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Float[Array, "*shape"]:
        """Return the probability of a level below x (...)."""
        x, loc, scale = _given(x=x, loc=loc, scale=scale)
        return _two_level_cdf(x, loc, scale)

    @staticmethod
    def ppf(q: ArrayLike, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0) -> Float[Array, "*shape"]:
        """Return the level below which the probability is q (...), from 0 to 1."""
        q, loc, scale = _given(q=q, loc=loc, scale=scale)
        return _two_level_ppf(q, loc, scale)


@jax.jit
def _two_level_pdf(x, loc, scale):
    u = (x - loc) / scale
    bell = jnp.exp(-(u**2) / 2)
    weight = 2 * bell + jnp.sqrt(2 * jnp.pi) * u * erf(u / jnp.sqrt(2.0))
    return bell * weight / (4 * jnp.sqrt(jnp.pi) * scale)


@jax.jit
def _two_level_cdf(x, loc, scale):
    return _two_level_share((x - loc) / scale)


def _two_level_share(u):
    bell = jnp.exp(-(u**2) / 2)
    return 0.5 + erf(u) / 2 - bell * erf(u / jnp.sqrt(2.0)) / jnp.sqrt(8.0)


@jax.jit
def _two_level_ppf(q, loc, scale):
    return loc + scale * jnp.where(
        q == 0, -jnp.inf, jnp.where(q == 1, jnp.inf, _inverse(_two_level_share, q, -40.0, 40.0))
    )


class marchenko_pastur:
    r"""Law of Marchenko and Pastur: eigenvalues of W^T W for independent entries of W.

    W (m, n) has independent entries of mean 0 and standard deviation s. The density of the
    :math:`q = \min(m, n)` eigenvalues that are not zero by construction is

    .. math:: \frac{\sqrt{(x_+ - x)(x - x_-)}}{2\pi s^2 q x},
              \qquad x_\pm = s^2(\sqrt m \pm \sqrt n)^2.

    Parameters of all functions: ``m``, ``n`` the shape of W, and ``s`` (...), positive. Values and
    parameters broadcast.

    References
    ----------
    Marchenko and Pastur (1967); arXiv 2411.13512 for weights of trained networks.
    """

    @staticmethod
    def edges(m: ArrayLike, n: ArrayLike, s: ArrayLike = 1.0) -> tuple[Array, Array]:
        """Return the smallest and the largest eigenvalue of the law, (...) each."""
        m, n, s = _given(m=m, n=n, s=s)
        return s**2 * (jnp.sqrt(m) - jnp.sqrt(n)) ** 2, s**2 * (jnp.sqrt(m) + jnp.sqrt(n)) ** 2

    @staticmethod
    def pdf(x: ArrayLike, m: ArrayLike, n: ArrayLike, s: ArrayLike = 1.0) -> Float[Array, "*shape"]:
        """Return the density at x (...)."""
        return _marchenko_pastur_pdf(*_given(x=x, m=m, n=n, s=s))

    @staticmethod
    def cdf(x: ArrayLike, m: ArrayLike, n: ArrayLike, s: ArrayLike = 1.0) -> Float[Array, "*shape"]:
        """Return the share of the q eigenvalues below x (...)."""
        return _marchenko_pastur_cdf(*_given(x=x, m=m, n=n, s=s))

    @staticmethod
    def ppf(q: ArrayLike, m: ArrayLike, n: ArrayLike, s: ArrayLike = 1.0) -> Float[Array, "*shape"]:
        """Return the eigenvalue below which the share q (...), from 0 to 1, lies."""
        return _marchenko_pastur_ppf(*_given(q=q, m=m, n=n, s=s))


@jax.jit
def _marchenko_pastur_pdf(x, m, n, s):
    x = x / s**2
    low, high = (jnp.sqrt(m) - jnp.sqrt(n)) ** 2, (jnp.sqrt(m) + jnp.sqrt(n)) ** 2
    inside = (x > low) & (x < high)
    x, square = jnp.where(inside, x, 1.0), jnp.where(inside, (high - x) * (x - low), 1.0)
    density = jnp.sqrt(square) / (2 * jnp.pi * s**2 * jnp.minimum(m, n) * x)
    return jnp.where(inside, density, 0.0)


def _above(angle, m, n):
    r"""Share of the eigenvalues above m + n + 2 sqrt(mn) cos(angle), for unit entries.

    In the angle the density is :math:`2mn\sin^2\theta/(\pi q x)`. Its integral has a closed form,
    in which the tangent of half an angle appears; both are multiplied by cos(angle / 2), so that
    nothing is infinite at the angle pi.
    """
    middle, radius, gap = m + n, 2 * jnp.sqrt(m * n), jnp.abs(m - n)
    slope = jnp.abs(jnp.sqrt(m) - jnp.sqrt(n)) / (jnp.sqrt(m) + jnp.sqrt(n))
    half = jnp.arctan2(slope * jnp.sin(angle / 2), jnp.cos(angle / 2))
    area = middle * angle - radius * jnp.sin(angle) - 2 * gap * half
    return area / (2 * jnp.pi * jnp.minimum(m, n))


@jax.jit
def _marchenko_pastur_cdf(x, m, n, s):
    cosine = (x / s**2 - m - n) / (2 * jnp.sqrt(m * n))
    return 1 - _above(jnp.arccos(jnp.clip(cosine, -1.0, 1.0)), m, n)


@jax.jit
def _marchenko_pastur_ppf(q, m, n, s):
    angle = _inverse(_above, 1 - q, 0.0, jnp.pi, m, n)
    return s**2 * (m + n + 2 * jnp.sqrt(m * n) * jnp.cos(angle))


def _inverse(rising, share, low, high, *args):
    """Solve ``rising(x, *args) = share`` (...) for x between two numbers."""
    shape = jnp.shape(rising(share + low, *args))
    share, ends = jnp.broadcast_to(share, shape), (jnp.full(shape, low), jnp.full(shape, high))
    root = bisect(lambda x: rising(x, *args) < share, *ends, _HALVINGS)[0]
    return implicit(lambda x, a: rising(x, *a[1:]) - a[0], root, (share, *args))


def _given(**values):
    """Return checked arrays: shares from 0 to 1, sizes and widths positive, all else finite."""
    found = []
    for name, value in values.items():
        if name in ("radius", "scale", "s", "m", "n"):
            found.append(_checks.positive(name, value))
        else:
            found.append(_checks.finite(name, value))
        if (
            name == "q"
            and _checks.known(found[-1])
            and not ((0 <= found[-1]) & (found[-1] <= 1)).all()
        ):
            raise ValueError("q must lie from 0 to 1; give probabilities")
    return found
