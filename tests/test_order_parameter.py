# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from oracles import within
from scipy.special import psi

import bayesrg as brg
from bayesrg.deep_linear.order import (
    bartlett_sizes,
    latent_excess,
    order_parameter,
)
from bayesrg.deep_linear.weights import order_of_weights

DRAWS = 20_000
parameters = jax.jit(order_parameter, static_argnums=(0, 1))


def latents_of_the_prior(widths, outputs, draws, seed=0):
    """Independent Bartlett variables, by NumPy."""
    rng, latents = np.random.default_rng(seed), {}
    for size in bartlett_sizes(widths, outputs):
        narrow = size.rows > size.width  # then the last column has a sign
        degrees = [size.width - i for i in range(size.rank - narrow)]
        latents[f"c{size.layer}"] = rng.chisquare(degrees, (draws, len(degrees)))
        latents[f"t{size.layer}"] = rng.standard_normal((draws, size.normals + narrow))
    return latents


def orders_by_weights(widths, outputs, draws, seed=0):
    """Order parameters of raw weights, multiplied out by NumPy from the readout down."""
    rng = np.random.default_rng(seed)
    A = np.broadcast_to(np.eye(outputs), (draws, outputs, outputs))
    for width in widths[::-1]:
        A = A @ rng.standard_normal((draws, A.shape[-1], width)) / np.sqrt(width)
    return A @ np.swapaxes(A, -1, -2)


def order_moments(widths):
    """Prior moments E Q_aa^2, E Q_aa Q_bb and E Q_ab^2, from the inputs up."""
    a, b, c = 1.0, 1.0, 0.0
    for width in widths[::-1]:
        a, b, c = a * (1 + 2 / width), b + 2 * c / width, c + (b + c) / width
    return a, b, c


def statistics(Q):
    """Products of entries per draw, averaged over equivalent entries, (draws, 3)."""
    a, b = np.triu_indices(Q.shape[-1], 1)
    diagonal = np.diagonal(Q, axis1=-2, axis2=-1)
    return np.stack(
        [(diagonal**2).mean(-1), (diagonal[:, a] * diagonal[:, b]).mean(-1),
         (Q[:, a, b] ** 2).mean(-1)], -1,
    )  # fmt: skip


REFERENCE = {
    (4, 9, 5): (2.566667, 1.211111, 0.677778),  # from the inputs up
    (7, 2, 6): (3.428571, 1.380952, 1.023810),  # a bottleneck
}


@pytest.mark.parametrize("widths", REFERENCE)
def test_prior_moments(widths):
    """Recursion, raw weights and Bartlett factors."""
    expected = REFERENCE[widths]
    np.testing.assert_allclose(order_moments(widths), expected, rtol=0, atol=6e-7)
    chain = parameters(widths, 3, latents_of_the_prior(widths, 3, DRAWS))
    for Q in (orders_by_weights(widths, 3, DRAWS), np.asarray(chain.Q)):
        s = statistics(Q)
        assert within(s.mean(0), expected, s.std(0) / np.sqrt(DRAWS))
        assert within(Q.mean(0), np.eye(3), Q.std(0) / np.sqrt(DRAWS))
    ranks = {len(widths) - i: min(3, *widths[len(widths) - 1 - i :]) for i in range(3)}
    for layer, G in enumerate(chain.chain, 1):
        assert G.shape == (DRAWS, 3, ranks[layer])


@pytest.mark.slow
@pytest.mark.parametrize("widths", REFERENCE)
def test_prior_moments_to_two_hundred_thousand_draws(widths):
    """In ten parts, so that the program is that of the test above."""
    parts = [latents_of_the_prior(widths, 3, DRAWS, seed) for seed in range(10)]
    chains = np.concatenate([parameters(widths, 3, part).Q for part in parts])
    for Q in (orders_by_weights(widths, 3, 10 * DRAWS), chains):
        s = statistics(Q)
        assert within(s.mean(0), REFERENCE[widths], s.std(0) / np.sqrt(10 * DRAWS))


def test_prior_log_determinant_and_eigenvalues():
    """The order of the widths moves nothing; the reference means of log eigenvalues."""
    widths = (4, 9, 5)
    mean = sum((psi((w - np.arange(3)) / 2) + np.log(2 / w)).sum() for w in widths)
    np.testing.assert_allclose(mean, -4.547911, rtol=0, atol=6e-7)
    for w, expected in ((widths, (-3.901, -1.251, 0.604)), ((9, 5, 4), (-3.904, -1.249, 0.608))):
        Q = np.asarray(parameters(w, 3, latents_of_the_prior(w, 3, DRAWS)).Q)
        logs = np.log(np.linalg.eigvalsh(Q))
        errors = logs.std(0) / np.sqrt(DRAWS)
        assert within(logs.sum(1).mean(), -4.547911, logs.sum(1).std() / np.sqrt(DRAWS))
        assert within(logs.mean(0), expected, np.hypot(errors, 0.004))  # error of the reference
    raw = np.log(np.linalg.eigvalsh(orders_by_weights(widths, 3, DRAWS)))
    assert within(raw.sum(1).mean(), -4.547911, raw.sum(1).std() / np.sqrt(DRAWS))


