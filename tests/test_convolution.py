# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import log_normal
from scipy.special import logsumexp

from bayesrg.deep_linear import (
    conv_covariance,
    conv_factor,
    conv_log_likelihood,
    conv_sizes,
    exact,
    order_fourth_moment,
)
from bayesrg.networks import ConvLinear, DeepLinear

NET = ConvLinear((3, 2), (3, 2), (2, 1), ridge=0.2)
SCALED = ConvLinear((3, 2), (3, 2), (2, 1), ridge=0.2, outputs=2, weight_scales=(0.7, 1.1, 1.3))
X = np.random.default_rng(6).standard_normal((2, 2, 7))


def loops(net, weights, x):
    """The network at one input, written out."""
    h, strides = x, net.strides
    for W, stride in zip(weights[:-1], strides, strict=True):
        out = np.zeros((W.shape[0], (h.shape[1] - W.shape[2]) // stride + 1))
        for c, i in np.ndindex(out.shape):
            seen = h[:, stride * i : stride * i + W.shape[2]]
            out[c, i] = (W[c] * seen).sum() / np.sqrt(seen.size)
        h = out
    return (weights[-1] * h).sum((1, 2)) / np.sqrt(h.size)


@eqx.filter_jit
def chain_draws(net, inputs, draws, key=0):
    key, latents = jax.random.key(key), {}
    for size in conv_sizes(net, inputs):
        key, a, b = jax.random.split(key, 3)
        squares = 2 * jax.random.gamma(a, jnp.asarray(size.dof / 2), (draws, size.rank))
        latents[f"c{size.layer}"] = squares
        latents[f"t{size.layer}"] = jax.random.normal(b, (draws, size.normals))
    return conv_factor(net, inputs, latents)


@eqx.filter_jit
def covariance(net, factor):
    return conv_covariance(net, X, factor)


def test_the_network_by_loops():
    net = SCALED
    assert net.sites(7) == (7, 3, 2)
    weights = net.init(0, (2, 7))
    plain = [np.asarray(W) for W in weights]
    expected = [loops(net, plain, x) for x in X]
    assert_allclose(net.apply(weights, X), expected, rtol=1e-12)


def test_local_kernels_are_those_of_the_patches():
    K = np.asarray(NET.local_kernels(X))
    assert K.shape == (3, 3, 2, 2)
    for i, j, m, n in np.ndindex(K.shape):
        left, right = X[m][:, 2 * i : 2 * i + 3], X[n][:, 2 * j : 2 * j + 3]
        assert_allclose(K[i, j, m, n], (left * right).sum() / 6, rtol=1e-12)


def test_reference_moments():
    """The recursion gives the exact numbers, and draws of the chain meet them."""
    E = order_fourth_moment(NET, 7)
    K = np.asarray(NET.local_kernels(X))
    fourth = np.einsum("ijkl,ij,kl->", E, K[:, :, 0, 0], K[:, :, 1, 1])
    fourth += 2 * np.einsum("ijkl,ij,kl->", E, K[:, :, 0, 1], K[:, :, 0, 1])
    assert_allclose(fourth, 4.452226, rtol=0, atol=6e-7)
    C = np.asarray(covariance(NET, chain_draws(NET, 7, 40_000)))[:, 0, :, 0]
    error = C.std(0) / 200
    assert (np.abs(C.mean(0) - [[1.53421, -0.16273], [-0.16273, 1.335523]]) < 4 * error).all()
    numbers = C[:, 0, 0] * C[:, 1, 1] + 2 * C[:, 0, 1] ** 2
    assert abs(numbers.mean() - fourth) < 4 * numbers.std() / 200


def test_the_prior_is_that_of_the_weights():
    """Moments of the functions of two outputs under drawn weights, by plain NumPy."""
    net = SCALED
    rng, n = np.random.default_rng(0), 60_000
    patches = np.stack([X[:, :, 2 * i : 2 * i + 3] for i in range(3)], 1)  # (2, 3, 2, 3)
    W, V = 0.7 * rng.standard_normal((n, 3, 2, 3)), 1.1 * rng.standard_normal((n, 2, 3, 2))
    h = np.einsum("pick,sdck->spdi", patches, W) / np.sqrt(6)
    h = sum(np.einsum("spdi,sed->spei", h[..., k : k + 2], V[..., k]) for k in (0, 1)) / np.sqrt(6)
    f = np.einsum("spei,saei->sap", h, 1.3 * rng.standard_normal((n, 2, 2, 2))) / 2
    C = np.asarray(covariance(net, chain_draws(net, 7, 40_000)))
    for a, p, b, m in ((0, 0, 0, 0), (0, 0, 1, 1), (1, 0, 1, 1)):
        raw = f[:, a, p] * f[:, b, m]
        given = C[:, a, p, b, m]
        error = np.hypot(raw.std() / np.sqrt(n), given.std() / 200)
        assert abs(raw.mean() - given.mean()) < 4 * error
    raw = f[:, 0, 0] ** 2 * f[:, 1, 1] ** 2
    given = C[:, 0, 0, 0, 0] * C[:, 1, 1, 1, 1] + 2 * C[:, 0, 0, 1, 1] ** 2
    E, K = order_fourth_moment(net, 7), np.asarray(net.local_kernels(X))
    E = E.reshape((2, 3) * 4)
    fourth = np.einsum("ijkl,ij,kl->", E[0, :, 0, :, 1, :, 1, :], K[:, :, 0, 0], K[:, :, 1, 1])
    fourth += 2 * np.einsum("ijkl,ij,kl->", E[0, :, 1, :, 0, :, 1, :], K[:, :, 0, 1], K[:, :, 0, 1])
    assert abs(raw.mean() - fourth) < 4 * raw.std() / np.sqrt(n)
    assert abs(given.mean() - fourth) < 4 * given.std() / 200


def test_the_likelihood_is_that_of_dense_algebra():
    net = ConvLinear((3, 2), (3, 2), (2, 1), ridge=0.2, outputs=2)
    factor = np.asarray(chain_draws(net, 7, 1))[0]
    Y = np.random.default_rng(1).standard_normal((2, 2))
    G = factor.reshape(6, -1)
    Q, K = (G @ G.T).reshape(2, 3, 2, 3), np.asarray(net.local_kernels(X))
    C = np.einsum("aibj,ijnm->anbm", Q, K).reshape(4, 4) + 0.2 * np.eye(4)
    expected = log_normal(Y.T.ravel(), np.zeros(4), C)
    found = jax.jit(lambda factor: conv_log_likelihood(net, X, Y, factor))(factor)
    assert_allclose(found, expected, rtol=1e-12)


def test_one_site_is_a_dense_network():
    """A mask as wide as the inputs: the exact evidence of a dense network of that width."""
    rng = np.random.default_rng(2)
    Z, y = rng.standard_normal((5, 2, 3)), rng.standard_normal(5)
    net = ConvLinear((4,), (3,), ridge=0.3, weight_scales=(1.2, 0.9))
    values = jax.jit(lambda: conv_log_likelihood(net, Z, y, chain_draws(net, 3, 50_000)))()
    values = np.asarray(values)
    found = logsumexp(values) - np.log(values.size)
    error = np.exp(values - found).std() / np.sqrt(values.size)
    dense = DeepLinear((4,), ridge=0.3, weight_scales=(1.2, 0.9))
    expected = exact(dense, Z.reshape(5, 6), y).log_evidence
    assert abs(found - expected) < 4 * error < 0.05


def test_skipped_sites_and_many_channels():
    """A stride that skips sites makes Q singular, and its gradients stay finite."""
    net = ConvLinear((5, 4), (2, 1), (1, 2), ridge=0.1)
    sizes = conv_sizes(net, 7)
    latents = {f"c{s.layer}": np.asarray(s.dof) for s in sizes}
    latents |= {f"t{s.layer}": np.full(s.normals, 0.3) for s in sizes}
    Z, y = np.random.default_rng(3).standard_normal((4, 1, 7)), np.arange(4.0)

    def density(latents):
        factor = conv_factor(net, 7, latents)
        return conv_log_likelihood(net, Z, y, factor), factor

    gradient, factor = jax.jit(jax.grad(density, has_aux=True))(latents)
    assert all(np.isfinite(g).all() for g in gradient.values())
    G = np.asarray(factor)[0]
    assert_allclose(G[1::2], 0.0, rtol=0, atol=0)
    wide = ConvLinear((4000, 4000), (3, 2), (2, 1), ridge=0.1)
    E = order_fourth_moment(wide, 7)
    assert_allclose(np.einsum("iijj->ij", E), np.outer(*[[0.25, 0.5, 0.25]] * 2), atol=1e-3)


def test_bad_questions():
    with pytest.raises(ValueError, match="have 2, 1 and 1 entries; give one per layer"):
        ConvLinear((3, 2), (3,), ridge=0.1)
    with pytest.raises(ValueError, match="an entry of masks must be a positive integer, got 0"):
        ConvLinear((3,), (0,), ridge=0.1)
    with pytest.raises(ValueError, match="a mask of 3 does not fit 2 sites"):
        NET.sites(2)
    with pytest.raises(ValueError, match="Y has 501 entries"):
        factor = np.asarray(chain_draws(NET, 7, 40_000))[0]
        conv_log_likelihood(NET, np.zeros((501, 2, 7)), np.zeros(501), factor)
    with pytest.raises(ValueError, match=r"factor has shape \(1, 2, 2\); give \(..., 1, 3, r\)"):
        conv_covariance(NET, X, np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="weight_scales has shape"):
        ConvLinear((3,), (3,), ridge=0.1, weight_scales=(1.0, 1.0, 1.0))
