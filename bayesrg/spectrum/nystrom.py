# SPDX-License-Identifier: Apache-2.0
"""Eigenpairs of any kernel from a reference sample."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..kernels import Kernel
from .base import Spectrum


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
        return self.kernel(X, self.X_ref) @ self.projection

    def residual(self, X):
        X = _checks.inputs("X", X)
        return jnp.clip(self.kernel.diag(X) - self.features(X) ** 2 @ self.values, 0.0)

    def residual_cov(self, X, Z=None):
        left = self.features(X)
        right = left if Z is None else self.features(Z)
        return self.kernel(X, Z) - (left * self.values) @ right.T

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
                stacklevel=3,
            )

    def power(self, y, X=None):
        """Squared coefficients (k,) of a target; without X, ``y`` is given at the reference."""
        return super().power(y, self.X_ref if X is None else X)


def nystrom(kernel: Kernel, X_ref: ArrayLike, rank: int | None = None) -> NystromSpectrum:
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
        For a rank out of range, a kernel that is not positive semi-definite, or under a JAX
        transformation, where ranks cannot be counted.

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
    X_ref = _checks.inputs("X_ref", X_ref)
    K = kernel(X_ref)
    if not _checks.known(K):
        raise ValueError(
            "spectrum.nystrom runs under a JAX transformation, where its rank cannot be counted; "
            "build the spectrum once outside and pass it in"
        )
    M = X_ref.shape[0]
    values, vectors = jnp.linalg.eigh(K)
    values, vectors = values[::-1] / M, vectors[:, ::-1]
    floor = M * jnp.finfo(K.dtype).eps * values[0]
    _checks.eigenvalues(jnp.where(jnp.abs(values) <= floor, 0.0, values))
    usable = int((values > floor).sum())
    kept = usable if rank is None else rank
    if not isinstance(kept, int | np.integer) or not 0 <= kept <= M:
        raise ValueError(f"rank must be an integer from 0 to {M}, got {rank!r}")
    if kept > usable:
        warnings.warn(
            f"rank {rank} was asked for but only {usable} of {M} eigenpairs are above round-off; "
            f"keeping {usable}",
            stacklevel=2,
        )
        kept = usable
    values, vectors = values[:kept], vectors[:, :kept]
    return NystromSpectrum(
        kernel=kernel,
        X_ref=X_ref,
        values=values,
        degeneracy=jnp.ones_like(values),
        projection=vectors / (np.sqrt(M) * values),
        dropped=M - usable,
    )
