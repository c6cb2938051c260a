# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues and mode functions of any kernel, computed from a reference sample."""

import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._numbers import on_device
from .._warnings import warn
from ..kernels import Kernel
from ..kernels.products import product
from .base import Spectrum


class NystromSpectrum(Spectrum):
    """Spectrum of a kernel under the empirical measure of a reference sample. Made by `nystrom`.

    Attributes
    ----------
    X_ref : (r, d)
        Reference sample.
    projection : (r, k)
        The mode functions at X are ``kernel(X, X_ref) @ projection``.
    dropped : int
        Number of eigenvalues below the rounding error. Their variance is in the residual.
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
            warn(
                f"{shared} of the {len(self.X_ref)} rows of X_ref are training inputs; a coarse "
                "model then counts the eliminated modes twice: give nystrom an independent "
                "reference sample"
            )

    def power(self, y, X=None):
        """Squared coefficients (k,) of a target y (n,) at X (n, d), by default at ``X_ref``."""
        return super().power(y, self.X_ref if X is None else X)


def nystrom(
    kernel: Kernel, X_ref: ArrayLike, rank: int | None = None, *, rtol: float | None = None
) -> NystromSpectrum:
    r"""Return the spectrum of a kernel under the empirical measure of a reference sample.

    With :math:`K(X_r, X_r) = U\,\mathrm{diag}(\ell)\,U^T` on r rows, the eigenvalues are
    :math:`\ell_k/r` and the mode functions :math:`\sqrt{r}\, K(x, X_r) U_k/\ell_k`.

    Parameters
    ----------
    kernel : Kernel
    X_ref : (r, d)
        Sample of the distribution of the inputs, independent of the training inputs. With modes
        made from the training inputs, a coarse model would count the eliminated modes twice: in the
        eigenvalues of the others, and in the ridge.
    rank : int, optional
        Number of modes to keep, from the largest eigenvalue; by default all above ``rtol``.
    rtol : float, optional
        Eigenvalues up to this share of the largest count as rounding errors and are dropped. By
        default r times the machine precision. To cut larger eigenvalues, use ``rank``.

    Returns
    -------
    NystromSpectrum
        The residual is the kernel minus the modes that are kept. So it includes what lies outside
        the span of the reference sample.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        If rank or rtol is out of range, if the kernel is not positive semi-definite, if its Gram
        matrix does not fit into memory, or if JAX traces an argument.

    Warns
    -----
    UserWarning
        If rank exceeds the number of modes; or if it separates eigenvalues that differ by less than
        1e-6 of their size, because rounding then decides which functions are kept.

    Notes
    -----
    Eigenvalue k of a sample is too large by about the sum of the later eigenvalues divided by r.
    Trust those that are well above this error and whose k is much smaller than r.

    References
    ----------
    arXiv 2405.06008; Williams and Seeger (2001).
    """
    _checks.require_x64("spectrum.nystrom")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    X_ref = _checks.inputs("X_ref", X_ref, wide=True)
    r = X_ref.shape[0]
    needed, memory = r**2 * X_ref.dtype.itemsize, _memory()
    if memory is not None and needed > memory:
        raise ValueError(
            f"the Gram matrix of {r} rows takes {r}^2 numbers, {needed / 2**30:.3g} GiB, and there "
            f"are {memory / 2**30:.3g}; give fewer rows of X_ref as landmarks, or use "
            "spectrum.neural, which needs no such matrix"
        )
    K = kernel(X_ref)
    _checks.on_host("spectrum.nystrom counts its rank: it", K)

    rtol = float(r * jnp.finfo(K.dtype).eps) if rtol is None else rtol
    rtol = _checks.number("rtol", rtol, least=0, most=1)

    # eigenvalues under the measure are those of the matrix divided by r
    values, vectors = map(np.asarray, jnp.linalg.eigh(K))
    values, vectors = values[::-1] / r, vectors[:, ::-1]
    floor = rtol * values[0]
    _checks.eigenvalues(np.where(np.abs(values) <= floor, 0.0, values))
    usable = int((values > floor).sum())

    kept = usable if rank is None else _checks.whole("rank", rank, least=0, most=r)
    if kept > usable:
        warn(
            f"rank {rank} was asked for but only {usable} of {r} eigenvalues are above the "
            f"rounding error; keeping {usable}"
        )
        kept = usable
    if 0 < kept < usable:
        _warn_inside_level(values[:usable], kept)

    values, vectors = values[:kept], vectors[:, :kept]
    projection = on_device(vectors / (np.sqrt(r) * values))
    values, ones = on_device(values), on_device(np.ones_like(values))
    return NystromSpectrum(kernel, X_ref, values, ones, projection, dropped=r - usable)


def _memory():
    """Memory of the default device in bytes, or None if the system does not report it."""
    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    if memory is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return memory


def _warn_inside_level(values, rank):
    """Warn if a rank separates eigenvalues that differ by less than 1e-6 of their size."""
    joined = values[:-1] - values[1:] <= 1e-6 * values[:-1]  # with the next one
    if joined[rank - 1]:
        ends = np.flatnonzero(~joined) + 1
        below, above = ends[ends < rank].max(initial=0), ends[ends > rank].min(initial=len(values))
        warn(
            f"rank {rank} cuts a degenerate level, modes {below} to {above - 1} with eigenvalue "
            f"{values[rank]:.4g}, and rounding decides which of its functions are kept; take rank "
            f"{below} or {above}"
        )
