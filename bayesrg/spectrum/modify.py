# SPDX-License-Identifier: Apache-2.0
"""Kernels with the eigenfunctions of a spectrum and eigenvalues of one's choice."""

import warnings
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
from ..kernels import Kernel
from ..kernels.products import product
from .base import Spectrum
from .groups import groups
from .maps import Map, Pointwise
from .nystrom import NystromSpectrum
from .sphere import SphereSpectrum


class ModifiedKernel(Kernel):
    """Kernel of a spectrum whose eigenvalues were replaced; see `modify`.

    Attributes
    ----------
    values : (k,)
        New eigenvalues, in the order of the spectrum's modes.
    tail : ()
        Factor of what the modes leave out.
    """

    spectrum: Spectrum
    values: Float[Array, " mode"]
    tail: Float[Array, ""]

    def gram(self, X, Z):
        rest = self.spectrum.residual_cov(X, Z)
        if _whole_levels(self.spectrum):
            return self.tail * rest + self.spectrum._sum(
                self.values * self.spectrum.degeneracy, X, Z
            )
        left, right = (self.spectrum.features(A) for A in (X, Z))
        return _modified(self.tail, rest, left, self.values, right)

    def gram_diag(self, X):
        rest = self.spectrum.residual(X)
        if _whole_levels(self.spectrum):
            return self.tail * rest + self.values @ self.spectrum.degeneracy
        return _modified(self.tail, rest, self.spectrum.features(X), self.values)

    @property
    def eigen(self) -> tuple[Float[Array, "point mode"], Float[Array, " mode"]]:
        """Eigenpairs of the Gram matrix at the reference sample: vectors (n, k), values (k,).

        Where that sample is the training inputs they are the ``eigen`` of `bayesrg.gp.marginal`:
        a density then costs O(n) at any map, for the vectors never change.
        """
        spectrum = self.spectrum
        if not isinstance(spectrum, NystromSpectrum):
            raise ValueError(
                f"eigenpairs at a reference sample need spectrum.nystrom, got a "
                f"{type(spectrum).__name__}; leave eigen out"
            )
        n = spectrum.X_ref.shape[0]
        if len(spectrum) + spectrum.dropped < n:
            raise ValueError(
                f"the spectrum has {len(spectrum)} of {n - spectrum.dropped} modes, and the rest "
                "have eigenvectors too; leave rank out of nystrom, and let the map keep them"
            )
        rest = self.tail * (spectrum.kernel.diag(spectrum.X_ref).mean() - spectrum.values.sum())
        if _checks.known(rest) and rest > 1e-8 * spectrum.values.sum():
            raise ValueError(
                f"the {spectrum.dropped} dropped modes hold {float(rest):.3g} of the variance and "
                "have eigenvectors too; leave rtol out of nystrom, or give modify tail=0"
            )
        vectors = spectrum.projection * (np.sqrt(n) * spectrum.values)
        return vectors, n * self.values


@jax.jit
def _modified(tail, rest, left, values, right=None):
    """``tail * rest`` and the modes: (n, m), or (n,) without features (m, k) on the right."""
    if right is None:
        return tail * rest + left**2 @ values
    return tail * rest + (left * values) @ right.T


def _whole_levels(spectrum):
    return isinstance(spectrum, SphereSpectrum) and not spectrum.explicit


