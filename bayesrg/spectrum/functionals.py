# SPDX-License-Identifier: Apache-2.0
"""Low modes that keep their meaning while the kernel changes: fixed functionals."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import cholesky
from .._numbers import on_device
from .._warnings import warn
from ..kernels import Kernel
from ..kernels.products import product
from .base import Spectrum
from .nystrom import NystromSpectrum


class FunctionalSpectrum(Spectrum):
    """Spectrum whose modes are fixed functionals, made independent. Made by `Functionals.at`.

    The modes are not eigenfunctions of the kernel. Their ``values`` are all 1, and ``features``
    include the prior standard deviations.

    Attributes
    ----------
    factor : (k, k)
        Lower Cholesky factor of the prior covariance of the functionals.
    jitter : ()
        Number added to the diagonal of that covariance to factorise it, zero if none was needed.
        Under the reference kernel the diagonal is 1.
    """

    kernel: Kernel
    X_ref: Float[Array, "reference feature"]
    V: Float[Array, "reference mode"]
    factor: Float[Array, "mode mode_bis"]
    jitter: Float[Array, ""]
    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    orthonormal: ClassVar[bool] = False

    def features(self, X):
        X = _checks.inputs("X", X, wide=True)
        _checks.columns("X", X, self.X_ref.shape[1], "the reference sample")
        return _white(self.factor, product(self.kernel, X, self.X_ref, self.V))

    warn_if_shared = NystromSpectrum.warn_if_shared


@jax.jit
def _white(factor, projected):
    """Features ``K V L^-T`` (n, k), from ``projected`` = K V (n, k) and L = ``factor``."""
    return solve_triangular(factor, projected.T, lower=True).T


class Functionals(eqx.Module):
    r"""Functionals :math:`V^T f(X_{ref})` of a function f, k numbers. Made by `functionals`.

    Attributes
    ----------
    V : (r, k)
        Weights of the reference points. Under the reference kernel each functional has variance 1.
    X_ref : (r, d)
        Reference sample.
    """

    V: Float[Array, "reference mode"]
    X_ref: Float[Array, "reference feature"]

    def at(self, kernel: Kernel) -> FunctionalSpectrum:
        r"""Split a kernel into the part that the functionals determine and the rest.

        With :math:`LL^T = V^T K(X_{ref}, X_{ref}) V` and :math:`B = K(x, X_{ref})\,V L^{-T}` the
        low part is :math:`K_< = BB^T`. The rest :math:`K_> = K - K_<` is the covariance of the
        function given its functionals, so it is positive semi-definite.

        Parameters
        ----------
        kernel : Kernel
            Its parameters may be traced.

        Returns
        -------
        FunctionalSpectrum
            The prior of `bayesrg.gp.marginal`. Low part and rest add up to the kernel exactly.

        Raises
        ------
        RuntimeError
            With 64-bit floats off.
        ValueError
            If the covariance of the functionals cannot be factorised. Where it is traced, the
            factor is nan instead.

        Warns
        -----
        UserWarning
            If jitter was needed. If it is traced, there is no warning: read the field ``jitter``.

        Notes
        -----
        Jitter is needed if the kernel is much smoother than the reference kernel, so that
        :math:`V^T K V` is singular up to rounding. It moves variance from the last functionals into
        the rest; the split stays exact. Keep only modes whose eigenvalue is above 1e-9 of the
        largest. One call costs a Gram matrix of the reference sample and a k x k Cholesky factor.
        """
        _checks.require_x64("Functionals.at")
        _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
        factor, jitter = _factor(self.V, kernel(self.X_ref))
        if _checks.known(factor):
            if not np.isfinite(np.asarray(factor)).all():
                raise ValueError(
                    f"the covariance of {self.V.shape[1]} functionals under kernel cannot be "
                    "factorised; check that it is positive semi-definite, or keep fewer"
                )
            if jitter > 0:
                warn(
                    f"the covariance of {self.V.shape[1]} functionals is singular under this "
                    f"kernel; {float(jitter):.1e} was added to its diagonal, so the last are "
                    "noise; keep fewer"
                )
        ones = on_device(np.ones(self.V.shape[1], self.V.dtype))
        return FunctionalSpectrum(kernel, self.X_ref, self.V, factor, jitter, ones, ones)

    def features(self, kernel: Kernel, X: ArrayLike) -> Float[Array, "point mode"]:
        """Features B (n, k) of a kernel at X (n, d): the low part of its covariance is B B^T."""
        return self.at(kernel).features(X)

    def columns(self, F: ArrayLike, F_ref: ArrayLike) -> Float[Array, "point column"]:
        r"""Split a kernel :math:`FF^T` given by its features, without any n x n matrix.

        Parameters
        ----------
        F : (n, p)
            Features at the points, with p at least k.
        F_ref : (r, p)
            Features at ``X_ref``.

        Returns
        -------
        (n, k + p)
            Features B of the same kernel, :math:`BB^T = FF^T`. The first k are those of the method
            ``features``, the others are :math:`F(I - GG^T)` with orthonormal G (p, k). Give them to
            `bayesrg.gp.MercerNormal` with values 1 and ``orthonormal=False``.
        """
        F, F_ref = _checks.features("F", F), _checks.features("F_ref", F_ref)
        k, p = self.V.shape[1], F.shape[1]
        _checks.shaped("F_ref", F_ref, (len(self.X_ref), p), "the features of F at X_ref")
        if k > p:
            raise ValueError(
                f"there are {k} functionals and {p} features, whose kernel has rank {p} only; keep "
                f"at most {p} functionals"
            )
        return _split(F, F_ref, self.V)


@jax.jit
def _factor(V, K):
    return cholesky(V.T @ K @ V)


@jax.jit
def _split(F, F_ref, V):
    """Result of `Functionals.columns`, for features F (n, p), F_ref (r, p) and weights V (r, k)."""
    projected = F_ref.T @ V

    # Columns may depend on each other, for example if a feature is zero on all of X_ref. Then a
    # small change gives QR a derivative; the split is exact for any orthonormal columns G.
    pivots = jnp.abs(jnp.diagonal(jnp.linalg.qr(lax.stop_gradient(projected), mode="r")))
    lost = pivots.min() < 1e-10 * pivots.max()
    eye = jnp.eye(*projected.shape, dtype=projected.dtype)
    G, R = jnp.linalg.qr(projected + jnp.where(lost, 1e-8 * pivots.max(), 0.0) * eye)

    # QR leaves the signs open: take those of a Cholesky factor, whose diagonal is positive
    G = G * jnp.where(jnp.diagonal(R) < 0, -1.0, 1.0)
    low = F @ G
    return jnp.concatenate([low, F - low @ G.T], 1)


@partial(jax.jit, static_argnums=0)
def _weights(k, projection, values):
    return projection[:, :k] * jnp.sqrt(values[:k])


def functionals(spectrum: Spectrum, k: int) -> Functionals:
    r"""Return fixed functionals of a function, made from the first k modes of a reference kernel.

    If a model samples parameters of a kernel, the eigenfunctions of the kernel change in every
    step. The functionals :math:`V^T f(X_{ref})` of the function f do not. The columns of V are
    eigenvectors of the Gram matrix of the reference kernel at :math:`X_{ref}`, divided by the
    square roots of their eigenvalues.

    Parameters
    ----------
    spectrum : NystromSpectrum
        Spectrum of the reference kernel. Compute learnabilities and cutoffs from its values,
        because those of the modes made here are all 1.
    k : int
        Number of functionals, from the largest eigenvalue.

    Returns
    -------
    Functionals
        With weights V (r, k). If its method ``at`` gets the reference kernel, the low part is that
        of the first k modes of the spectrum.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        If ``spectrum`` is not made by `nystrom`, or if k is out of range.

    References
    ----------
    arXiv 2405.06008 (the cut); Quinonero-Candela and Rasmussen (2005) (the projection).

    Examples
    --------
    >>> import numpyro
    >>> numpyro.enable_x64()
    >>> import jax.numpy as jnp
    >>> from bayesrg import gp, kernels, spectrum
    >>> reference = spectrum.nystrom(kernels.RBF(0.5), jnp.linspace(0, 1, 40))
    >>> low = spectrum.functionals(reference, 4)
    >>> moved = low.at(kernels.RBF(0.8))  # the lengthscale may be sampled
    >>> law = gp.marginal(moved, jnp.linspace(0.01, 0.99, 10), 0.1)
    """
    _checks.require_x64("spectrum.functionals")
    what = "made by spectrum.nystrom, from a reference sample"
    _checks.instance("spectrum", spectrum, NystromSpectrum, what)
    k = _checks.whole("k", k, most=len(spectrum))
    return Functionals(_weights(k, spectrum.projection, spectrum.values), spectrum.X_ref)
