# SPDX-License-Identifier: Apache-2.0
"""Moments between two networks on one input: a student and its teacher, a network and its copy."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _activations, _checks
from .._checks import ArrayLike
from .linearise import chained, follow, input_moments, resolved, warn_unless_odd


def cross_linearise(
    weights,
    activations,
    teacher_weights,
    teacher_activations,
    Omega0: ArrayLike,
    *,
    paired: bool | int | Sequence = True,
    method: str = "closure",
    mean0: ArrayLike | None = None,
) -> list[Array]:
    r"""Compute the moments :math:`\Phi_l = E x_l\tilde x_l^T` between two networks' features.

    With :math:`H = W\,Cov(x, \tilde x)V^T`, the covariance below becomes
    :math:`\kappa_{1i}\tilde\kappa_{1j}H_{ij} + \frac12\kappa_{2i}\tilde\kappa_{2j}H_{ij}^2`
    between units i and j, and the exact bivariate covariance for paired units.

    Parameters
    ----------
    weights, teacher_weights : sequences of (p_l, p_{l-1}), equally many
        None for a layer that a network does not have: it passes its features on.
    activations, teacher_activations : name or callable, or a sequence of one per layer
        Described at `hermite`; not used where weights are None.
    Omega0 : (p_0, p_0) second moment of the inputs, not centred
    paired : bool or int, or a sequence of one per layer
        How many units are paired: all (True), none, or the first so many. Pair units i of both
        networks if their rows of weights are shared or drawn jointly. For independent rows it
        changes nothing in the limit of wide layers.
    method : "closure", "unit" or "mean"
        Described at `linearise`; "mean" has one coefficient for all paired units.
    mean0 : (p_0,), optional
        Mean of the inputs, zero by default.

    Returns
    -------
    list of arrays (p, q), one per layer
        Not centred, from the first layer up. A target :math:`\theta\cdot\tilde x + \epsilon` has
        :math:`\psi = \Phi\theta`.

    Raises
    ------
    ValueError
        As `linearise`, and for networks of different depth.

    Warns
    -----
    UserWarning
        For "unit" and "mean" with two or more layers and an activation that is not odd.

    References
    ----------
    arXiv 2402.13999, with the term of paired units.
    """
    _checks.warn_32_bits("theory.cross_linearise")
    _checks.choice("method", method, ("closure", "unit", "mean"))
    what = "matrices or None, one per layer"
    depth = len(_checks.sequence("weights", weights, what))
    if depth != len(_checks.sequence("teacher_weights", teacher_weights, what)):
        raise ValueError(
            f"weights has {depth} layers and teacher_weights {len(teacher_weights)}; give None for "
            "the layers that one does not have"
        )
    mean, K, _ = input_moments(Omega0, mean0, method)
    student = _network("", weights, activations, mean.size)
    teacher = _network("teacher_", teacher_weights, teacher_activations, mean.size)
    warn_unless_odd(student[1], method)
    warn_unless_odd(teacher[1], method)
    if not isinstance(paired, list | tuple):
        paired = (paired,) * depth
    paired = _checks.sequence("paired", paired, "counts or booleans, one per layer, or one for all")
    if len(paired) != depth:
        raise ValueError(f"paired has {len(paired)} entries for {depth} layers; give one per layer")
    cross, one, two, moments = K, (K, mean), (K, mean), []
    for W, f, V, g, pairs in zip(*student, *teacher, paired, strict=True):
        pairs = _pairs(pairs, min(len(W), len(V)))
        cross, one, two = _layer((W, *one, f), (V, *two, g), cross, pairs, method)
        moments.append(cross + jnp.outer(one[1], two[1]))
    return moments


def _network(prefix, weights, activations, inputs):
    """Return matrices and activations of a network, identities where it has no layer."""
    functions = resolved(f"{prefix}activations", activations, len(weights))
    linear, matrices, size = _activations.resolve("linear"), [], inputs
    for W in weights:
        W = jnp.eye(size) if W is None else _checks.finite(f"{prefix}weights", W, ndim=2)
        matrices.append(W)
        size = len(W)
    functions = [linear if W is None else f for W, f in zip(weights, functions, strict=True)]
    return chained(f"{prefix}weights", matrices, inputs), functions


def _pairs(given, most):
    """Return the number of paired units in a layer, at most ``most``."""
    if isinstance(given, bool | np.bool_):
        return most if given else 0
    return _checks.whole("paired", given, least=0, most=most)


@partial(jax.jit, static_argnames=("pairs", "method"))
def _layer(student, teacher, cross, pairs, method):
    """Covariance between two layers, and covariance and mean of each, from the layers below.

    ``student`` and ``teacher`` are weights, covariance and mean below, and the activation.
    """
    (W, K, mean, f), (V, T, teacher_mean, g) = student, teacher
    H = W @ cross @ V.T
    h, m = W @ mean, V @ teacher_mean
    if method != "closure":  # the other methods ignore means
        h, m = jnp.zeros_like(h), jnp.zeros_like(m)
    K, mean, r, left = follow(W, K, mean, f, method)
    T, teacher_mean, q, right = follow(V, T, teacher_mean, g, method)
    cross = jnp.outer(left.k1, right.k1) * H
    if method == "closure":
        cross = cross + jnp.outer(left.k2, right.k2) * H**2 / 2
    if pairs:
        # the covariance c of paired units is of order one, too large for the expansion
        c = jnp.diagonal(H)[:pairs]
        used = slice(pairs)
        if method == "mean":  # all units have the same moments
            c, used = c.mean(keepdims=True), slice(1)
        given = (r[used], q[used], c, h[used], m[used])
        both = jax.lax.map(lambda x: _activations.gaussian_product(f, g, *x), given, batch_size=32)
        both = both - left.a0[used] * right.a0[used]
        if method == "mean":  # the linear part stays that of each pair
            both = both - c * left.k1[used] * right.k1[used] + jnp.diagonal(cross)[:pairs]
        index = jnp.arange(pairs)
        cross = cross.at[index, index].set(both)
    return cross, (K, mean), (T, teacher_mean)
