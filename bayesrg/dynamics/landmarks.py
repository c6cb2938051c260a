# SPDX-License-Identifier: Apache-2.0
"""Preconditioners of many points, made from few of them, and their largest eigenvalue."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float

from .. import _checks
from .._callables import hold
from .._checks import ArrayLike
from ..kernels import Kernel
from ..kernels.products import product
from .preconditioner import Preconditioner, fixed, of_pairs, weighting


def landmark_preconditioner(
    kernel: Kernel, X: ArrayLike, landmarks: ArrayLike, g: Callable[[Array], Array], rank: int
) -> Preconditioner:
    r"""Make a preconditioner of n points from m landmarks, without an (n, n) factorisation.

    The leading eigenvectors at the landmarks are extended to X and made orthonormal. In their span
    K is then diagonalised (Rayleigh-Ritz). This takes O(n^2 r) time and O(n r + m^2) memory.

    Parameters
    ----------
    kernel : Kernel
    X : (n, d)
    landmarks : (m, d)
        Some of the rows of X, or other points like them.
    g : callable
        Map from eigenvalues (r,) of K/n, largest first, to new ones (r,), as in `preconditioner`.
        It gets the Ritz values, of which there are only r: to make all of them equal to the last
        one, use ``maps.flatten(rank - 1)``.
    rank : int
        Number r of modes, at most m.

    Returns
    -------
    Preconditioner
        Its vectors are not exact eigenvectors of K. So find the step size by `power_iteration`.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a rank out of range, or above the number of modes larger than the rounding error.
    NotImplementedError
        Under differentiation in the kernel: eigenvectors have no derivative where eigenvalues are
        equal.

    References
    ----------
    arXiv 2307.14531; Ma and Belkin (2017), arXiv 1703.10622.
    """
    _checks.require_x64("dynamics.landmark_preconditioner")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    X, landmarks = _checks.inputs("X", X), _checks.inputs("landmarks", landmarks)
    m, n = landmarks.shape[0], X.shape[0]
    _checks.whole("rank", rank, most=min(m, n))
    return of_pairs(*_ritz_pairs(kernel, X, landmarks, rank), g, rank, n)


@eqx.filter_jit
def _ritz_pairs(kernel, X, landmarks, rank):
    """Return r approximate eigenvalues of the matrix at X, largest first, and their vectors."""
    _, vectors = jnp.linalg.eigh(fixed(kernel(landmarks)))
    Q, _ = jnp.linalg.qr(product(kernel, X, landmarks, vectors[:, ::-1][:, :rank]))
    small = Q.T @ product(kernel, X, X, Q)
    ritz, turn = jnp.linalg.eigh(fixed(0.5 * (small + small.T)))
    return ritz[::-1], Q @ turn[:, ::-1]


class Largest(NamedTuple):
    """Result of `power_iteration`.

    Attributes
    ----------
    value : ()
        Estimate b of the largest eigenvalue. It is never too large.
    residual : ()
        Norm of :math:`Bv - bv` divided by b, for the unit vector v that was found: how far v is
        from an eigenvector of :math:`B = S^{1/2}KS^{1/2}`.
    """

    value: Float[Array, ""]
    residual: Float[Array, ""]


def power_iteration(
    K: ArrayLike | Callable[[Array], Array],
    S: Preconditioner,
    *,
    key: Array | int,
    iterations: int = 200,
) -> Largest:
    """Estimate the largest eigenvalue of K S from products with vectors only.

    Descent is stable at step sizes below 2 over the largest eigenvalue. The estimate may be too
    small, and then 2 over the estimate is too large; so take a smaller step.

    Parameters
    ----------
    K : (n, n) array, or a function from a vector (n,) to K times it
    S : Preconditioner
    key : JAX key, or int
        For the first vector.
    iterations : int
        Number of products with K; one more is made at the end.

    Returns
    -------
    Largest
    """
    what = "a Preconditioner, which dynamics.preconditioner makes"
    n = _checks.instance("S", S, Preconditioner, what).vectors.shape[0]
    if callable(K):
        K = hold(K)
    else:
        K = _checks.symmetric("K", K)
        weighting(S, len(K))
    _checks.whole("iterations", iterations)
    key = _checks.random_key(key)
    start = random.normal(key, (n,), S.vectors.dtype)
    return _iterate(K, S.root(), start / jnp.linalg.norm(start), iterations)


@eqx.filter_jit
def _iterate(K, root, start, iterations):
    def image(v):
        right = root @ v
        return root @ (_checks.returned("K", K(right)) if callable(K) else K @ right)

    def turn(v, _):
        new = image(v)
        norm = jnp.linalg.norm(new)
        return new / jnp.where(norm > 0, norm, 1.0), None

    v, _ = lax.scan(turn, start, length=iterations)
    new = image(v)
    value = v @ new
    return Largest(value, jnp.linalg.norm(new - value * v) / jnp.where(value > 0, value, 1.0))
