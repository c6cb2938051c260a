# SPDX-License-Identifier: Apache-2.0
"""Low modes that keep their meaning when the kernel moves: fixed functionals of the function."""

import warnings
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
from ..kernels import Kernel
from ..kernels.products import product
from .base import Spectrum
from .nystrom import NystromSpectrum


class FunctionalSpectrum(Spectrum):
    """A kernel seen through fixed functionals, made white; see `Functionals.at`.

    Its modes are not eigenfunctions: ``values`` are all 1, in no order that the kernel gives, and
    the columns of ``features`` carry the prior standard deviation.

    Attributes
    ----------
    factor : (k, k)
        Lower Cholesky factor of the functionals' prior covariance.
    jitter : ()
        What had to be added to that covariance to factorise it, in units of the one under the
        reference kernel; zero unless the functionals lost their independence to round-off.
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
    """Columns (n, k) of the functionals: ``K V L^-T`` with ``projected`` = K V and L the factor."""
    return solve_triangular(factor, projected.T, lower=True).T


class Functionals(eqx.Module):
    r"""The k numbers :math:`V^T f(X_{ref})` of a function; see `functionals`.

    Attributes
    ----------
    V : (r, k) weights of the reference points, of unit prior variance under the reference kernel
    X_ref : (r, d) reference sample
    """

    V: Float[Array, "reference mode"]
    X_ref: Float[Array, "reference feature"]

    def at(self, kernel: Kernel) -> FunctionalSpectrum:
        r"""Split a kernel, whose parameters may be traced, by the functionals.

        With :math:`LL^T = V^T K(X_{ref}, X_{ref}) V` the low part is :math:`K_< = BB^T`,
        :math:`B = K(x, X_{ref})\,V L^{-T}`, and :math:`K_> = K - K_<` is the covariance of the
        function given its functionals, hence positive semi-definite.

        Parameters
        ----------
        kernel : Kernel

        Returns
        -------
        FunctionalSpectrum
            For `bayesrg.gp.marginal`: the split is exact at every kernel.

        Raises
        ------
        RuntimeError
            With 64-bit floats off.
        ValueError
            If the functionals' covariance cannot be factorised even with jitter.

        Warns
        -----
        UserWarning
            If jitter was needed; inside a JAX transformation it shows in ``jitter`` alone.

        Notes
        -----
        It costs one Gram matrix of the reference sample and a k x k factor. Jitter leaves the
        split exact and the rest positive semi-definite: it only moves variance from the last
        functionals into the rest. It is needed where the kernel is much smoother than the
        reference one, so that :math:`V^T K V` falls below round-off. V is about
        :math:`1/\sqrt{\ell_k}` in size, so keep to modes with values above 1e-9 of the largest;
        with those at round-off no jitter helps, which raises, or inside a transformation gives nan.

        References
        ----------
        arXiv 2405.06008; Quinonero-Candela and Rasmussen (2005) (the projection).
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
                warnings.warn(
                    f"the covariance of {self.V.shape[1]} functionals is singular under this "
                    f"kernel; {float(jitter):.1e} of their variance under the reference kernel "
                    "was added, so the last ones hold noise; keep fewer",
                    stacklevel=2,
                )
        ones = on_device(np.ones(self.V.shape[1], self.V.dtype))
        return FunctionalSpectrum(kernel, self.X_ref, self.V, factor, jitter, ones, ones)

    def features(self, kernel: Kernel, X: ArrayLike) -> Float[Array, "point mode"]:
        """Columns B (n, k) at X (n, d): ``B @ w`` is the low part for standard normal w (k,)."""
        return self.at(kernel).features(X)

    def columns(self, F: ArrayLike, F_ref: ArrayLike) -> Float[Array, "point column"]:
        r"""Split a kernel given by features, :math:`FF^T`, by the functionals: (n, k + p).

        The first k columns are those of `features`; the other p carry what is left,
        :math:`F(I - GG^T)` with orthonormal G (p, k), so that products of all columns add up to
        :math:`FF^T` and no n x n matrix is formed. More functionals than features are refused.

        Parameters
        ----------
        F : (n, p) features at the points
        F_ref : (r, p) features at ``X_ref``

        Returns
        -------
        (n, k + p), for `bayesrg.gp.MercerNormal` with values 1 and ``orthonormal=False``
        """
        F, F_ref = _checks.features("F", F), _checks.features("F_ref", F_ref)
        k, p = self.V.shape[1], F.shape[1]
        if F_ref.shape != (self.X_ref.shape[0], p):
            raise ValueError(
                f"F_ref has shape {F_ref.shape}; give the features at X_ref, "
                f"{(self.X_ref.shape[0], p)}"
            )
        if k > p:
            raise ValueError(
                f"there are {k} functionals and {p} features, whose kernel has lower rank; keep "
                f"at most {p} functionals"
            )
        return _split(F, F_ref, self.V)


@jax.jit
def _factor(V, K):
    return cholesky(V.T @ K @ V)


@jax.jit
def _split(F, F_ref, V):
    """Columns (n, k + p) of features F (n, p): see `Functionals.columns`."""
    projected = F_ref.T @ V
    pivots = jnp.abs(jnp.diagonal(jnp.linalg.qr(lax.stop_gradient(projected), mode="r")))
    lost = pivots.min() < 1e-10 * pivots.max()  # such as a unit that is zero on all of X_ref
    eye = jnp.eye(*projected.shape, dtype=projected.dtype)
    more = jnp.where(lost, 1e-8 * pivots.max(), 0.0) * eye
    G, R = jnp.linalg.qr(projected + more)  # any orthonormal columns split exactly
    G = G * jnp.where(jnp.diagonal(R) < 0, -1.0, 1.0)  # as Cholesky's factor would have it
    low = F @ G
    return jnp.concatenate([low, F - low @ G.T], 1)


@partial(jax.jit, static_argnums=0)
def _weights(k, projection, values):
    return projection[:, :k] * jnp.sqrt(values[:k])


def functionals(spectrum: Spectrum, k: int) -> Functionals:
    r"""Fix the first k modes of a reference kernel as functionals of the function.

    Where sampled parameters move a kernel's shape its eigenfunctions move too, and there is no
    eigendecomposition inside the model. The functionals :math:`V^T f(X_{ref})` stay what they
    are, with V the eigenvectors of the reference kernel over the roots of their eigenvalues.

    Parameters
    ----------
    spectrum : NystromSpectrum
        Of the reference kernel; learnabilities and cutoffs come from its values.
    k : int
        Functionals kept, from the largest value. The first columns do not depend on k.

    Returns
    -------
    Functionals
        With weights V (r, k). Under the reference kernel itself the low part is that of the
        spectrum's first k modes.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For another kind of spectrum, or k out of range.

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
    if not isinstance(spectrum, NystromSpectrum):
        raise ValueError(
            f"spectrum must come from spectrum.nystrom, got {type(spectrum).__name__}; "
            "functionals are weights of a reference sample, which only that has"
        )
    k = _checks.whole("k", k, most=len(spectrum))
    return Functionals(_weights(k, spectrum.projection, spectrum.values), spectrum.X_ref)
