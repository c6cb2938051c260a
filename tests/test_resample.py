# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest

from bayesrg.networks import Rainbow, procrustes, resample, weight_covariance

rng = np.random.default_rng(21)
align = jax.jit(procrustes)


def relu(x):
    return np.maximum(x, 0)


def structured(p, X):
    """Two relu layers: a rank-8 covariance, then one that follows the features below."""
    W1 = rng.standard_normal((p, 8)) @ rng.standard_normal((8, 40)) / np.sqrt(8 * 40)
    H = relu(X @ W1.T)
    top = np.linalg.eigh(H.T @ H / len(X))[1][:, -6:]
    W2 = rng.standard_normal((p, 6)) @ top.T / np.sqrt(6)
    return W1, W2


def inputs(n):
    return rng.standard_normal((n, 40)) * np.linspace(2.0, 0.2, 40)


def test_a_rotation_is_found_again():
    H = rng.standard_normal((50, 6))
    Q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    found = align(H, H @ Q)
    np.testing.assert_allclose(found.rotation, Q, rtol=0, atol=1e-12)
    assert abs(float(found.error)) < 1e-13
    unrelated = align(H, rng.standard_normal((50, 6)))
    assert 0.5 < float(unrelated.error) < 2


@pytest.mark.parametrize("p_new", [3, 6, 9])
def test_the_rotation_is_the_best_and_its_error_what_it_says(p_new):
    """Against 200 orthogonal matrices close to it, and the mean squares that it stands for."""
    H, H_new = rng.standard_normal((80, 6)), rng.standard_normal((80, p_new))
    H_new[:, :3] += 2 * H[:, :3]
    A, error = map(np.asarray, align(H, H_new))
    small = min(6, p_new)
    np.testing.assert_allclose(A @ A.T if p_new >= 6 else A.T @ A, np.eye(small), atol=1e-12)
    scaled = H_new * np.sqrt(6 / p_new)
    gap = scaled @ A.T - H if p_new <= 6 else scaled - H @ A
    np.testing.assert_allclose(error, (gap**2).sum() / (H**2).sum(), rtol=1e-12)
    singular = np.linalg.svd(H.T @ scaled, compute_uv=False)
    square = (H**2).sum()
    expected = (square + (scaled**2).sum() - 2 * singular.sum()) / square
    np.testing.assert_allclose(error, expected, rtol=1e-12)
    turns = np.linalg.qr(np.eye(p_new) + 0.1 * rng.standard_normal((200, p_new, p_new)))[0]
    turns = turns * np.sign(np.diagonal(turns, axis1=1, axis2=2))[:, None]
    overlaps = ((H @ A @ turns) * scaled).sum((1, 2))
    assert (overlaps < singular.sum()).all()


@pytest.mark.slow
def test_held_out_errors_fall_with_the_width():
    """Section 7 of the chapter: .0919, .0547, .0316 at widths 100, 200, 400 of the first layer."""
    X, X_test = inputs(6000), inputs(3000)
    found = []
    for p in (100, 200, 400):
        errors = []
        for key in range(4):
            out = resample(structured(p, X), X, activations="relu", key=key, X_test=X_test)
            errors.append(np.asarray(out.held_out))
            np.testing.assert_allclose(out.held_out, out.errors, rtol=0.15)
        found.append(np.mean(errors, 0))
    found = np.asarray(found)
    np.testing.assert_allclose(found[:, 0], [0.0919, 0.0547, 0.0316], rtol=0.2)
    assert (found[1:] < 0.8 * found[:-1]).all()


def test_held_out_errors_are_those_of_other_inputs():
    X, X_test = inputs(300), inputs(200)
    weights = structured(40, X)
    drawn = jax.jit(lambda: resample(weights, X, activations="relu", key=0, X_test=X_test))
    out = jax.tree.map(np.asarray, drawn())
    H, G = X_test, X_test
    for l, (W, W_new, A) in enumerate(zip(weights, out.weights, out.rotations, strict=True)):  # noqa: E741
        H, G = relu(H @ W.T), relu(G @ W_new.T)
        expected = ((G @ A.T - H) ** 2).sum() / (H**2).sum()
        np.testing.assert_allclose(out.held_out[l], expected, rtol=1e-10)
    assert (abs(out.held_out / out.errors - 1) > 1e-3).all()
    with pytest.raises(ValueError, match="X_test has 3 columns and X 40"):
        resample(weights, X, activations="relu", key=0, X_test=X_test[:, :3])


def kernel(H):
    return H @ H.T / H.shape[1]


