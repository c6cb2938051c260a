# SPDX-License-Identifier: Apache-2.0
"""Kernels that keep the mode functions of a spectrum and change its eigenvalues."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._callables import as_pytree
from .._checks import ArrayLike
from .._linalg import matrix_function
from .._numbers import on_device
from .._warnings import warn
from ..kernels import Kernel
from ..kernels.products import product
from .base import Spectrum
from .maps import Map, Pointwise
from .nystrom import NystromSpectrum


class ModifiedKernel(Kernel):
    """Kernel with the mode functions of a spectrum and new eigenvalues. Made by `modify`.

    Attributes
    ----------
    values : (k,)
        New eigenvalues, in the order of the spectrum's modes.
    tail : ()
        Factor of the covariance that the modes leave out.
    """

    spectrum: Spectrum
    values: Float[Array, " mode"]
    tail: Float[Array, ""]

    def gram(self, X, Z):
        rest = self.tail * self.spectrum.residual_cov(X, Z)
        return rest + self.spectrum.mode_sum(self.values, X, Z)

    def gram_diag(self, X):
        rest = self.tail * self.spectrum.residual(X)
        return rest + self.spectrum.mode_variance(self.values, X)

    @property
    def eigen(self) -> tuple[Float[Array, "point mode"], Float[Array, " mode"]]:
        """Eigenvectors (n, k) and eigenvalues (k,) of the Gram matrix at the reference sample.

        If this sample is the training inputs, give them to `bayesrg.gp.marginal` as ``eigen``.
        The vectors are the same for all maps, so a density then costs O(n).
        """
        spectrum = self.spectrum
        if not isinstance(spectrum, NystromSpectrum):
            raise ValueError(
                f"eigenpairs at a reference sample need spectrum.nystrom, got a "
                f"{type(spectrum).__name__}; leave eigen out"
            )

        # every mode must be here, because the others have eigenvectors too
        n = spectrum.X_ref.shape[0]
        if len(spectrum) + spectrum.dropped < n:
            raise ValueError(
                f"the spectrum has {len(spectrum)} of {n - spectrum.dropped} modes, and eigen "
                "needs all; leave rank out of nystrom, and let the map keep them"
            )
        rest = self.tail * (spectrum.kernel.diag(spectrum.X_ref).mean() - spectrum.values.sum())
        if _checks.known(rest) and rest > 1e-8 * spectrum.values.sum():
            raise ValueError(
                f"the {spectrum.dropped} dropped modes hold {float(rest):.3g} of the variance, and "
                "eigen needs all modes; leave rtol out of nystrom, or give modify tail=0"
            )
        vectors = spectrum.projection * (np.sqrt(n) * spectrum.values)
        return vectors, n * self.values


def modify(
    spectrum: Spectrum | Kernel, g: Callable[[Array], Array], tail: ArrayLike = 1.0
) -> ModifiedKernel:
    r"""Return a kernel with the mode functions of a spectrum and eigenvalues changed by a map.

    .. math:: k_g(x, z) = \tau\, k_>(x, z) + \sum_i g(\lambda_i)\, \phi_i(x) \phi_i(z)

    Here :math:`k_>` is the covariance that the modes leave out. So the kernel is positive
    semi-definite at any inputs for any :math:`g \ge 0`. With the identity and :math:`\tau = 1` it
    is the original kernel.

    Parameters
    ----------
    spectrum : Spectrum or ModifiedKernel
        If the kernel was modified before, its new eigenvalues are mapped again.
    g : callable
        Maps falling eigenvalues (k,), in units of variance, to new ones (k,): one of `maps`, or
        your own function. Its parameters may be traced.
    tail : ()
        Factor :math:`\tau` from 0 to 1. With 0 the kernel has rank k, and its variance falls to
        zero away from the reference sample.

    Returns
    -------
    ModifiedKernel

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        If a new eigenvalue is negative, if the modes are not eigenfunctions, or if tail is out of
        range.

    Warns
    -----
    UserWarning
        If a hard cutoff or a lift separates eigenvalues that the sample cannot tell apart, or if
        the map amplifies the rounding error of a small eigenvalue.

    Notes
    -----
    As the reference sample grows, the kernel converges like :math:`n^{-1/2}` for every map that is
    Lipschitz with g(0) = 0. A hard cutoff with tail 0 is one step of the renormalisation group, if
    the variance that it removes is added to the ridge: `bayesrg.rg.Coarse` with rule "universal".

    References
    ----------
    arXiv 2307.14531.

    Examples
    --------
    >>> import numpyro
    >>> numpyro.enable_x64()
    >>> import jax.numpy as jnp
    >>> from bayesrg import gp, kernels, spectrum
    >>> base = spectrum.nystrom(kernels.Matern12(0.3), jnp.linspace(0, 1, 40))
    >>> smoother = spectrum.modify(base, spectrum.maps.power(1.5))
    >>> law = gp.marginal(smoother, jnp.linspace(0.01, 0.99, 10), 0.1)
    """
    _checks.require_x64("spectrum.modify")
    tail = _fraction(tail)
    what = "a Spectrum (make one from a kernel with spectrum.nystrom)"
    old = _checks.instance("spectrum", spectrum, Spectrum | ModifiedKernel, what).values
    if isinstance(spectrum, ModifiedKernel):
        spectrum, tail = spectrum.spectrum, tail * spectrum.tail
    if not spectrum.orthonormal:
        raise ValueError(
            f"the modes of a {type(spectrum).__name__} are not eigenfunctions, so there are no "
            "eigenvalues to map; use spectrum.nystrom"
        )

    _checks.function("g", g, "a map of eigenvalues, as spectrum.maps has")
    values = _checks.returned("g", g(old)).astype(old.dtype)
    if values.shape != old.shape:
        raise ValueError(
            f"g returned shape {values.shape} for eigenvalues of shape {old.shape}; return one per "
            "mode"
        )

    if _checks.known(values) and _checks.known(old):
        _check_new(np.asarray(old), np.asarray(values))
        if isinstance(spectrum, NystromSpectrum):
            _warn_inside_group(g, old, spectrum.X_ref.shape[0])
            _warn_rounding(np.asarray(spectrum.values), np.asarray(values), spectrum)
    return ModifiedKernel(spectrum, values, tail)


def _fraction(tail):
    """Check the factor of the tail, from 0 to 1; where it is traced, only its shape."""
    tail = _checks.nonnegative("tail", tail, ndim=0)
    if _checks.known(tail) and tail > 1:
        raise ValueError(f"tail must be at most 1, got {tail}; it multiplies what modes leave out")
    return tail


def _check_new(old, new):
    """Raise unless all new eigenvalues are finite and not negative; ``old`` is for the message."""
    bad = np.flatnonzero(~(np.isfinite(new) & (new >= 0)))
    if bad.size:
        what = "a negative eigenvalue" if new[bad[0]] < 0 else f"{new[bad[0]]}"
        raise ValueError(
            f"spectral map produced {what} at lam={old[bad[0]]:.6g}: k_g would not be positive "
            "semi-definite; give a map with finite g >= 0"
        )


def _warn_inside_group(g, old, n):
    """Warn if a jump of the map separates eigenvalues that differ by less than their error."""
    edge = g.edge(old) if isinstance(g, Map) else None
    if edge is None or not 0 < edge < len(old):
        return
    old = np.sort(np.asarray(old))[::-1]
    label = groups(old, n)
    if label[edge - 1] == label[edge]:
        gaps = int((label < label[edge]).sum()), int((label <= label[edge]).sum())
        warn(
            f"the map jumps between eigenvalues {old[edge - 1]:.4g} and {old[edge]:.4g}, which {n} "
            "points cannot tell apart, so another sample would give another kernel; move the jump "
            f"to a gap, after mode {gaps[0]} or {gaps[1]}, or use a soft cutoff"
        )


def groups(values, n):
    """Number the groups of falling eigenvalues (k,) that n points cannot tell apart, from 0.

    An eigenvalue of a sample has a relative error of about one over the root of n. Neighbours
    belong together if they differ by less than three such errors (Koltchinskii and Gine 2000).
    """
    gap = values[:-1] - values[1:]
    apart = (gap >= 3.0 * values[:-1] / np.sqrt(n)) & (gap > 0)
    return np.concatenate([np.zeros(min(1, len(values)), int), np.cumsum(apart)])


def _warn_rounding(base, new, spectrum):
    """Warn if the rounding error of a small eigenvalue becomes a visible part of the kernel."""
    if not len(base) or new.max() == 0:
        return
    # relative error of each old eigenvalue, times its share in the new kernel
    error = np.finfo(base.dtype).eps * spectrum.X_ref.shape[0] * base[0] / base * new / new.max()
    i = int(error.argmax())
    if error[i] > 1e-3:
        warn(
            f"mode {i} has l_i/l_1={base[i] / base[0]:.2g}, close to the rounding error; lifting "
            f"it amplifies rounding by {new[i] / base[i]:.2g}: give nystrom a lower rank or a "
            "larger rtol"
        )


class _Correction(eqx.Module):
    r"""The function f of `modify_kernel`: :math:`(n g(l/n) - \tau l)/l^2` of Gram eigenvalues l."""

    g: Callable
    tail: Float[Array, ""]
    n: int = eqx.field(static=True)

    @eqx.filter_jit
    def new(self, lam, largest):
        """New values g of eigenvalues ``lam`` (...), where the largest of all is ``largest``."""
        if isinstance(self.g, Pointwise):
            return self.g.at(lam, largest)
        return _checks.returned("g", self.g(lam))

    def __call__(self, values, largest):
        lam = values / self.n
        return (self.new(lam, largest / self.n) / lam - self.tail) / values


class MovingModifiedKernel(Kernel):
    """Modified kernel of a base kernel whose parameters may be traced. Made by `modify_kernel`."""

    kernel: Kernel
    X_ref: Float[Array, "reference feature"]
    vectors: Float[Array, "reference mode"]
    weights: Float[Array, "mode mode_bis"]
    tail: Float[Array, ""]

    def gram(self, X, Z):
        X, Z = X.astype(float), Z.astype(float)
        return _moved(self.tail * self.kernel(X, Z), self._sides(X), self._sides(Z), self.weights)

    def gram_diag(self, X):
        X = X.astype(float)
        left = self._sides(X)
        return self.tail * self.kernel.diag(X) + ((left @ self.weights) * left).sum(-1)

    def _sides(self, X):
        """Covariances (n, r) of X with the reference sample, times the eigenvectors."""
        return product(self.kernel, X, self.X_ref, self.vectors)


@jax.jit
def _moved(K, left, right, W):
    """Add ``left W right^T`` to K (n, m)."""
    return K + left @ W @ right.T


def modify_kernel(
    kernel: Kernel, X_ref: ArrayLike, g: Callable[[Array], Array], tail: ArrayLike = 1.0
) -> MovingModifiedKernel:
    r"""Return a kernel with changed eigenvalues, whose base kernel may be sampled.

    It equals `modify` of all modes of the reference sample (r points), but is written as a function
    of the kernel. So it needs no derivatives of eigenvectors:

    .. math:: k_g(x, z) = \tau k(x, z) + k(x, X_r)\, f(K)\, k(X_r, z), \quad K = k(X_r, X_r), \quad
              f(l) = (r\, g(l/r) - \tau l)/l^2

    Parameters
    ----------
    kernel : Kernel
        Its parameters may be traced.
    X_ref : (r, d)
        Reference sample: the training inputs, or some landmarks.
    g : callable
        Maps one eigenvalue at a time: one of `maps` other than `flatten`, `lift` and `table`,
        several of them in `combine`, or your own function. The arrays that your function captured
        are parameters, which may be traced.
    tail : ()
        Factor :math:`\tau`, from 0 to 1, of the base kernel outside the modes.

    Returns
    -------
    MovingModifiedKernel

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        If a new eigenvalue depends on a rank or on other eigenvalues, if one is negative, or if the
        kernel is not positive semi-definite.

    Notes
    -----
    Each evaluation costs O(r^3). First derivatives are right for any degeneracy of eigenvalues.
    Second derivatives raise. The largest eigenvalue, to which `maps.power` refers, must be simple;
    for a positive kernel it is.

    References
    ----------
    arXiv 2307.14531; Daleckii and Krein (1965).
    """
    _checks.require_x64("spectrum.modify_kernel")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    _checks.function("g", g, "a map of eigenvalues, as spectrum.maps has")
    if isinstance(g, Map) and not isinstance(g, Pointwise):
        raise ValueError(
            "g goes by rank, and ranks may change while the kernel moves; use spectrum.modify on "
            "a fixed spectrum"
        )
    X_ref = _checks.inputs("X_ref", X_ref, wide=True)
    tail, n = _fraction(tail), X_ref.shape[0]
    K, f = kernel(X_ref), _Correction(as_pytree(g), tail, n)

    if _checks.known(K):
        values = np.asarray(jnp.linalg.eigvalsh(K)) / n
        floor = n * np.finfo(K.dtype).eps * values[-1]
        _checks.eigenvalues(np.where(np.abs(values) <= floor, 0.0, values)[::-1])

        # try the map on the eigenvalues, and again on all but the last
        kept = values[values > floor]
        new = f.new(on_device(kept), values[-1])
        if _checks.known(new):
            new = np.asarray(new)
            _check_new(kept, new)
            fewer = np.asarray(f.new(on_device(kept[:-1]), values[-1]))
            if len(kept) > 1 and not np.allclose(fewer, new[:-1], 1e-9, 0):
                raise ValueError(
                    "g maps an eigenvalue by what the others are, so its derivative would be "
                    "wrong; refer to the largest by maps.power, or use spectrum.modify"
                )
    return MovingModifiedKernel(kernel, X_ref, *matrix_function(K, f), tail)
