# SPDX-License-Identifier: Apache-2.0
"""Kernels of networks with one layer applied until nothing changes."""

from functools import partial

import jax
import numpy as np
import pytest
from oracles import central_difference

from bayesrg._activations import dual_of
from bayesrg.kernels import DEQ
from bayesrg.kernels.deq import _gram

ROWS = np.random.default_rng(0).standard_normal((3, 5))


def test_equilibrium():
    X = np.concatenate([ROWS, ROWS[:1], -ROWS[1:2]])
    weights = np.random.default_rng(1).standard_normal((5, 5))

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def loss(v):
        S, theta = _gram(DEQ("erf", v[0], v[1], v[2]), X, None)
        return (weights * theta).sum(), (S, theta)

    v = np.array([0.5, 1.0, 0.1])
    (_, (S, theta)), gradient = loss(v)
    S, theta = np.asarray(S), np.asarray(theta)
    np.testing.assert_allclose(S[0, :3], [0.393415, 0.424734, -0.109704], rtol=0, atol=6e-7)
    np.testing.assert_allclose(theta[0, :3], [0.652245, 0.577445, -0.140546], rtol=0, atol=6e-7)
    every = DEQ("erf", 0.5, 1.0, 0.1, train="all")(X)
    np.testing.assert_allclose(every, theta, rtol=1e-13)
    numeric = central_difference(lambda v: loss(v)[0][0], v)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


def test_vmap_and_jit_over_hyperparameters():
    """Against steps of the map in plain NumPy."""
    weights, inner = np.array([0.3, 0.5]), ROWS @ ROWS.T / 5
    mapped = jax.jit(jax.vmap(lambda w: DEQ("erf", w)(ROWS)))(weights)
    for w, found in zip(weights, mapped, strict=True):
        S = inner
        for _ in range(200):
            a = 1 + 2 * np.diagonal(S)
            S = inner + w * 2 / np.pi * np.arcsin(2 * S / np.sqrt(np.outer(a, a)))
        np.testing.assert_allclose(found, S, rtol=1e-12)


@pytest.mark.slow
def test_equilibrium_that_contracts_slowly_and_one_of_a_series():
    for kernel in (DEQ("relu", 1.98, 1.0, 0.1), DEQ("silu", 1.0, 1.0, 0.1)):
        dual, K = dual_of(kernel.activation), np.asarray(kernel(ROWS))
        a, b, c = K[0, 0], K[1, 1], K[0, 1]
        V = jax.jit(lambda a, b, c, d=dual: d.covariance(d.prepare(a), d.prepare(b), c))(a, b, c)
        right = kernel.weight_var * V + ROWS[0] @ ROWS[1] / 5 + 0.1
        np.testing.assert_allclose(c, right, rtol=1e-12)