@pytest.mark.slow
def test_widths_may_change_and_rotation_and_factor_are_essential():
    """Section 7: kernels differ by .29 at a quarter of the width, by .75 without the factor."""
    X, X_test = inputs(3000), inputs(400)
    weights = structured(400, X)
    H = kernel(relu(relu(X_test @ weights[0].T) @ weights[1].T))

    def difference(V1, V2):
        gap = kernel(relu(relu(X_test @ V1.T) @ V2.T)) - H
        return np.linalg.norm(gap) / np.linalg.norm(H)

    for widths in ((100, 100), (400, 400), (800, 800)):
        found = []
        for key in range(4):
            out = resample(weights, X, activations="relu", key=key, widths=widths)
            V1, V2 = np.asarray(out.weights[0]), np.asarray(out.weights[1])
            assert V1.shape == (widths[0], 40) and V2.shape == widths
            scaled = difference(V1, V2 * np.sqrt(widths[0] / 400))
            shuffled = difference(V1[rng.permutation(widths[0])], V2)
            found.append((difference(V1, V2), scaled, shuffled))
        aligned, without, unaligned = np.mean(found, 0)
        assert aligned < 0.45
        assert widths[0] == 400 or without > 1.5 * aligned
        assert widths[0] == 100 or unaligned > 1.3 * aligned  # noise of 100 units hides it


def test_a_readout_is_turned():
    """A wide resampled network keeps the function of the one that it came from."""
    X, X_test = inputs(1500), inputs(300)
    weights = structured(200, X)
    readout = (
        rng.standard_normal((1, 40))
        @ np.linalg.pinv(X)
        @ (relu(relu(X @ weights[0].T) @ weights[1].T))
        / len(X)
    )  # a smooth direction among the features
    out = resample(weights, X, activations="relu", key=0, readout=readout)
    f = relu(relu(X_test @ weights[0].T) @ weights[1].T) @ readout.T
    V1, V2, readout = map(np.asarray, (*out.weights, out.readout))
    g = relu(relu(X_test @ V1.T) @ V2.T) @ readout.T
    assert np.corrcoef(f[:, 0], g[:, 0])[0, 1] > 0.9


def test_rows_have_the_covariance_of_the_weights():
    W = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 5))
    C = np.asarray(weight_covariance(W))
    np.testing.assert_allclose(C, 5 / 30 * W.T @ W, rtol=1e-13)
    X = rng.standard_normal((9, 5))

    @jax.jit
    def drawn():
        out = resample((W,), X, activations="tanh", key=0, widths=(40_000,))
        return weight_covariance(out.weights[0])

    drawn = np.asarray(drawn())
    spread = np.sqrt((C**2 + np.outer(np.diag(C), np.diag(C))) / 40_000)
    assert (np.abs(drawn - C) < 4.5 * spread).all()


def test_a_draw_of_a_rainbow_can_be_resampled():
    net = Rainbow((20, 10), activations=("erf", "relu"))
    X = inputs(50)

    @jax.jit
    def ask():
        weights = net.init(0, 40)
        out = resample(weights, X, activations=net.activations, key=1, widths=(7, 12))
        return out, net.apply(weights, X)

    out, features = ask()
    assert all(np.isfinite(W).all() for W in out.weights)
    assert [W.shape for W in out.weights] == [(7, 40), (12, 7)]
    assert out.readout is None and out.held_out is None and out.errors.shape == (2,)
    assert features.shape == (50, 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": ()}, "weights is empty"),
        ({"X": np.ones((9, 4))}, r"weights\[0\] has shape \(6, 5\); give \(6, 4\), \(N_l, N_"),
        ({"widths": (3,)}, "widths has 1 entries for 2 layers"),
        ({"activations": ("relu",)}, "activations has 1 entries for 2 layers"),
        ({"readout": np.ones((1, 6))}, r"readout has shape \(1, 6\); give \(1, 7\), one column"),
    ],
)
def test_bad_input(change, words):
    given = {
        "weights": (np.ones((6, 5)), np.ones((7, 6))), "X": rng.standard_normal((9, 5)),
        "activations": "relu", "key": 0,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=words):
        resample(given.pop("weights"), given.pop("X"), **given)


def test_alignment_needs_common_inputs():
    with pytest.raises(ValueError, match="H has 5 rows and H_new 4"):
        procrustes(np.ones((5, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="features H, of X or X_test, are zero at all inputs"):
        procrustes(np.zeros((5, 2)), np.ones((5, 2)))
