# SPDX-License-Identifier: Apache-2.0
"""Spectra of kernels on the sphere under uniform inputs: one level per degree of harmonics."""

import math
from functools import lru_cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from .. import _checks
from .._checks import ArrayLike
from .._numbers import on_device
from ..kernels import Kernel
from .base import Spectrum
from .harmonics import harmonics, legendre, legendre_sum, multiplicity

_MOST_MODES = 2000


class SphereSpectrum(Spectrum):
    """Spectrum of a kernel on a sphere under uniform inputs. Made by `sphere`.

    Attributes
    ----------
    degree : (k,)
        Degree of the harmonics of each value.
    order : (k,)
        Position of each value among the harmonics in order of their degree.
    radius : ()
        Length of the inputs.
    zeros : ()
        Number of levels whose value was below the rounding error and was set to zero.
    """

    kernel: Kernel
    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    degree: Int[Array, " mode"]
    order: Int[Array, " mode"]
    radius: Float[Array, ""]
    zeros: Int[Array, ""]
    dim: int = eqx.field(static=True)
    degrees: int = eqx.field(static=True)
    explicit: bool = eqx.field(static=True)

    def features(self, X):
        if not self.explicit:
            raise ValueError(
                "the values of this spectrum stand for whole levels, so it has no mode functions; "
                "use .level(X, Z, i), or make it with sphere(..., explicit=True)"
            )
        return _harmonics(self.degrees, self.order, self.radius, self._on_sphere("X", X))

    def level(self, X: ArrayLike, Z: ArrayLike | None, i: int) -> Array:
        r"""Return the sum of :math:`\phi(x)\phi(z)` over all modes of one level.

        Parameters
        ----------
        X : (n, d)
        Z : (m, d) or None
            None stands for X.
        i : int
            Index of a value of the level, from -k to k - 1.

        Returns
        -------
        (n, m)
            By the addition theorem it is the number of modes of the level times the Legendre
            polynomial of the cosine of the angle. Times the eigenvalue it is the level's part of
            the kernel.
        """
        i = _checks.whole("i", i, least=-len(self), most=len(self) - 1)
        return self.mode_sum(self.degree == self.degree[i], X, Z)

    @property
    def tail(self) -> Float[Array, ""]:
        """Variance () that the levels leave out. It is the same everywhere on the sphere."""
        return self.residual(self.radius * jnp.eye(1, self.dim))[0]

    def residual_cov(self, X, Z=None):
        return self.kernel(X, Z) - self.mode_sum(self.values, X, Z)

    def mode_sum(self, weights, X, Z=None):
        X = self._on_sphere("X", X)
        Z = None if Z is None else self._on_sphere("Z", Z)
        weights = weights * self.degeneracy
        return _legendre_sum(self.dim, self.degrees, self.degree, self.radius, weights, X, Z)

    def mode_variance(self, weights, X):
        X = self._on_sphere("X", X)
        return jnp.broadcast_to(weights @ self.degeneracy, X.shape[:1])

    def count(self, above: ArrayLike) -> Float[Array, ""]:
        """Return the number of modes () whose values are larger than ``above`` ()."""
        above = _checks.finite("above", above, ndim=0)
        return jnp.where(self.values > above, self.degeneracy, 0.0).sum()

    def _on_sphere(self, name, X):
        """Return inputs (n, d); raise unless they have the radius and dimension of the sphere."""
        X = _checks.columns(name, _checks.inputs(name, X), self.dim, "the sphere")
        if _checks.known(X) and _checks.known(self.radius):
            lengths = np.linalg.norm(np.asarray(X), axis=1)
            if not np.allclose(lengths, self.radius, rtol=1e-5, atol=0):
                raise ValueError(
                    f"{name} has rows of length {lengths.min():.6g} to {lengths.max():.6g}; this "
                    f"spectrum is for inputs of length {float(self.radius):.6g}: scale the rows"
                )
        return X


@partial(jax.jit, static_argnums=(0, 1))
def _legendre_sum(dim, degrees, degree, radius, weights, X, Z):
    """Sum with weights (k,) of the Legendre polynomials of each value's degree, (n, m)."""
    coefficients = jnp.zeros(degrees + 1, weights.dtype).at[degree].add(weights)
    X, Z = X / radius, None if Z is None else Z / radius
    K = legendre_sum(dim, coefficients, X @ (X if Z is None else Z).T)
    return 0.5 * (K + K.T) if Z is None else K


@partial(jax.jit, static_argnums=0)
def _harmonics(degrees, order, radius, X):
    return harmonics(degrees, X / radius)[:, order]


