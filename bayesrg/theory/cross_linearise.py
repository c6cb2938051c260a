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
    method: str | None = None,
    mean0: ArrayLike | None = None,
) -> list[Array]:
    r"""Follow the moment :math:`\Phi_l = E x_l\tilde x_l^T` of two networks' features.

    With :math:`H = W\,Cov(x, \tilde x)V^T` the covariance goes to
    :math:`\kappa_{1i}\tilde\kappa_{1j}H_{ij} + \frac12\kappa_{2i}\tilde\kappa_{2j}H_{ij}^2`, and
    to the exact bivariate covariance for units that are paired.

    Parameters
    ----------
    weights, teacher_weights : sequences of (p_l, p_{l-1}), equally many
        None for a layer that a network does not have: it passes its features on.
    activations, teacher_activations : name or callable, or a sequence of one per layer
        As in `hermite`; not used where weights are None.
    Omega0 : (p_0, p_0) uncentred second moment of the inputs
    paired : bool or int, or a sequence of one per layer
        Units of equal index, the first so many or all, whose rows of weights are shared or drawn
        jointly. For independent rows it changes nothing in the limit of wide layers.
    method : "closure", the default, "unit" or "mean"
        As in `linearise`; "mean" has one coefficient for all paired units.
    mean0 : (p_0,), optional
        Mean of the inputs, zero by default.

    Returns
    -------
    list of arrays (p, q), a layer each
        Uncentred, from the first layer up. A target :math:`\theta\cdot\tilde x + \epsilon` has
        :math:`\psi = \Phi\theta`.

    Raises
    ------
    ValueError
        As `linearise`, and for networks of different depth.

    Warns
    -----
    UserWarning
        As `linearise`.

    References
    ----------
    arXiv 2402.13999, with the term of paired units.
    """
    _checks.warn_32_bits("theory.cross_linearise")
    allowed = ("closure", "unit", "mean")
    method = _checks.choice("method", "closure" if method is None else method, allowed)
    _checks.sequence("weights", weights, "matrices or None, one per layer")
    _checks.sequence("teacher_weights", teacher_weights, "matrices or None, one per layer")
    if len(weights) != len(teacher_weights):
        raise ValueError(
            f"weights has {len(weights)} layers and teacher_weights {len(teacher_weights)}; give "
            "None for the layers that one does not have"
        )
    Omega0, mean, K, _ = input_moments(Omega0, mean0, method)
    student = _network("weights", weights, "activations", activations, mean.size)
    names = ("teacher_weights", teacher_weights, "teacher_activations", teacher_activations)
    teacher = _network(*names, mean.size)
    for _, functions in (student, teacher):
        warn_unless_odd(functions, method)
    one = isinstance(paired, bool | int | np.bool_ | np.integer)
    what = "counts or booleans, one per layer, or one for all"
    paired = (paired,) * len(weights) if one else tuple(_checks.sequence("paired", paired, what))
    if len(paired) != len(weights):
        raise ValueError(f"paired has {len(paired)} entries for {len(weights)} layers")
    cross, states, moments = K, [(K, mean), (K, mean)], []
    for W, f, V, g, pairs in zip(*student, *teacher, paired, strict=True):
        every = isinstance(pairs, bool | np.bool_) and bool(pairs)
        pairs = 0 if isinstance(pairs, bool | np.bool_) else pairs
        count = min(len(W), len(V)) if every else _checks.whole("paired", pairs, least=0)
        if not 0 <= count <= min(len(W), len(V)):
            raise ValueError(
                f"paired asks for {count} pairs of units in layers of {len(W)} and {len(V)}; give "
                "at most the smaller width"
            )
        cross, states = _layer(W, V, cross, states, f, g, count, method)
        moments.append(cross + jnp.outer(states[0][1], states[1][1]))
    return moments


def _network(name, weights, function_name, activations, inputs):
    """Matrices and activations of a network, identities where it has no layer."""
    matrices, size = [], inputs
    for W in weights:
        matrices.append(jnp.eye(size) if W is None else W)
        matrices[-1] = _checks.finite(f"an entry of {name}", matrices[-1], ndim=2)
        size = matrices[-1].shape[0]
    functions = resolved(function_name, activations, len(matrices))
    linear = _activations.resolve("linear")
    functions = [linear if W is None else f for W, f in zip(weights, functions, strict=True)]
    return chained(name, matrices, inputs), functions


@partial(jax.jit, static_argnames=("pairs", "method"))
def _layer(W, V, cross, states, f, g, pairs, method):
    (K, mean), (T, teacher_mean) = states
    H = W @ cross @ V.T
    h = W @ mean if method == "closure" else jnp.zeros(len(W), H.dtype)
    m = V @ teacher_mean if method == "closure" else jnp.zeros(len(V), H.dtype)
    K, mean, _, r, left = follow(W, K, mean, None, f, method)
    T, teacher_mean, _, q, right = follow(V, T, teacher_mean, None, g, method)
    cross = jnp.outer(left.k1, right.k1) * H
    if method == "closure":
        cross = cross + jnp.outer(left.k2, right.k2) * H**2 / 2
    index = jnp.arange(pairs)
    if pairs:
        c = jnp.diagonal(H)[:pairs]
        used = slice(0, 1) if method == "mean" else slice(0, pairs)
        given = (r[used], q[used], c.mean()[None] if method == "mean" else c, h[used], m[used])
        both = (
            jax.lax.map(lambda x: _activations.gaussian_product(f, g, *x), given, batch_size=32)
            - left.a0[used] * right.a0[used]
        )
        if method == "mean":
            both = both - given[2] * left.k1[:1] * right.k1[:1] + jnp.diagonal(cross)[:pairs]
        cross = cross.at[index, index].set(both)
    return cross, [(K, mean), (T, teacher_mean)]
