# SPDX-License-Identifier: Apache-2.0
"""Preconditioners of many points, made from few and checked by products with vectors."""

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
from .preconditioner import Preconditioner, fixed, of_pairs


def landmark_preconditioner(
    kernel: Kernel, X: ArrayLike, landmarks: ArrayLike, g: Callable[[Array], Array], rank: int
) -> Preconditioner:
    r"""Precondition on modes found from fewer points, without an (n, n) factorisation.

    The leading eigenvectors of m landmarks are extended to X (n, d), made orthonormal, and turned
    to diagonalise K in their span (Rayleigh and Ritz). O(n^2 r) time, O(n r + m^2) memory.

    Parameters
    ----------
    kernel : Kernel
    X : (n, d)
    landmarks : (m, d)
        Some of the rows of X, or others like them.
    g : callable
        Map of the Ritz values (r,) over n, falling, as in `preconditioner`. There is no value
        beyond the last: to flatten to it is ``maps.flatten(rank - 1)``.
    rank : int
        Modes r, at most m.

    Returns
    -------
    Preconditioner
        Its vectors are not exact eigenvectors: take the step size from `power_iteration`.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a rank out of range, or above the number of modes that rounding leaves.
    NotImplementedError
        Under differentiation in the kernel; see `preconditioner`.

    References
    ----------
    arXiv 2307.14531; Ma and Belkin (2017), arXiv 1703.10622.
    """
    _checks.require_x64("dynamics.landmark_preconditioner")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    X, landmarks = _checks.inputs("X", X), _checks.inputs("landmarks", landmarks)
    m, n = landmarks.shape[0], X.shape[0]
    _checks.whole("rank", rank, most=min(m, n))
    _, vectors = jnp.linalg.eigh(fixed(kernel(landmarks)))
    Q, _ = jnp.linalg.qr(product(kernel, X, landmarks, vectors[:, ::-1][:, :rank]))
    small = Q.T @ product(kernel, X, X, Q)
    ritz, turn = jnp.linalg.eigh(fixed(0.5 * (small + small.T)))
    return of_pairs(ritz[::-1], Q @ turn[:, ::-1], g, rank, n)


class Largest(NamedTuple):
    """Largest eigenvalue found by `power_iteration`, and how far it is from being one.

    ``value`` (); ``residual`` () is the norm of :math:`Bv - bv` over ``value``.
    """

    value: Float[Array, ""]
    residual: Float[Array, ""]


def power_iteration(
    K: ArrayLike | Callable[[Array], Array],
    S: Preconditioner,
    *,
    iterations: int = 200,
    key: Array | int = 0,
) -> Largest:
    """Estimate the largest eigenvalue of K S by products with vectors alone.

    Parameters
    ----------
    K : (n, n), or a function from vectors (n,) to K times them
    S : Preconditioner
    iterations : int
        Products with K; one more at the end.
    key : JAX key, or int
        Of the first vector.

    Returns
    -------
    value : ()
        A Rayleigh quotient. It is never too large, so a step size of 2 over it may be.
    residual : ()
        The norm of :math:`Bv - bv` over the value: how far it is from an eigenvalue.
    """
    what = "a Preconditioner, which dynamics.preconditioner makes"
    n = _checks.instance("S", S, Preconditioner, what).vectors.shape[0]
    K = hold(K) if callable(K) else _checks.symmetric("K", K)
    if not callable(K) and K.shape[0] != n:
        raise ValueError(f"S acts on {n} points and K on {len(K)}; make both on the same ones")
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
