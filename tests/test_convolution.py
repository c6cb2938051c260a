# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpyro.infer.util import log_density
from oracles import log_normal
from scipy.special import logsumexp
from scipy.stats import gamma, norm

from bayesrg.deep_linear import conv_covariance, conv_factor, conv_sizes, exact
from bayesrg.models import deep_linear_conv
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


def latents_of_the_prior(net, inputs, draws):
    """Independent Bartlett variables, by NumPy."""
    rng, latents = np.random.default_rng(0), {}
    for size in conv_sizes(net, inputs):
        latents[f"c{size.layer}"] = rng.chisquare(size.dof, (draws, size.rank))
        latents[f"t{size.layer}"] = rng.standard_normal((draws, size.normals))
    return latents


@eqx.filter_jit
def factor_and_covariance(net, X, latents):
    factor = conv_factor(net, X.shape[2], latents)
    return factor, conv_covariance(net, X, factor)


def covariances(net, X=X, draws=40_000):
    latents = latents_of_the_prior(net, X.shape[2], draws)
    return np.asarray(factor_and_covariance(net, X, latents)[1])


def transfer(net, sites, layer):
    """Matrices (mask, c S_{l-1}, c S_l) with T[Q] the sum of A Q A^T over the first axis."""
    m, stride = net.masks[layer - 1], net.steps[layer - 1]
    T = np.zeros((m, sites[layer - 1], sites[layer]))
    for k, i in np.ndindex(m, sites[layer]):
        T[k, stride * i + k, i] = 1 / np.sqrt(m)
    return np.stack([np.kron(np.eye(net.outputs), A) for A in T])


def order_fourth_moment(net, inputs):
    """Prior mean of Q_ij Q_kl (s, s, s, s) over outputs and sites, outputs slowest.

    For W Wishart with C degrees of freedom around S, E W_ij W_kl = E S_ij S_kl + (E S_ik S_jl +
    E S_il S_jk) / C, then T on both pairs of indices.
    """
    sites, c = net.sites(inputs), net.outputs
    eye = np.eye(c * sites[-1]) / sites[-1]
    E = np.einsum("ij,kl->ijkl", eye, eye)
    for layer in range(net.depth, 0, -1):
        other = np.einsum("ikjl->ijkl", E) + np.einsum("iljk->ijkl", E)
        E = E + other / net.channels[layer - 1]
        if layer > 1:
            T = transfer(net, sites, layer)
            E = np.einsum("kia,kjb,hlc,hmd,abcd->ijlm", T, T, T, T, E, optimize=True)
    return E


def local_kernels(net, X):
    """Products of the patches that the units of the first layer see, (S_1, S_1, n, n), by loops."""
    m, stride, s = net.masks[0], net.steps[0], net.sites(X.shape[2])[1]
    scales = np.prod(np.broadcast_to(net.weight_scales, net.depth + 1)) ** 2
    seen = np.stack([X[:, :, stride * i : stride * i + m].reshape(len(X), -1) for i in range(s)])
    return scales * np.einsum("inp,jmp->ijnm", seen, seen) / seen.shape[2]


def test_the_network_by_loops():
    assert SCALED.sites(7) == (7, 3, 2)
    rng = np.random.default_rng(3)
    weights = [rng.standard_normal(shape) for shape in SCALED.white_shapes((2, 7))]
    expected = [loops(SCALED, weights, x) for x in X]
    found = jax.jit(lambda weights: SCALED.apply(weights, X))(weights)
    assert_allclose(found, expected, rtol=1e-12)


def test_local_kernels_are_those_of_the_patches():
    found = jax.jit(lambda X: (NET.local_kernels(X), SCALED.local_kernels(X)))(X)
    for K, net in zip(found, (NET, SCALED), strict=True):
        assert K.shape == (3, 3, 2, 2)
        assert_allclose(K, local_kernels(net, X), rtol=1e-12, atol=1e-15)


def test_reference_moments():
    """The recursion gives the exact numbers, and draws of the chain meet them."""
    E, K = order_fourth_moment(NET, 7), local_kernels(NET, X)
    fourth = np.einsum("ijkl,ij,kl->", E, K[:, :, 0, 0], K[:, :, 1, 1])
    fourth += 2 * np.einsum("ijkl,ij,kl->", E, K[:, :, 0, 1], K[:, :, 0, 1])
    assert_allclose(fourth, 4.452226, rtol=0, atol=6e-7)
    C = covariances(NET)[:, 0, :, 0]
    error = C.std(0) / 200
    assert (np.abs(C.mean(0) - [[1.53421, -0.16273], [-0.16273, 1.335523]]) < 4 * error).all()
    numbers = C[:, 0, 0] * C[:, 1, 1] + 2 * C[:, 0, 1] ** 2
    assert abs(numbers.mean() - fourth) < 4 * numbers.std() / 200


