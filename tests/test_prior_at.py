# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from bayesrg import gp, kernels, spectrum

rng = np.random.default_rng(5)
X, X_REF, CUT = rng.uniform(0, 2, 7), rng.uniform(0, 2, 20), 2
FEATURES, VALUES, REST = rng.normal(size=(7, 3)), np.array([1.0, 0.5, 0.2]), rng.uniform(size=7)


@pytest.fixture(scope="module", autouse=True)
def nystrom():
    """Compile when the tests run: every worker collects all files."""
    global NYSTROM
    NYSTROM = spectrum.nystrom(kernels.RBF(0.6), X_REF, rank=4)


def rbf(lengthscale):
    return np.exp(-0.5 * (X[:, None] - X) ** 2 / lengthscale**2)


# what makes a prior at the points, its whole covariance, and how many modes it has
PRIORS = {
    "kernel": (lambda: kernels.RBF(0.6).at(X), rbf(0.6), 0),
    "spectrum": (lambda: NYSTROM.at(X), rbf(0.6), 4),
    "functionals": (
        lambda: spectrum.functionals(NYSTROM, 3).at(kernels.RBF(0.9)).at(X), rbf(0.9), 3,
    ),
    "complete spectrum": (
        lambda: spectrum.fourier(lambda j: 1.0 - 0.5 * (j > 0), 3, period=3.0).at(X),
        1.0 + np.cos(2 * np.pi * (X[:, None] - X) / 3), 3,
    ),
    "diagonal": (
        lambda: gp.PriorAt(FEATURES, VALUES, REST),
        (FEATURES * VALUES) @ FEATURES.T + np.diag(REST),
        3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRIORS)
def test_the_parts_of_a_prior_at_points_make_its_covariance(name):
    make, K, modes = PRIORS[name]
    cut = min(CUT, modes)

    @jax.jit
    def ask():
        prior = make()
        low, high = prior.low(cut), prior.high(cut)
        return (
            prior.dense(), low.dense() + high.dense(), prior.variance(), prior.cross(5),
            prior.rows(slice(1, 4)).dense(), prior.root(), high.dense(), prior.eigenpairs(cut),
        )  # fmt: skip

    whole, sum_of_parts, variance, cross, some, root, high, (U, eigenvalues) = ask()
    close = dict(rtol=0, atol=1e-12)
    np.testing.assert_allclose(whole, K, **close)
    np.testing.assert_allclose(sum_of_parts, K, **close)
    np.testing.assert_allclose(variance, np.diag(K), **close)
    np.testing.assert_allclose(cross, K[:5, 5:], **close)
    np.testing.assert_allclose(some, K[1:4, 1:4], **close)
    np.testing.assert_allclose(root @ root.T, K, **close)
    np.testing.assert_allclose((U * eigenvalues) @ U.T, high, **close)
