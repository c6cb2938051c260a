# SPDX-License-Identifier: Apache-2.0
"""What a law that splits owes to `rg.Coarse` and `predict`, for all such laws alike.

Given low modes w, observations follow ``rest.shift(root @ w)``. Densities, leave-one-out densities
and predictions of that law are compared with those of its whole covariance matrix; at cutoff zero
it is the uncut law.
"""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from oracles import conditional, log_normal

from bayesrg.gp import LaplaceMarginal, MatrixMercerNormal, MercerNormal, eigenpairs

SLOW = pytest.mark.slow
rng = np.random.default_rng(3)
N, GIVEN, RIDGE, NOISE = 7, 5, 0.3, 0.6
F, V = rng.standard_normal((N, 4)), np.array([2.0, 1.0, 0.5, 0.2])
DENSE = (lambda B: B @ B.T / 20)(rng.standard_normal((N, 9)))
ORDER, W = np.array([[1.0, 0.4], [0.4, 0.7]]), rng.standard_normal((2, 2))
Y = rng.standard_normal((N, 2))
ONE = {"ridge": RIDGE, "loc": 0.2}


def laplace():
    return LaplaceMarginal(MercerNormal(F, V, **ONE), lambda f: dist.Normal(f, NOISE))


# what makes a law, its residual, noise that only observations have, covariance of its outputs
LAWS = {
    "dense": (lambda: MercerNormal(F, V, residual=DENSE, **ONE), DENSE, 0.0, None),
    "low rank": (lambda: MercerNormal(F, V, **ONE), None, 0.0, None),
    "low rank and diagonal": (
        lambda: MercerNormal(F, V, residual=np.diag(DENSE), **ONE), np.diag(np.diag(DENSE)), 0.0,
        None,
    ),
    "eigen": (lambda: MercerNormal(F, V, eigen=eigenpairs(F, V), **ONE), None, 0.0, None),
    "several outputs": (
        lambda: MatrixMercerNormal(F, V, order=ORDER, residual=DENSE, **ONE), DENSE, 0.0, ORDER,
    ),
    "Laplace": (laplace, None, NOISE**2, None),
}  # fmt: skip


# uncut laws have tests of their own; here one of them stands for the others
CASES = [(name, 2) for name in LAWS] + [
    (name, 0) if name == "low rank" else pytest.param(name, 0, marks=SLOW) for name in LAWS
]


@pytest.mark.parametrize("name, cutoff", CASES)
def test_a_law_that_was_cut_answers_as_its_covariance_does(name, cutoff):
    make, residual, noise, order = LAWS[name]
    law = make()
    several = order is not None
    y, w = (Y, W[:cutoff]) if several else (Y[:, 0], W[:cutoff, 0])
    own = eigenpairs(F[:, cutoff:], V[cutoff:]) if name == "eigen" else None

    @jax.jit
    def ask(y, w):
        root, rest = law.split(cutoff, eigen=own)
        moved = rest.shift(root @ w)
        return root @ w, moved.log_prob(y), moved.loo(y), moved.krige(y[:GIVEN])

    shift, density, loo, (mean, variance, ridge) = jax.tree.map(np.asarray, ask(y, w))

    mixing = np.linalg.cholesky(order) if several else np.eye(1)
    low = (F * np.sqrt(V))[:, :cutoff] @ w.reshape(cutoff, len(mixing)) @ mixing.T
    np.testing.assert_allclose(shift, low.reshape(y.shape), rtol=1e-12, atol=1e-14)
    prior = (F * V)[:, cutoff:] @ F[:, cutoff:].T + (0.0 if residual is None else residual)
    prior = np.kron(prior, order if several else np.eye(1))
    law_of_f = prior + RIDGE * np.eye(len(prior))
    C, m, flat = law_of_f + noise * np.eye(len(prior)), 0.2 + low.ravel(), y.ravel()
    np.testing.assert_allclose(density, log_normal(flat, m, C), rtol=1e-10)

    each = np.arange(y.size).reshape(N, -1)
    for i, own_entries in enumerate(each):
        others = np.setdiff1d(np.arange(y.size), own_entries)
        one = conditional(C, others, own_entries, flat[others], m)
        np.testing.assert_allclose(loo[i], log_normal(flat[own_entries], *one), rtol=1e-8)

    given, wanted = each[:GIVEN].ravel(), each[GIVEN:].ravel()
    C[np.ix_(wanted, wanted)] = law_of_f[np.ix_(wanted, wanted)]
    expected, cov = conditional(C, given, wanted, flat[given], m)
    np.testing.assert_allclose(mean.ravel(), expected, rtol=1e-9)
    np.testing.assert_allclose((variance + ridge).ravel(), np.diag(cov), rtol=1e-9)