@pytest.mark.slow
def test_the_prior_is_that_of_the_weights():
    """Moments of the functions of two outputs under drawn weights, by plain NumPy."""
    net = SCALED
    rng, n = np.random.default_rng(0), 60_000
    patches = np.stack([X[:, :, 2 * i : 2 * i + 3] for i in range(3)], 1)  # (2, 3, 2, 3)
    W, V = 0.7 * rng.standard_normal((n, 3, 2, 3)), 1.1 * rng.standard_normal((n, 2, 3, 2))
    h = np.einsum("pick,sdck->spdi", patches, W) / np.sqrt(6)
    h = sum(np.einsum("spdi,sed->spei", h[..., k : k + 2], V[..., k]) for k in (0, 1)) / np.sqrt(6)
    f = np.einsum("spei,saei->sap", h, 1.3 * rng.standard_normal((n, 2, 2, 2))) / 2
    C = covariances(net)
    for a, p, b, m in ((0, 0, 0, 0), (0, 0, 1, 1), (1, 0, 1, 1)):
        raw = f[:, a, p] * f[:, b, m]
        given = C[:, a, p, b, m]
        error = np.hypot(raw.std() / np.sqrt(n), given.std() / 200)
        assert abs(raw.mean() - given.mean()) < 4 * error
    raw = f[:, 0, 0] ** 2 * f[:, 1, 1] ** 2
    given = C[:, 0, 0, 0, 0] * C[:, 1, 1, 1, 1] + 2 * C[:, 0, 0, 1, 1] ** 2
    E, K = order_fourth_moment(net, 7), local_kernels(net, X)
    E = E.reshape((2, 3) * 4)
    fourth = np.einsum("ijkl,ij,kl->", E[0, :, 0, :, 1, :, 1, :], K[:, :, 0, 0], K[:, :, 1, 1])
    fourth += 2 * np.einsum("ijkl,ij,kl->", E[0, :, 1, :, 0, :, 1, :], K[:, :, 0, 1], K[:, :, 0, 1])
    assert abs(raw.mean() - fourth) < 4 * raw.std() / np.sqrt(n)
    assert abs(given.mean() - fourth) < 4 * given.std() / 200


def test_covariance_and_density_are_those_of_dense_algebra():
    """Two outputs given the order parameter; then the joint density of the model of one."""
    latents = latents_of_the_prior(SCALED, 7, 3)
    factor, found = (np.asarray(v) for v in factor_and_covariance(SCALED, X, latents))
    G = factor.reshape(3, 6, -1)
    Q = (G @ np.swapaxes(G, 1, 2)).reshape(3, 2, 3, 2, 3)
    expected = np.einsum("saibj,ijnm->sanbm", Q, local_kernels(SCALED, X))
    assert_allclose(found, expected, rtol=1e-12, atol=1e-15)

    hyper = {"channels": (3, 2), "masks": (3, 2), "strides": (2, 1), "ridge": 0.2, "inputs": 2}
    latents = {"c1": np.array([2.0, 1.5]), "t1": np.array([0.3, -0.2, 0.5, 0.9, 0.1, -0.6, 1.1])}
    latents |= {"c2": np.array([1.2, 0.7]), "t2": np.array([0.8])}
    y = np.array([0.4, -1.0])

    @jax.jit
    def densities(latents):
        data = X.reshape(2, 14), y
        return log_density(deep_linear_conv.model, data, hyper, latents)[0]

    factor, C = (np.asarray(v) for v in factor_and_covariance(NET, X, latents))
    expected = log_normal(y, np.zeros(2), C[0, :, 0] + 0.2 * np.eye(2))
    for size in conv_sizes(NET, 7):
        expected += gamma(size.pivots / 2, scale=2).logpdf(latents[f"c{size.layer}"]).sum()
        expected += norm.logpdf(latents[f"t{size.layer}"]).sum()
    assert_allclose(densities(latents), expected, rtol=1e-12)


def test_one_site_is_a_dense_network():
    """A mask as wide as the inputs: the exact evidence of a dense network of that width."""
    rng = np.random.default_rng(2)
    Z, y = rng.standard_normal((5, 2, 3)), rng.standard_normal(5)
    net = ConvLinear((4,), (3,), ridge=0.3, weight_scales=(1.2, 0.9))
    C = covariances(net, Z, 50_000)[:, 0, :, 0] + 0.3 * np.eye(5)
    quad = np.linalg.solve(C, y[:, None])[..., 0] @ y
    values = -0.5 * (quad + np.linalg.slogdet(2 * np.pi * C)[1])
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

    def quadratic_form(latents):
        factor = conv_factor(net, 7, latents)
        C = conv_covariance(net, Z, factor)[0, :, 0] + 0.1 * np.eye(4)
        return y @ jax.numpy.linalg.solve(C, y), factor

    gradient, factor = jax.jit(jax.grad(quadratic_form, has_aux=True))(latents)
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
    with pytest.raises(ValueError, match=r"factor has shape \(1, 2, 2\); give \(..., 1, 3, r\)"):
        conv_covariance(NET, X, np.ones((1, 2, 2)))
    with pytest.raises(ValueError, match="weight_scales has shape"):
        ConvLinear((3,), (3,), ridge=0.1, weight_scales=(1.0, 1.0, 1.0))
