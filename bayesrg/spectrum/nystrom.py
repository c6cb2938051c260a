# SPDX-License-Identifier: Apache-2.0
"""Eigenpairs of any kernel from a reference sample, and of a matrix."""

import os
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._numbers import on_device
from ..kernels import Kernel
from ..kernels.products import product
from .base import LIBRARIES, Spectrum


class NystromSpectrum(Spectrum):
    """Spectrum of a kernel under the empirical measure of a reference sample; see `nystrom`.

    Attributes
    ----------
    X_ref : (r, d) reference sample
    dropped : int
        Pairs at or below the round-off of the largest; their variance is in the residual.
    """

    kernel: Kernel
    X_ref: Float[Array, "reference feature"]
    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    projection: Float[Array, "reference mode"]
    dropped: int = eqx.field(static=True)

    def features(self, X):
        X = _checks.inputs("X", X, wide=True)
        _checks.columns("X", X, self.X_ref.shape[1], "the reference sample")
        return product(self.kernel, X, self.X_ref, self.projection)

    def warn_if_shared(self, X):
        if not (_checks.known(X) and _checks.known(self.X_ref)):
            return
        rows = {row.tobytes() for row in np.asarray(X, self.X_ref.dtype)}
        shared = sum(row.tobytes() in rows for row in np.asarray(self.X_ref))
        if 2 * shared > len(self.X_ref):
            warnings.warn(
                f"{shared} of the {len(self.X_ref)} rows of X_ref are training inputs; a coarse "
                "model would then count the eliminated modes twice: give nystrom an independent "
                "reference sample",
                skip_file_prefixes=LIBRARIES,
            )

    def power(self, y, X=None):
        """Squared coefficients (k,) of a target; without X, ``y`` is given at the reference."""
        return super().power(y, self.X_ref if X is None else X)


def nystrom(
    kernel: Kernel, X_ref: ArrayLike, rank: int | None = None, *, rtol: float | None = None
) -> NystromSpectrum:
    r"""Compute the spectrum of a kernel under the empirical measure of a reference sample.

    With :math:`K(X_r, X_r) = U\,\mathrm{diag}(\ell)\,U^T` on M rows, the eigenvalues are
    :math:`\ell_k/M` and the mode functions :math:`\sqrt{M}\, K(x, X_r) U_k/\ell_k`.

    Parameters
    ----------
    kernel : Kernel
    X_ref : (r, d)
        Reference sample of the inputs' distribution, independent of the training inputs: in the
        training inputs' own eigenvectors no ridge is renormalised and a coarse model would count
        the eliminated modes twice.
    rank : int, optional
        Pairs to keep, from the largest; all above round-off by default.
    rtol : float, optional
        Round-off of an eigenvalue in units of the largest, by default r times the machine
        precision. The ``eigen`` of `modify` takes what is dropped as zero; use ``rank`` to cut
        modes that are more than that.

    Returns
    -------
    NystromSpectrum
        ``residual_cov`` is the kernel minus its kept modes, not the rest of the sample spectrum,
        so it also holds what lies outside the span of the reference sample.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a rank or rtol out of range, a kernel that is not positive semi-definite, a sample
        whose Gram matrix no memory holds, or under a JAX transformation, where ranks cannot be
        counted.

    Warns
    -----
    UserWarning
        For a rank above the pairs that there are, or one that cuts a degenerate level, closer
        than 1e-6 of its size: then round-off decides which of its functions are kept.

    Notes
    -----
    Pairs with :math:`\ell_k \le M\,\epsilon\,\ell_1` are dropped: their functions are noise.
    Values of index k are trustworthy for M much larger than k and values well above the rest of
    the spectrum divided by M, by about which they are inflated.

    References
    ----------
    arXiv 2405.06008; Williams and Seeger (2001).
    """
    _checks.require_x64("spectrum.nystrom")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    X_ref = _checks.inputs("X_ref", X_ref, wide=True)
    M = X_ref.shape[0]
    needed, memory = M**2 * X_ref.dtype.itemsize, _memory()
    if memory is not None and needed > memory:
        raise ValueError(
            f"the Gram matrix of {M} rows takes {M}^2 numbers, {needed / 2**30:.3g} GiB, and there "
            f"are {memory / 2**30:.3g}; give fewer rows of X_ref as landmarks, or use "
            "spectrum.neural, which holds no matrix"
        )
    K = kernel(X_ref)
    _checks.on_host("spectrum.nystrom counts its rank: it", K)
    rtol = float(M * jnp.finfo(K.dtype).eps) if rtol is None else _checks.number("rtol", rtol)
    if not 0 <= rtol < 1:
        raise ValueError(f"rtol must be at least 0 and below 1, got {rtol!r}; 1e-12 is usual")
    values, vectors = map(np.asarray, jnp.linalg.eigh(K))
    values, vectors = values[::-1] / M, vectors[:, ::-1]
    floor = rtol * values[0]
    _checks.eigenvalues(np.where(np.abs(values) <= floor, 0.0, values))
    usable = int((values > floor).sum())
    kept = usable if rank is None else _checks.whole("rank", rank, least=0, most=M)
    if kept > usable:
        warnings.warn(
            f"rank {rank} was asked for but only {usable} of {M} eigenpairs are above round-off; "
            f"keeping {usable}",
            stacklevel=2,
        )
        kept = usable
    if 0 < kept < usable:
        _warn_inside_level(values[:usable], kept)
    values, vectors = values[:kept], vectors[:, :kept]
    return NystromSpectrum(
        kernel=kernel,
        X_ref=X_ref,
        values=on_device(values),
        degeneracy=on_device(np.ones_like(values)),
        projection=on_device(vectors / (np.sqrt(M) * values)),
        dropped=M - usable,
    )