def modify(
    spectrum: Spectrum | Kernel, g: Callable[[Array], Array], tail: ArrayLike = 1.0
) -> ModifiedKernel:
    r"""Replace the eigenvalues of a spectrum by those that a map gives.

    .. math:: k_g(x, z) = \tau\, k_>(x, z) + \sum_i g(\lambda_i)\, \phi_i(x) \phi_i(z)

    with :math:`k_>` what the modes leave out, so that the kernel is positive semi-definite at any
    inputs for any :math:`g \ge 0`, and the spectrum's own for the identity.

    Parameters
    ----------
    spectrum : Spectrum, or a kernel modified before
        Values (k,); of the latter they are the new ones, so that maps follow one another.
    g : callable
        From falling eigenvalues (k,), variances under a probability measure, to new ones (k,):
        one of `maps`, or a function of one's own.
    tail : ()
        Factor :math:`\tau` from 0 to 1. At 0 the kernel has rank k and its variance collapses
        away from the reference sample.

    Returns
    -------
    ModifiedKernel
        Prior of `bayesrg.gp.marginal` and `bayesrg.gp.condition`; its map may be traced.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a negative eigenvalue, columns that are not eigenfunctions, or a tail out of range.

    Warns
    -----
    UserWarning
        If a hard cutoff or a lift separates eigenvalues that the sample cannot tell apart, or if
        a mode close to round-off is lifted.

    Notes
    -----
    As the reference sample grows, the kernel converges with :math:`n^{-1/2}` for every map that is
    Lipschitz with g(0) = 0. A hard cutoff without tail whose variance joins the ridge is one step
    of the renormalisation group: `bayesrg.rg.Coarse` with rule "universal".

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
    if isinstance(spectrum, ModifiedKernel):
        spectrum, old, tail = spectrum.spectrum, spectrum.values, tail * spectrum.tail
    elif isinstance(spectrum, Spectrum):
        old = spectrum.values
    else:
        raise ValueError(
            f"spectrum must be a Spectrum, got {type(spectrum).__name__}; make one of a kernel "
            "with spectrum.nystrom"
        )
    if not spectrum.orthonormal:
        raise ValueError(
            f"the modes of a {type(spectrum).__name__} are no eigenfunctions, so it has no "
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
        _refuse(np.asarray(old), np.asarray(values))
        if isinstance(spectrum, NystromSpectrum):
            _warn_inside_group(g, old, spectrum.X_ref.shape[0])
            _warn_rounding(np.asarray(spectrum.values), np.asarray(values), spectrum)
    return ModifiedKernel(spectrum, values, tail)


def _fraction(tail):
    tail = _checks.nonnegative("tail", tail, ndim=0)
    if _checks.known(tail) and tail > 1:
        raise ValueError(f"tail must be at most 1, got {tail}; it is a factor of what is left out")
    return tail


def _refuse(old, new):
    bad = np.flatnonzero(~(np.isfinite(new) & (new >= 0)))
    if bad.size:
        what = "a negative eigenvalue" if new[bad[0]] < 0 else f"{new[bad[0]]}"
        raise ValueError(
            f"spectral map produced {what} at lam={old[bad[0]]:.6g}: k_g would not be positive "
            "semi-definite; give a map with finite g >= 0"
        )


def _warn_inside_group(g, old, n):
    """Warn where a jump of the map separates neighbours within sampling error."""
    edge = g.edge(old) if isinstance(g, Map) else None
    if edge is None or not 0 < edge < len(old):
        return
    old = np.sort(np.asarray(old))[::-1]
    label = np.asarray(groups(old, n))
    if label[edge - 1] == label[edge]:
        gaps = int((label < label[edge]).sum()), int((label <= label[edge]).sum())
        warnings.warn(
            f"the map jumps between eigenvalues {old[edge - 1]:.4g} and {old[edge]:.4g}, which {n} "
            "points cannot tell apart, so the kernel hangs on the sample; move the jump to a gap, "
            f"after mode {gaps[0]} or {gaps[1]}, or use a soft cutoff",
            stacklevel=3,
        )


def _warn_rounding(base, new, spectrum):
    """Warn where the round-off of a small mode is made a visible part of the kernel."""
    if not len(base) or new.max() == 0:
        return
    noise = np.finfo(base.dtype).eps * spectrum.X_ref.shape[0] * base[0] / base * new / new.max()
    i = int(noise.argmax())
    if noise[i] > 1e-3:
        warnings.warn(
            f"mode {i} has l_i/l_1={base[i] / base[0]:.2g}, close to round-off; lifting it "
            f"amplifies rounding by {new[i] / base[i]:.2g}: give nystrom a lower rank or a larger "
            "rtol",
            stacklevel=3,
        )


class _Correction(eqx.Module):
    r"""Function of a Gram eigenvalue l: :math:`(n g(l/n) - \tau l)/l^2`."""

    g: Callable
    tail: Float[Array, ""]
    n: int = eqx.field(static=True)

    @eqx.filter_jit
    def new(self, lam, largest):
        if isinstance(self.g, Pointwise):
            return self.g.at(lam, largest)
        return _checks.returned("g", self.g(lam))

    def __call__(self, values, largest):
        lam = values / self.n
        return (self.new(lam, largest / self.n) / lam - self.tail) / values


class MovingModifiedKernel(Kernel):
    """Modified kernel of a base whose parameters may be traced; see `modify_kernel`."""

    kernel: Kernel
    X_ref: Float[Array, "reference feature"]
    vectors: Float[Array, "reference mode"]
    weights: Float[Array, "mode mode_bis"]
    tail: Float[Array, ""]

    def gram(self, X, Z):
        X, Z = (_checks.inputs(name, A, wide=True) for name, A in (("X", X), ("Z", Z)))
        sides = (product(self.kernel, A, self.X_ref, self.vectors) for A in (X, Z))
        return _moved(self.tail * self.kernel(X, Z), *sides, self.weights)

    def gram_diag(self, X):
        X = _checks.inputs("X", X, wide=True)
        left = product(self.kernel, X, self.X_ref, self.vectors)
        return self.tail * self.kernel.diag(X) + ((left @ self.weights) * left).sum(-1)


@jax.jit
def _moved(K, left, right, W):
    """Add ``left W right^T`` to K (n, m)."""
    return K + left @ W @ right.T


def modify_kernel(
    kernel: Kernel, X_ref: ArrayLike, g: Callable[[Array], Array], tail: ArrayLike = 1.0
) -> MovingModifiedKernel:
    r"""Modify the spectrum of a kernel whose own parameters are sampled or differentiated.

    `modify` on all modes of a reference sample of M points, as a function of the kernel:
    :math:`k_g(x, z) = \tau k(x, z) + k(x, X_r)\, f(K)\, k(X_r, z)`, :math:`K = k(X_r, X_r)`,
    :math:`f(l) = (M g(l/M) - \tau l)/l^2`, which needs no derivative of an eigenvector.

    Parameters
    ----------
    kernel : Kernel
        Its parameters may be traced.
    X_ref : (r, d)
        Reference sample: the training inputs, or some landmarks.
    g : callable
        Map of one eigenvalue at a time: one of `maps` other than `flatten`, `lift` and `table`,
        several of them in `combine`, or your own function, whose parameters are the arrays that it
        captured.
    tail : ()
        Factor from 0 to 1, as in `modify`.

    Returns
    -------
    MovingModifiedKernel

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a map by rank, whose level may be degenerate, or of several eigenvalues at a time, a
        negative eigenvalue, or a kernel that is not positive semi-definite.

    Notes
    -----
    O(M^3) at every evaluation. First derivatives are right at any degeneracy of the sample; see
    `bayesrg._linalg.matrix_function`. The largest eigenvalue, to which `power` refers, must be
    simple, as that of a positive kernel is.

    References
    ----------
    arXiv 2307.14531; Daleckii and Krein (1965).
    """
    _checks.require_x64("spectrum.modify_kernel")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    _checks.function("g", g, "a map of eigenvalues, as spectrum.maps has")
    if isinstance(g, Map) and not isinstance(g, Pointwise):
        raise ValueError(
            "g goes by rank, and the level that it refers to may be degenerate while the kernel "
            "moves; use spectrum.modify on a fixed spectrum"
        )
    X_ref = _checks.inputs("X_ref", X_ref, wide=True)
    tail, n = _fraction(tail), X_ref.shape[0]
    K, f = kernel(X_ref), _Correction(as_pytree(g), tail, n)
    if _checks.known(K):
        values = np.asarray(jnp.linalg.eigvalsh(K)) / n
        floor = n * np.finfo(K.dtype).eps * values[-1]
        _checks.eigenvalues(np.where(np.abs(values) <= floor, 0.0, values)[::-1])
        kept = values[values > floor]
        new = f.new(on_device(kept), values[-1])
        if _checks.known(new):
            new = np.asarray(new)
            _refuse(kept, new)
            fewer = np.asarray(f.new(on_device(kept[:-1]), values[-1]))
            if len(kept) > 1 and not np.allclose(fewer, new[:-1], 1e-9, 0):
                raise ValueError(
                    "g maps an eigenvalue by what the others are, and its derivative would be "
                    "wrong; refer to the largest by maps.power, or use spectrum.modify"
                )
    return MovingModifiedKernel(kernel, X_ref, *matrix_function(K, f), tail)
