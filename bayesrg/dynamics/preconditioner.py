# SPDX-License-Identifier: Apache-2.0
"""Matrices that precondition gradient descent in the space of the points."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn


class Preconditioner(eqx.Module):
    r"""Matrix :math:`S = I + V\,\mathrm{diag}(a - 1)\,V^T` on the axis of points; ``S @ r`` is S r.

    Attributes
    ----------
    vectors : (n, r)
        Orthonormal columns V: the modes that S changes.
    gains : (r,)
        Factors :math:`a_i = g_i/l_i`, zero or more, by which S multiplies the modes.
    values : (r,)
        Eigenvalues :math:`l_i` of the matrix K that S was made from, with the ridge.
    eigenvalues : (r,)
        Eigenvalues :math:`g_i` of K S, with the ridge: the rates of learning.
    """

    vectors: Float[Array, "point mode"]
    gains: Float[Array, " mode"]
    values: Float[Array, " mode"]
    eigenvalues: Float[Array, " mode"]

    def __matmul__(self, r: ArrayLike) -> Array:
        r, n = _checks.finite("r", r), self.vectors.shape[0]
        if r.ndim == 0 or r.shape[0] != n:
            raise ValueError(f"S acts on {n} points and r has shape {r.shape}; make r ({n}, ...)")
        inner = self.vectors.T @ r
        return r + self.vectors @ ((self.gains - 1.0).reshape(-1, *[1] * (r.ndim - 1)) * inner)

    def dense(self) -> Float[Array, "point point_bis"]:
        """Return S as a matrix (n, n)."""
        return self @ jnp.eye(self.vectors.shape[0], dtype=self.vectors.dtype)

    def root(self) -> "Preconditioner":
        """Return the symmetric square root of S."""
        return eqx.tree_at(lambda S: S.gains, self, jnp.sqrt(self.gains))

    def coverage(self, residual: ArrayLike) -> Float[Array, ""]:
        """Return the share of the squared norm of ``residual`` (n,) or (n, c) in the modes of S."""
        r = _checks.squares("residual", _checks.targets("residual", residual, len(self.vectors)))
        power = (r**2).sum()
        if _checks.known(power) and not power > 0:
            raise ValueError("residual is zero, and has no power to share")
        return ((self.vectors.T @ r) ** 2).sum() / power


Weighting = Preconditioner | ArrayLike | None


def weighting(S: Weighting, n: int | None = None) -> Weighting:
    """Return S after checks: a preconditioner, a symmetric matrix or None, acting on n points."""
    if S is None:
        return S
    S = S if isinstance(S, Preconditioner) else _checks.symmetric("S", S)
    size = len(S.vectors if isinstance(S, Preconditioner) else S)
    if n not in (None, size):
        raise ValueError(f"S acts on {size} points and there are {n}; make S on the same points")
    return S


def preconditioner(
    K: ArrayLike,
    g: Callable[[Array], Array],
    rank: int | None = None,
    *,
    ridge: ArrayLike = 0.0,
    rtol: float | None = None,
) -> Preconditioner:
    r"""Make a matrix S with which descent learns the modes of a kernel at chosen rates.

    With :math:`K + \rho I = V\,\mathrm{diag}(l)\,V^T` the first modes of :math:`(K + \rho I)S`
    have eigenvalues :math:`g_i = n\,g(l_i/n)`. The other modes keep their eigenvalues.

    Parameters
    ----------
    K : (n, n)
        Gram matrix of an analytic tangent kernel, or J J^T of a network.
    g : callable
        Map from eigenvalues (k,) of K/n, largest first, to new ones (k,). It is one of
        `bayesrg.spectrum.maps`, or a function of your own.
    rank : int, optional
        Number of modes that S changes; by default all above the rounding error.
    ridge : ()
        Ridge :math:`\rho` of a descent in dual coordinates, see `dual`.
    rtol : float, optional
        Modes with eigenvalues below ``rtol`` times the largest are not changed; by default n times
        the machine precision.

    Returns
    -------
    Preconditioner

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a matrix that is not symmetric or has no positive eigenvalue, a rank out of range, or
        a negative g.
    NotImplementedError
        Under differentiation in K: eigenvectors have no derivative where eigenvalues are equal.
        Pass ``jax.lax.stop_gradient(K)``. Derivatives in the ridge and in parameters of g exist.

    Warns
    -----
    UserWarning
        If g raises an eigenvalue that is close to the rounding error.

    References
    ----------
    arXiv 2307.14531.
    """
    _checks.require_x64("dynamics.preconditioner")
    K = _checks.symmetric("K", K)
    n = K.shape[0]
    ridge = _checks.nonnegative("ridge", ridge, ndim=0)
    return of_pairs(*_eigenpairs(K, ridge), g, rank, n, rtol)


@jax.jit
def _eigenpairs(K, ridge):
    values, vectors = jnp.linalg.eigh(fixed(K))
    return values[::-1] + ridge, vectors[:, ::-1]


def of_pairs(
    values: Float[Array, " mode"],
    vectors: Float[Array, "point mode"],
    g: Callable[[Array], Array],
    rank: int | None,
    n: int,
    rtol: float | None = None,
) -> Preconditioner:
    """Make S from eigenpairs, largest first, of a matrix on n points; see `preconditioner`."""
    _checks.function("g", g, "a map of eigenvalues, as spectrum.maps has")
    eps = float(jnp.finfo(values.dtype).eps)
    rtol = n * eps if rtol is None else _checks.number("rtol", rtol, least=0)
    usable = len(values)
    if _checks.known(values):
        host = np.asarray(values)
        usable = int((host > rtol * host[0]).sum())
        if usable == 0:
            raise ValueError(
                f"K has no positive eigenvalue, the largest is {host[0]:.3g}; give the Gram matrix "
                "of a positive kernel"
            )
    rank = usable if rank is None else _checks.whole("rank", rank)
    if rank > usable:
        raise ValueError(
            f"rank is {rank} and {usable} of {n} modes are above rtol; lifting the others "
            "amplifies rounding: lower rank"
        )
    new = n * _checks.returned("g", g(values[:usable] / n)).astype(values.dtype)
    if new.shape != (usable,):
        raise ValueError(f"g returned shape {new.shape} for {usable} eigenvalues; return one each")
    S = _assemble(vectors, values, new, rtol, rank)
    if _checks.known(S.values) and _checks.known(new):
        _check_map(np.asarray(S.values), np.asarray(new)[:rank], n)
    return S


@partial(jax.jit, static_argnames="rank")
def _assemble(vectors, values, new, rtol, rank):
    there = (values > rtol * values[0])[:rank]
    vectors, values, new = vectors[:, :rank], values[:rank], new[:rank]

    # if values are traced, modes of rounding error are still among them: do not change these
    new = jnp.where(there, new, values)
    gains = jnp.where(there, new / jnp.where(there, values, 1.0), 1.0)
    return Preconditioner(vectors, gains, values, new)


@jax.custom_jvp
def fixed(K):
    """Return K; differentiation in K raises."""
    return K


@fixed.defjvp
def _refuse(primals, tangents):
    raise NotImplementedError(
        "a preconditioner has no derivative in K, since eigenvectors have none where eigenvalues "
        "are equal; make it of jax.lax.stop_gradient(K), and differentiate in the parameters of g"
    )


def _check_map(old, new, n):
    """Raise if new eigenvalues are negative or nan, warn if one is mostly rounding error."""
    bad = np.flatnonzero(~(new >= 0))
    if bad.size:
        raise ValueError(
            f"spectral map produced {'a negative eigenvalue' if new[bad[0]] < 0 else 'nan'} at "
            f"lam={old[bad[0]] / n:.6g}: S would not be positive semi-definite; give a map with "
            "g >= 0"
        )

    # the relative rounding error of each old eigenvalue, times its share of the new spectrum
    noise = np.finfo(old.dtype).eps * n * old[0] / old * new / max(new.max(), np.finfo(float).tiny)
    i = int(noise.argmax())
    if noise[i] > 1e-3:
        warn(
            f"mode {i} has l_i/l_1={old[i] / old[0]:.2g}, close to round-off; lifting it amplifies "
            f"rounding by {new[i] / old[i]:.2g}: lower rank or raise rtol"
        )
