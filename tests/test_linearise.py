# SPDX-License-Identifier: Apache-2.0
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from bayesrg import theory


def rainbow(d, layers, seed=0):
    """Weights of the reference table: columns k^-0.15, white, then a covariance from the first."""
    rng = np.random.default_rng(seed)
    k = np.arange(1, d + 1.0)
    first = rng.standard_normal((d, d)) * k**-0.15 / np.sqrt(d)
    second = rng.standard_normal((d, d)) / np.sqrt(d)
    root = np.linalg.cholesky(np.linalg.inv(first @ first.T + np.eye(d) / 2))
    third = rng.standard_normal((d, d)) @ root.T / np.sqrt(d)
    return [first, second, third][:layers]


FUNCTIONS = {"erf": erf, "tanh": np.tanh, "relu": lambda u: np.maximum(u, 0.0)}


def normal(rng, *shape):
    """Numbers for averages over many draws: in 32 bits, which take half the time."""
    return rng.standard_normal(shape, np.float32)


def features(weights, activation, x):
    out = []
    for W in weights:
        x = FUNCTIONS[activation](x @ W.T.astype(x.dtype))
        out.append(x)
    return out


def sampled(weights, activation, draws, seed=1, block=20_000):
    """Mean and covariance of every layer's features by Monte Carlo, for white inputs."""
    rng = np.random.default_rng(seed)
    sums = [(0.0, 0.0)] * len(weights)
    for _ in range(draws // block):
        xs = features(weights, activation, normal(rng, block, weights[0].shape[1]))
        sums = [(m + x.sum(0), s + x.T @ x) for x, (m, s) in zip(xs, sums, strict=True)]
    return [(m / draws, s / draws - np.outer(m, m) / draws**2) for m, s in sums]


def frobenius(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def quietly(*given, **named):
    """Linearise without the warning that the method earns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return theory.linearise(*given, **named)


@pytest.mark.slow
def test_the_reference_table_of_odd_activations():
    weights = rainbow(100, 3)
    mean, K = sampled(weights, "erf", 60_000)[-1]
    printed = {"mean": 0.097, "unit": 0.038, None: 0.038}
    for method, error in printed.items():
        last = theory.linearise(weights, "erf", np.eye(100), method=method)[-1]
        # other weights and draws: errors of the printed size
        np.testing.assert_allclose(frobenius(last.covariance, K), error, rtol=0.35)
        np.testing.assert_allclose(np.trace(last.Omega), np.trace(K), rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "activation, layer, printed, traces",
    [
        ("erf", 3, (0.054, 0.036, 0.036), (0.23428, 0.23486, 0.23372)),
        ("tanh", 3, (0.047, 0.035, 0.035), (0.14115, 0.14151, 0.14090)),
        ("relu", 1, (0.061, 0.059, 0.056), (0.08016, 0.08000, 0.08000)),
        ("relu", 2, (0.544, 0.544, 0.073), (0.03043, 0.02732, 0.03032)),
        ("relu", 3, (0.712, 0.711, 0.094), (0.01876, 0.01382, 0.01863)),
    ],
)
def test_the_reference_table_at_400(activation, layer, printed, traces):
    weights = rainbow(400, layer)
    mean, K = sampled(weights, activation, 120_000)[-1]
    found = [
        quietly(weights, activation, np.eye(400), method=m)[-1] for m in ("mean", "unit", None)
    ]
    errors = [frobenius(layer.covariance, K) for layer in found]
    np.testing.assert_allclose(errors, printed, rtol=0.3)
    ours = np.array([np.trace(K), *(np.trace(found[i].covariance) for i in (0, 2))]) / 400
    np.testing.assert_allclose(ours, traces, rtol=0.02)
    if activation == "relu":
        assert frobenius(found[2].mean, mean) < 0.02


def test_the_trap_of_relu():
    """Forgotten means are wrong at any width, and said so; the default is not."""
    weights = rainbow(100, 2)
    mean, K = sampled(weights, "relu", 40_000)[-1]
    for method in ("mean", "unit"):
        with pytest.warns(
            UserWarning, match="forgets the means of layer 1.*method='closure'"
        ) as seen:
            wrong = theory.linearise(weights, "relu", np.eye(100), method=method)[-1]
        assert seen[0].filename == __file__
        assert frobenius(wrong.covariance, K) > 0.4
        np.testing.assert_allclose(
            wrong.Omega - np.outer(wrong.mean, wrong.mean), wrong.covariance, atol=1e-14
        )
    right = theory.linearise(weights, "relu", np.eye(100))[-1]
    assert frobenius(right.covariance, K) < 0.2
    assert frobenius(right.mean, mean) < 0.02
    assert np.linalg.eigvalsh(right.Omega)[0] > 0
    theory.linearise(weights[:1], "relu", np.eye(100), method="unit")  # one layer has no trap


def test_closure_of_odd_activations_is_unit_and_exact_first_layers():
    weights, Omega = rainbow(100, 2), np.diag(np.linspace(2.0, 0.1, 100))
    one, two = (theory.linearise(weights, "tanh", Omega, method=m) for m in (None, "unit"))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.Omega, b.Omega, rtol=0, atol=1e-14)
        np.testing.assert_allclose(a.mean, 0.0, atol=1e-14)
    S = weights[0] @ Omega @ weights[0].T
    s = np.diag(S)
    exact = theory.linearise(weights[:1], "erf", Omega, method="exact")
    expected = 2 / np.pi * np.arcsin(2 * S / np.sqrt(np.outer(1 + 2 * s, 1 + 2 * s)))
    np.testing.assert_allclose(exact[0].Omega, expected, rtol=0, atol=1e-14)
    relu = theory.linearise(weights, "relu", Omega, method="exact")
    angle = np.arccos(np.clip(S / np.sqrt(np.outer(s, s)), -1, 1))
    size = np.sqrt(np.outer(s, s)) / (2 * np.pi)
    expected = size * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    np.testing.assert_allclose(relu[0].Omega, expected, rtol=0, atol=1e-9)
    # with means the exact method goes on as the closure: in Frobenius norm they are close
    closure = theory.linearise(weights, "relu", Omega)
    assert frobenius(closure[0].Omega, relu[0].Omega) < 0.01
    assert frobenius(closure[1].covariance, relu[1].covariance) < 0.05


def test_the_closure_is_the_expansion_of_the_bivariate_moment():
    """Two units with means, against integration on a grid; what is left is of third order."""
    x, w = np.polynomial.hermite_e.hermegauss(100)
    w = w / w.sum()
    h, errors = np.array([0.5, -0.3]), []
    for c in (0.1, 0.05):
        S = np.array([[1.0, c], [c, 0.8]])
        L = np.linalg.cholesky(S)
        u, v = h[0] + L[0, 0] * x[:, None], h[1] + L[1, 0] * x[:, None] + L[1, 1] * x
        f, g = (t / (1 + np.exp(-t)) for t in (u, v))
        found = theory.linearise([np.eye(2)], "silu", S + np.outer(h, h), mean0=h)[0]
        errors.append(abs(float(found.Omega[0, 1]) - w @ (f * g) @ w))
        np.testing.assert_allclose(found.Omega[0, 0], w @ f[:, 0] ** 2, rtol=1e-8)
        np.testing.assert_allclose(found.mean[0], w @ f[:, 0], rtol=1e-8)
    np.testing.assert_allclose(errors[0] / errors[1], 8.0, rtol=0.15)


@pytest.mark.slow
def test_overlap_with_the_target_of_relu():
    """E x_2 y of a linear target: forgotten means cost half of it."""
    rng = np.random.default_rng(4)
    d, draws = 150, 80_000
    weights = [rng.standard_normal((d, d)) / np.sqrt(d) for _ in range(2)]
    weights[0] *= np.arange(1, d + 1.0) ** -0.2
    beta = rng.standard_normal(d) / np.sqrt(d)
    x = normal(rng, draws, d)
    last = features(weights, "relu", x)[-1]
    psi = last.T @ (x @ beta.astype(x.dtype)) / draws
    ours = theory.linearise(weights, "relu", np.eye(d), beta)[-1].psi
    forgot = quietly(weights, "relu", np.eye(d), beta, method="mean")[-1].psi
    np.testing.assert_allclose(
        [frobenius(ours, psi), frobenius(forgot, psi)], [0.106, 0.49], rtol=0, atol=0.07
    )


def test_a_mean_of_the_target_joins_the_means():
    weights, psi0 = rainbow(12, 2), np.linspace(-1, 1, 12)
    one = theory.linearise(weights, "relu", np.eye(12), psi0, Ey=0.0)
    two = theory.linearise(weights, "relu", np.eye(12), psi0, Ey=0.7)
    for a, b in zip(*jax.device_get([one, two]), strict=True):
        np.testing.assert_allclose(b.psi - a.psi, 0.7 * a.mean, atol=1e-14)
    # an intercept alone: y = 1 has psi = mean
    mean0 = np.full(12, 0.25)
    only = theory.linearise(
        weights, "gelu", np.eye(12) + np.outer(mean0, mean0), mean0, mean0=mean0, Ey=1.0
    )
    np.testing.assert_allclose(only[1].psi, only[1].mean, atol=1e-14)


@pytest.mark.slow
def test_student_and_teacher():
    """The paired term of the reference run: 0.4225 without it, 0.4630 with it, 0.4621 sampled."""
    rng = np.random.default_rng(4)
    d = 150
    V = 2 * rng.standard_normal((d, d)) / np.sqrt(d)
    W = 0.8 * V + 1.2 * rng.standard_normal((d, d)) / np.sqrt(d)
    x = normal(rng, 60_000, d)
    (F,), (G,) = (features([M], "tanh", x) for M in (W, V))
    each = np.einsum("ij,ij->i", F, G) / d
    diagonal, error = each.mean(), each.std() / np.sqrt(len(x))
    for method, error_of_all in (("closure", 0.06), ("mean", 0.1)):
        given = [W], "tanh", [V], "tanh", np.eye(d)
        Phi = np.asarray(theory.cross_linearise(*given, method=method)[0])
        np.testing.assert_allclose(np.diag(Phi).mean(), diagonal, rtol=0, atol=4 * error + 2e-3)
        assert frobenius(Phi, F.T @ G / len(x)) < error_of_all
        if method == "closure":
            bare = np.asarray(theory.cross_linearise(*given, paired=False)[0])
            paired = np.diag(Phi).mean() - np.diag(bare).mean()
            np.testing.assert_allclose(paired, 0.0405, rtol=0, atol=3e-3)


@pytest.mark.parametrize("activation", [pytest.param("tanh", marks=pytest.mark.slow), "relu"])
def test_a_network_and_itself(activation):
    weights = rainbow(12, 2)
    both = theory.cross_linearise(weights, activation, weights, activation, np.eye(12))
    one = theory.linearise(weights, activation, np.eye(12))
    for Phi, layer in zip(both, one, strict=True):
        np.testing.assert_allclose(Phi, layer.Omega, rtol=0, atol=1e-11)


def test_paired_units():
    """Units of unit length that share nothing but their partners; averages on a fine grid."""
    W, x = [np.linalg.qr(rainbow(12, 1)[0])[0]], np.linspace(-12, 12, 2401)
    w = np.exp(-(x**2) / 2) / np.exp(-(x**2) / 2).sum()
    square, slope = w @ np.tanh(x) ** 2, w @ np.cosh(x) ** -2
    for given, expected in (({"method": "mean"}, square), ({"paired": False}, slope**2)):
        Phi = theory.cross_linearise(W, "tanh", W, "tanh", np.eye(12), **given)[0]
        np.testing.assert_allclose(Phi, expected * np.eye(12), rtol=0, atol=1e-9)


def test_a_network_without_a_layer():
    """Nothing above the teacher's first layer: the student's second acts alone."""
    weights, V = rainbow(12, 2), np.random.default_rng(2).standard_normal((7, 12)) / 3
    psi = [layer.psi for layer in theory.linearise(weights, "relu", np.eye(12), V[0])]
    linear = theory.cross_linearise(weights, "relu", [V, None], ["linear", "abs"], np.eye(12))
    for layer, Phi in zip(psi, linear, strict=True):
        assert Phi.shape == (12, 7)
        np.testing.assert_allclose(np.asarray(Phi)[:, 0], layer, rtol=0, atol=1e-12)


def test_surrogate_features_have_the_moments():
    weights, draws = rainbow(12, 2), 100_000
    rng, spread = np.random.default_rng(0), np.sqrt(np.linspace(2.0, 0.3, 12))
    x, *noise = rng.standard_normal((3, draws, 12))
    Omega = np.diag(spread**2)
    for method in ("mean", None):
        layers = theory.linearise(weights, "erf", Omega, method=method)
        found = np.asarray(theory.surrogate_features(weights, layers, x * spread, noise))
        expected = np.asarray(layers[-1].Omega)
        variance = np.outer(np.diag(expected), np.diag(expected)) + expected**2
        z = (found.T @ found / draws - expected) / np.sqrt(variance / draws)
        assert np.abs(z).max() < 4.5
    mean0 = np.full(12, 0.5)
    layers = theory.linearise(weights, "relu", Omega + np.outer(mean0, mean0), mean0=mean0)
    shifted = theory.surrogate_features(weights, layers, x * spread, noise)
    deviation = np.sqrt(np.diag(layers[-1].covariance) / draws)
    assert (np.abs(np.mean(shifted, 0) - layers[-1].mean) < 4.5 * deviation).all()


def ridge_errors(draw, n, ridge, repeats, rng):
    """Test errors of ridge regression on features and targets from ``draw(rows)``."""
    errors = []
    for _ in range(repeats):
        F, y = draw(n)
        w = np.linalg.solve(F.T @ F + ridge * np.eye(F.shape[1]), F.T @ y)
        F, y = draw(2000)
        errors.append(((y - F @ w) ** 2).mean())
    return np.mean(errors), np.std(errors, ddof=1) / np.sqrt(repeats)


@pytest.mark.slow
def test_learning_curves_of_network_and_surrogate():
    rng = np.random.default_rng(13)
    d, ridge = 200, 0.05
    weights = [rng.standard_normal((d, d)) / np.sqrt(d) for _ in range(2)]
    beta = rng.standard_normal(d) / np.sqrt(d)
    layers = theory.linearise(weights, "erf", np.eye(d), beta)
    moments = theory.population_moments(layers[-1].Omega, layers[-1].psi, beta @ beta + 0.25)

    def network(rows):
        x = rng.standard_normal((rows, d))
        y = x @ beta + 0.5 * rng.standard_normal(rows)
        return features(weights, "erf", x)[-1], y

    def surrogate(rows):
        x = rng.standard_normal((rows, d))
        y = x @ beta + 0.5 * rng.standard_normal(rows)
        noise = rng.standard_normal((2, rows, d))
        F = theory.surrogate_features(weights, layers, x, noise)
        return np.asarray(F), y

    for n in (100, 400):
        predicted = float(theory.ridge_equivalent(moments, n, ridge).test)
        for draw in (network, surrogate):
            mean, error = ridge_errors(draw, n, ridge, 20, rng)
            assert abs(mean - predicted) < 3 * error + 0.03 * predicted


@pytest.mark.slow
def test_learning_curves_of_relu():
    """Where the forgotten means show: n = p, a small ridge, theory 17 % too high."""
    rng = np.random.default_rng(4)
    d, ridge = 150, 0.01
    weights = [rng.standard_normal((d, d)) / np.sqrt(d) for _ in range(2)]
    weights[0] *= np.arange(1, d + 1.0) ** -0.2
    beta = rng.standard_normal(d) / np.sqrt(d)
    Ey2 = beta @ beta + 0.04
    layer = theory.linearise(weights, "relu", np.eye(d), beta)[-1]
    moments = theory.population_moments(layer.covariance, layer.psi, Ey2)
    centre = sampled(weights, "relu", 100_000)[-1][0]

    def network(rows):
        x = rng.standard_normal((rows, d))
        y = x @ beta + 0.2 * rng.standard_normal(rows)
        return features(weights, "relu", x)[-1] - centre, y

    for n, slack in ((150, 0.15), (300, 0.03), (600, 0.03)):
        predicted = float(theory.ridge_equivalent(moments, n, ridge).test)
        mean, error = ridge_errors(network, n, ridge, 20, rng)
        assert abs(mean - predicted) < 3 * error + slack * predicted, n


def test_edges():
    one = theory.linearise([[[2.0]], [[1.0]]], "tanh", [[1.0]])
    assert one[1].Omega.shape == (1, 1)
    W = rainbow(12, 1)[0]
    tied = theory.linearise([W, W], "tanh", np.eye(12))
    assert np.linalg.eigvalsh(tied[1].Omega)[0] > 0
    # a unit without weights is constant, and no moment is nan
    dead = W.copy()
    dead[2] = 0.0
    for activation in ("relu", "step", "gelu"):  # with psi, as in other tests: few programs
        layers = theory.linearise([dead, W], activation, np.eye(12), np.ones(12))
        assert np.isfinite(layers[1].Omega).all() and np.isfinite(layers[0].covariance).all()
    np.testing.assert_allclose(np.asarray(layers[0].covariance)[2], 0.0, atol=1e-15)
    assert theory.linearise([], "tanh", np.eye(12)) == []


def test_it_is_traced_and_differentiated():
    W = rainbow(12, 2)

    @jax.jit
    @jax.value_and_grad
    def trace(scale):
        layers = theory.linearise([scale * W[0], W[1]], "relu", np.eye(12), np.ones(12))
        return jnp.trace(layers[-1].Omega) + layers[-1].psi.sum()

    slope = trace(1.1)[1]
    numeric = (trace(1.1 + 1e-6)[0] - trace(1.1 - 1e-6)[0]) / 2e-6
    np.testing.assert_allclose(slope, numeric, rtol=1e-7)


I3 = np.eye(3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.linearise([I3], "tanh", np.ones((3, 2))), r"Omega0 must be square.*\(3, 2"),
        (lambda: theory.linearise([I3], "tanh", I3 + np.eye(3, k=1)), "Omega0 is not symmetric"),
        (lambda: theory.linearise([I3], "tanh", -I3), "lowest eigenvalue is -1"),
        (lambda: theory.linearise([I3[:2], I3], "tanh", I3), r"weights\[1\] has shape \(3, 3\)"),
        (lambda: theory.linearise([I3], ["tanh"] * 2, I3), "activations has 2 entries for 1 layer"),
        (lambda: theory.linearise([I3], "tanh", I3, np.ones(2)), r"psi0 has shape \(2,\)"),
        (lambda: theory.linearise([I3], "tanh", I3, mean0=np.ones(2)), r"mean0 has shape \(2,\)"),
        (lambda: theory.linearise([I3], "tanh", I3, mean0=np.ones(3)), "mean0 mean0.T is not posi"),
        (
            lambda: theory.linearise([I3], "tanh", I3, method="mean", mean0=0.1 * np.ones(3)),
            "takes centred inputs",
        ),
        (lambda: theory.linearise([I3], "tanh", I3, method="best"), "method must be one of"),
        (lambda: theory.linearise([I3], "tanh", I3, method="exact"), "'relu', 'erf', 'linear'"),
        (lambda: theory.linearise([I3 * np.nan], "tanh", I3), r"weights\[0\] contains non-finite"),
        (lambda: theory.linearise([I3], "tan", I3), "activation must be one of"),
        (lambda: theory.cross_linearise([I3], "tanh", [], "tanh", I3), "has 1 layers and teacher"),
        (
            lambda: theory.cross_linearise([I3], "tanh", [I3], "tanh", I3, paired=4),
            "paired must be an integer from 0 to 3, got 4",
        ),
        (
            lambda: theory.surrogate_features([I3], [], np.ones((2, 4)), []),
            r"weights\[0\] has shape \(3, 3\) and layer 1 has 4 inputs",
        ),
        (
            lambda: theory.surrogate_features([I3], [], np.ones((2, 3)), []),
            "weights has 1 layers, layers 0 and white 0",
        ),
        (lambda: theory.annealed_curve([-1.0], 3, "tanh", 1, 0.1), "values must be non-negative"),
        (lambda: theory.annealed_curve([1.0], 0, "tanh", 1, 0.1), "positive integer, got 0"),
        (lambda: theory.annealed_curve([1.0], 3, "linear", 0, 0.1), "n must be positive"),
        (lambda: theory.annealed_curve([1.0], 3, "linear", 1, 0.0), "ridge must be positive"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