def _memory():
    """Bytes of the default device, or None where they are not told."""
    told = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if told is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        told = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return told


def _warn_inside_level(values, rank):
    """Warn where a rank separates eigenvalues that differ by less than 1e-6 of their size."""
    joined = values[:-1] - values[1:] <= 1e-6 * values[:-1]
    if joined[rank - 1]:
        ends = np.flatnonzero(~joined) + 1
        below, above = ends[ends < rank].max(initial=0), ends[ends > rank].min(initial=len(values))
        warnings.warn(
            f"rank {rank} cuts a degenerate level, modes {below} to {above - 1} with eigenvalue "
            f"{values[rank]:.4g}, and round-off decides which of its functions are kept; take rank "
            f"{below} or {above}",
            stacklevel=3,
        )


class _Entries(Kernel):
    """Kernel of row numbers (n, 1): the entries of a matrix."""

    K: Float[Array, "row row_bis"]

    def gram(self, X, Z):
        return _entries(self.K, self._rows(X)[:, None], self._rows(Z))

    def gram_diag(self, X):
        rows = self._rows(X)
        return _entries(self.K, rows, rows)

    def _rows(self, X):
        n = self.K.shape[0]
        if X.shape[1] != 1 or (_checks.known(X) and not np.isin(np.asarray(X), np.arange(n)).all()):
            raise ValueError(
                f"the inputs of a kernel matrix are numbers of its rows, 0 to {n - 1}, shape "
                f"(n, 1); got shape {X.shape} from {jnp.min(X)} to {jnp.max(X)}"
            )
        return X[:, 0]


@jax.jit
def _entries(K, rows, columns):
    return K[rows.astype(int), columns.astype(int)]


def decompose(
    K: ArrayLike, rank: int | None = None, *, rtol: float | None = None
) -> NystromSpectrum:
    """Compute the spectrum of a kernel matrix that has no function: `nystrom` of its rows.

    Parameters
    ----------
    K : (n, n)
        Symmetric to 1e-8 of its largest entry; made symmetric within.
    rank : int, optional
    rtol : float, optional
        Both as in `nystrom`.

    Returns
    -------
    NystromSpectrum
        Its inputs are row numbers, ``arange(n)`` or some of them: new points have no rows. Values
        are those of the matrix over n.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a matrix that is not square, symmetric and positive semi-definite, and as `nystrom`.

    References
    ----------
    arXiv 2307.14531.
    """
    _checks.require_x64("spectrum.decompose")
    K = _checks.symmetric("K", K)
    rows = np.arange(K.shape[0], dtype=K.dtype)
    return nystrom(_Entries(K), rows, rank, rtol=rtol)