@lru_cache(maxsize=16)
def _quadrature(dim, degree):
    """Return angles (q,) and weights (degree + 1, q): weights @ kernel values are eigenvalues.

    The rule is Fejer's first, in the angle, because kernels of networks are analytic in the angle
    but have a cusp in its cosine. (Weights of Gauss and Legendre from NumPy have errors of 1e-14
    for so many nodes.)
    """
    nodes = 400 + 4 * degree + 16 * math.isqrt(dim)  # the width of the density is 1/sqrt(dim)
    node = np.pi * (np.arange(nodes) + 0.5) / nodes
    k = np.arange(1, nodes // 2 + 1)
    # weights of Fejer's rule, then the density sin^(dim-2) of the angle, then the polynomials
    weights = 1.0 - 2.0 * np.cos(2.0 * np.outer(node, k)) @ (1.0 / (4.0 * k**2 - 1.0))
    angle = 0.5 * np.pi * (1.0 + np.cos(node))
    density = weights * np.sin(angle) ** (dim - 2)
    return angle, density / density.sum() * legendre(dim, degree, np.cos(angle))


@eqx.filter_jit
def _profile(kernel, radius, angle, turn):
    """Kernel (q,) between two points at angles (q,), in the plane of the columns of turn (d, 2)."""
    first, second = turn[:, 0], turn[:, 1]
    Z = jnp.cos(angle)[:, None] * first + jnp.sin(angle)[:, None] * second
    return kernel(radius * first[None], radius * Z)[0]


def sphere(
    kernel: Kernel,
    dim: int,
    degree: int,
    radius: ArrayLike | None = None,
    explicit: bool = False,
) -> SphereSpectrum:
    r"""Return the spectrum of a kernel on a sphere under uniform inputs.

    The kernel must be a function :math:`\kappa(\cos\theta)` of the angle between its inputs. With
    the Legendre polynomial :math:`P_l` in d dimensions, :math:`P_l(1) = 1`, the eigenvalue of all
    harmonics of degree l is

    .. math:: \mu_l = G_d\int_0^\pi \kappa(\cos\theta) P_l(\cos\theta) \sin^{d-2}\theta\, d\theta,

    where :math:`G_d` is such that :math:`\kappa = 1` has :math:`\mu_0 = 1`.

    Parameters
    ----------
    kernel : Kernel
        For example `NNGP` or `RBF`. Its parameters may be sampled.
    dim : int
        Number d of columns of the inputs (n, d), at least 2.
    degree : int
        Largest degree of the harmonics.
    radius : (), optional
        Length of the inputs, by default ``sqrt(dim)``.
    explicit : bool
        If True, each mode has its own value and ``features`` are orthonormal harmonics, at most
        2000. If False, each value stands for a whole level, and ``degeneracy`` counts its modes.

    Returns
    -------
    SphereSpectrum
        Values fall. They need not fall with the degree: ``degree`` is in the order of the values.

    Raises
    ------
    ValueError
        If the kernel depends on more than the angle, if it is not positive semi-definite, or if
        sizes are out of range.

    Notes
    -----
    Values have an absolute error of about 1e-15 of the kernel's variance; smaller ones are set to
    zero. The variance of a level has this error times its degeneracy.

    References
    ----------
    Bach (2017), appendix D; arXiv 2307.14531 (the kernels).
    """
    _checks.warn_32_bits("spectrum.sphere")
    dim, degree = _checks.whole("dim", dim, least=2), _checks.whole("degree", degree, least=0)
    explicit = _checks.flag("explicit", explicit)
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    radius = _checks.positive("radius", math.sqrt(dim) if radius is None else radius, ndim=0)
    counts = [multiplicity(dim, k) for k in range(degree + 1)]
    if explicit and sum(counts) > _MOST_MODES:
        raise ValueError(
            f"explicit=True would make {sum(counts)} modes, more than {_MOST_MODES}; lower degree, "
            "or leave explicit out and use .level"
        )

    angle, weights = map(on_device, _quadrature(dim, degree))
    profile = _profile(kernel, radius, angle, on_device(np.eye(dim, 2)))
    _check_rotation(profile, kernel, radius, angle, dim)

    sizes = on_device(np.array([float(c) for c in counts], profile.dtype))
    values, zeros = _values(profile, weights, sizes)
    values = _checks.eigenvalues(values, falling=False)

    degrees = np.arange(degree + 1)
    if explicit:
        degrees = np.repeat(degrees, counts)
        sizes = on_device(np.ones(len(degrees), values.dtype))
    values, *levels, order = _falling(values, sizes, on_device(degrees))
    return SphereSpectrum(
        kernel, values, *levels, order, radius, zeros, dim, degree, explicit or degree == 0
    )


@jax.jit
def _values(profile, weights, sizes):
    """Eigenvalues of all levels, zero below the rounding error, and the number of these zeros."""
    variance = jnp.abs(profile).max()
    values = weights.astype(profile.dtype) @ profile
    floor = 4.5 * jnp.finfo(values.dtype).eps * variance
    # No level has more than the whole variance. So an eigenvalue is below the rounding error, too,
    # if its level has so many modes that the variance divided by them is.
    zero = (jnp.abs(values) <= floor) | (sizes * floor > variance)
    return jnp.where(zero, 0.0, values), zero.sum()


@jax.jit
def _falling(values, sizes, degrees):
    """Values of ``degrees`` (k,) in falling order; sizes, degrees and indices in this order."""
    values = values[degrees]
    order = jnp.argsort(-values)
    return values[order], sizes[order], degrees[order], order


def _check_rotation(one, kernel, radius, angle, dim):
    """Raise if the kernel at the same angles differs between two planes."""
    if not _checks.known(one):
        return
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, 2)))[0]
    other = np.asarray(_profile(kernel, radius, angle, jnp.asarray(turn, one.dtype)))
    differs = np.abs(np.asarray(one) - other) > 1e-5 * np.abs(other).max()
    if differs.any():
        i = differs.argmax()
        raise ValueError(
            "kernel must be a function of x.z alone for inputs of one length: at an angle of "
            f"{float(angle[i]):.3g} it is {float(one[i]):.6g} in one plane and {other[i]:.6g} in "
            "another; use spectrum.nystrom"
        )