def test_one_output_is_a_product_of_chi_squares():
    widths, rng = (3, 8), np.random.default_rng(1)
    c1, c2 = rng.chisquare(3, 50), rng.chisquare(8, 50)
    latents = {"c1": c1[:, None], "c2": c2[:, None]}
    Q, chain = jax.tree.map(np.asarray, parameters(widths, 1, latents))
    np.testing.assert_allclose(Q[:, 0, 0], c1 * c2 / 24, rtol=1e-14)
    np.testing.assert_allclose(chain[1][:, 0, 0] ** 2, c2 / 8, rtol=1e-14)


def test_sizes_of_the_sites():
    sizes = bartlett_sizes((7, 2, 6), 3)
    assert [(s.layer, s.rows, s.rank, s.normals) for s in sizes] == [
        (3, 3, 3, 3), (2, 3, 2, 3), (1, 2, 2, 1),
    ]  # fmt: skip
    assert [list(s.dof) for s in sizes] == [[6, 5, 4], [2, 1], [7, 6]]
    assert [list(s.pivots) for s in sizes] == [[6, 5, 4], [2], [7, 6]]
    assert [s.entries for s in sizes] == [3, 4, 1]
    assert sum(s.rank + s.normals for s in bartlett_sizes((40, 50), 4)) == 2 * 4 * 5 // 2
    assert bartlett_sizes((), 3) == ()
    Q, chain = order_parameter((), 3, {})
    np.testing.assert_array_equal(Q, np.eye(3))
    assert chain == ()


def test_the_trapezoid_is_filled_row_by_row():
    (size,) = bartlett_sizes((2,), 4)
    latents = {"c1": np.array([4.0, 9.0]), "t1": np.arange(1.0, 6.0)}
    (G,) = parameters((2,), 4, latents).chain
    expected = np.array([[2, 0], [1, 3], [2, 3], [4, 5]]) / np.sqrt(2)
    np.testing.assert_allclose(G, expected, rtol=1e-15)
    signed = {"c1": np.array([4.0]), "t1": np.array([1.0, -3.0, 2, -3, 4, -5])}
    flipped = expected * [1, -1]
    np.testing.assert_allclose(parameters((2,), 4, signed).chain[0], flipped, rtol=1e-15)
    excess = jax.jit(latent_excess, static_argnums=(0, 1))
    for given in (signed, latents):
        found = excess((2,), 4, given)
        np.testing.assert_allclose(found, [(expected**2).sum() * 2 - 2 * 4], rtol=1e-14)
    assert (size.rows, size.rank) == (4, 2)


def test_weights_give_their_order_parameter_and_function():
    net = brg.networks.DeepLinear((4, 3), ridge=0.1, outputs=2, weight_scales=(0.5, 2.0, 1.5))
    shapes = net.white_shapes(5)
    assert shapes == ((4, 5), (3, 4), (2, 3))
    rng = np.random.default_rng(0)
    white = [rng.standard_normal(s) for s in shapes]
    W, Q = jax.jit(lambda white: (W := net.weights(white, 5), order_of_weights(net, W)))(white)
    for w, z, s in zip(W, white, (0.5, 2.0, 1.5), strict=True):
        np.testing.assert_allclose(w, s * z / np.sqrt(z.shape[1]), rtol=1e-15)
    A = white[2] @ white[1] / np.sqrt(12)
    np.testing.assert_allclose(Q, A @ A.T, rtol=1e-13)


def test_bad_questions():
    """Latents are checked where they enter; those of layers broadcast."""
    good = {"c1": np.ones((5, 1)), "c2": np.ones(1)}
    assert parameters((3, 8), 1, good).Q.shape == (5, 1, 1)
    for latents, words in (
        ({"c1": np.ones(1)}, "latents has 0 numbers in 'c2' and 0 in 't2'; give 1 and 0"),
        (good | {"c2": -np.ones(1)}, r"latents\['c2'\] must be non-negative"),
        (good | {"c2": np.ones((4, 1))}, "shapes do not fit together"),
    ):
        with pytest.raises(ValueError, match=words):
            latent_excess((3, 8), 1, latents)
    net = brg.networks.DeepLinear((4,), ridge=0.1)
    with pytest.raises(ValueError, match="do not fit widths"):
        order_of_weights(net, [np.ones((4, 5)), np.ones((2, 4))])
