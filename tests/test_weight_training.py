# SPDX-License-Identifier: Apache-2.0
"""Weights of training and of posteriors: scaling over runs, temperatures, edge cases of reports."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import MCMC, NUTS
from scipy import stats

from bayesrg import dynamics, io
from bayesrg.diagnostics import weights
from bayesrg.ensembles import CoulombGas, marchenko_pastur
from bayesrg.networks import train

# learning rate and batch size of the runs of a teacher and student of two levels at 4
EPOCHS = [0, 1, 10, 40]
RUNS = [(0.02, 16), (0.05, 16), (0.1, 16), (0.2, 16), (0.1, 4), (0.1, 8), (0.1, 32), (0.1, 64)]


def theory(rate, batch):
    options = dict(noise=0.1, learning_rate=rate, batch=batch)
    return dynamics.teacher_student(2 * jnp.eye(2), **options).target


@pytest.fixture(scope="module")
def runs():
    """Pairs of levels (1, 3000, 2) with the widths of the theory."""
    G = np.random.default_rng(0).normal(size=(8, 3000, 2, 2))
    unit = np.linalg.eigvalsh((G + G.swapaxes(-1, -2)) / 2)
    return [
        dict(learning_rate=a, batch=b, levels=4 + theory(a, b).sigma[0] * x)
        for (a, b), x in zip(RUNS, unit, strict=True)
    ]


def test_finite_steps_bend_the_exponent_and_the_correction_straightens_it(runs):
    """Exponent of the mean spacing on learning rate over batch: .513 in place of one half."""
    curvature = [1 + 3 / b for _, b in RUNS]
    plain = weights.scaling_data(runs, amplitude=0.04)
    mended = weights.scaling_data(runs, amplitude=0.04, alpha_correction="ou", curvature=curvature)
    assert not plain.vary_power
    np.testing.assert_allclose(plain.X[:, 0], [a / b for a, b in RUNS])
    S = np.array([np.diff(run["levels"]) for run in runs])[..., 0]
    for found in (plain, mended):  # draws are independent: all spacings count, up to noise of ESS
        assert (found.spacings > 2000).all() and (found.spacings <= 3000).all()
        np.testing.assert_allclose(found.y / found.spacings, (S**2).mean(1) / 2)
    slope = np.polyfit(np.log(plain.X[:, 0]), np.log(S.mean(1)), 1)[0]
    assert abs(slope - 0.513) < 3 * 0.0034
    slope = np.polyfit(np.log(mended.X[:, 0]), np.log(S.mean(1)), 1)[0]
    assert abs(slope - 0.5) < 3 * 0.0034
    ratio = S.mean(1) / np.sqrt(2 * np.pi * mended.X.prod(1))
    np.testing.assert_allclose(ratio, 1.0, atol=4 * 0.523 / np.sqrt(3000))


@pytest.mark.slow
def test_groups_of_other_sizes_have_the_same_parameter():
    """y / spacings is twice the squared width for one, two and five levels."""
    key = jax.random.key(1)
    for n in (1, 2, 5):
        x = np.asarray(CoulombGas(n, 0.3, 1.0).sample(key, (2, 2, 600)))
        both = [dict(learning_rate=0.1 * (i + 1), batch=4, levels=x[i]) for i in (0, 1)]
        found = weights.scaling_data(both)
        error = 4 / np.sqrt(found.spacings)  # four standard errors of a Gamma variable
        assert (abs(found.y / found.spacings / (2 * 0.09) - 1) < error).all()


@pytest.mark.parametrize(
    "change, options, message",
    [
        ({"batch": 8, "learning_rate": 0.2}, {}, "not identified: all runs share alpha/B=0.025"),
        ({}, {"alpha_correction": "ou"}, "needs curvature"),
        ({}, {"curvature": 1.0}, "used by alpha_correction"),
        ({}, {"alpha_correction": "ou", "curvature": 12.0}, "rate 0.2 exceeds the stability limit"),
        ({"levels": np.ones((5, 2))}, {}, r"runs\[1\]\['levels'\] of shape .* do not vary"),
        ({"levels": np.ones(5)}, {}, r"runs\[1\]\['levels'\] must be an array of 2 or 3"),
        ({}, {"amplitude": np.ones(3)}, "amplitude has shape"),
    ],
)
def test_what_cannot_be_scaled_says_so(change, options, message):
    x = np.random.default_rng(0).normal(size=(9, 2))
    run = dict(learning_rate=0.1, batch=4, levels=x)
    with pytest.raises(ValueError, match=message):
        weights.scaling_data([run, dict(run, learning_rate=0.2) | change], **options)
    with pytest.raises(ValueError, match="runs has 1 entries"):
        weights.scaling_data([run])
    with pytest.raises(ValueError, match=r"runs\[1\] lacks levels"):
        weights.scaling_data([run, {"learning_rate": 0.1, "batch": 4}])


def test_reports_on_special_matrices():
    """Equal levels have no ratio; a matrix of low rank has ratios of its other levels alone."""
    gen = np.random.default_rng(0)
    low = gen.normal(size=(30, 6)) @ gen.normal(size=(6, 20))
    net = {"orthogonal": np.linalg.qr(gen.normal(size=(20, 20)))[0], "low": low}
    found = weights.report(net, key=0, draws=20)
    assert np.isnan(found["r"][0]) and "too few different levels" in weights.statements(found)[0]
    gaps = np.diff(np.linalg.svd(low, compute_uv=False)[5::-1] ** 2)
    ratios = np.minimum(gaps[1:], gaps[:-1]) / np.maximum(gaps[1:], gaps[:-1])
    np.testing.assert_allclose(found["r"][1], ratios.mean())
    tied = weights.hill([3.0, 2.0, 1.0, 1.0, 1.0], 4, key=0)
    assert tied.interval[0] < tied.exponent < tied.interval[1]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: weights.groups(x), "must be finite and descend"),
        (lambda x: weights.outliers([1.0, 2.0], (3, 2), np.ones((5, 3))), r"give \(draws, 2\)"),
        (lambda x: weights.bulk([], (3, 2)), "does not fit 0 levels"),
        (lambda x: weights.spectral_temperature(x, 1.0, at=np.eye(3)), r"at has shape \(3, 3\)"),
        (lambda x: weights.spectral_temperature(x, x[..., :1]), "posterior has matrices"),
        (lambda x: weights.spectral_temperature(x[:1], 1.0), "W has levels of variance 0.0"),
        (lambda x: weights.spectra(1e200 * x), "its square overflows or underflows"),
        (lambda x: weights.spectra(x, dims="step"), "dims must be a list"),
        (lambda x: weights.drift(weights.spectra(x[:5])), "5 draws; drift needs at least 8"),
        (lambda x: weights.drift(weights.spectra(x[0])), "needs draws"),
        (
            lambda x: weights.summary(weights.spectra(np.eye(2) + 0 * x), key=0),
            "equal levels at indices 0,1 of a group",
        ),
        (
            lambda x: weights.spectra(
                io.to_datatree({"posterior": {"W": x[None, :, 0, 0]}}, {}), var_name="W"
            ),
            "give matrices",
        ),
        (
            lambda x: weights.report({"a": np.eye(4)}, key=0, initial={"a": np.zeros((4, 4))}),
            "a is zero in initial",
        ),
    ],
)
def test_more_that_cannot_be_analysed(call, message):
    x = np.random.default_rng(0).normal(size=(9, 2, 2))
    with pytest.raises(ValueError, match=message):
        call(x)


def test_files_are_read_one_tensor_at_a_time(tmp_path):
    """No more memory than twice the file; 16-bit floats of both kinds become 32-bit ones."""
    from safetensors.numpy import save_file

    net = {str(i): np.full((256, 512), i, np.float32) for i in range(8)}
    save_file(net, tmp_path / "net.safetensors")
    np.savez(tmp_path / "net.npz", **net)
    for name in ("net.safetensors", "net.npz"):
        size = (tmp_path / name).stat().st_size
        tracemalloc.start()
        found = io.load_weights(tmp_path / name)
        whole = tracemalloc.get_traced_memory()[1]
        del found
        tracemalloc.reset_peak()
        for _, value in io.weights.tensors(tmp_path / name):
            del value
        one = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert whole < 2 * size and one < size / 2
    half = {"a": np.asarray(jnp.arange(6.0, dtype=jnp.bfloat16).reshape(2, 3))}
    save_file(half, tmp_path / "half.safetensors")
    found = io.load_weights(tmp_path / "half.safetensors")["a"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3))


@pytest.mark.slow
def test_a_posterior_has_the_temperature_one():
    """NUTS draws of whitened regression against exact draws, in the block of the levels."""
    gen, n, N, s = np.random.default_rng(5), 256, 3, 0.5
    X = np.linalg.qr(gen.normal(size=(n, N)))[0] * np.sqrt(n)
    Y = 2 * X + s * gen.normal(size=(n, N))

    def model():
        W = numpyro.sample("W", dist.ImproperUniform(dist.constraints.real, (), (N, N)))
        numpyro.sample("Y", dist.Normal(X @ W.T, s), obs=Y)

    chain = MCMC(
        NUTS(model), num_warmup=300, num_samples=1500, num_chains=2, chain_method="vectorized",
        progress_bar=False,
    )  # fmt: skip
    chain.run(jax.random.key(0), init_params={"W": jnp.ones((2, N, N))})
    best = Y.T @ X / n
    exact = best + gen.normal(size=(8000, N, N)) * s / np.sqrt(n)
    draws = chain.get_samples(group_by_chain=True)["W"]
    found = weights.spectral_temperature(draws, exact, at=best)
    assert abs(found.theta - 1) < 3 * found.error < 0.1
    np.testing.assert_allclose(
        weights.spectral_temperature(exact, 4 * 2**2 * s**2 / n, at=best).theta, 1.0, rtol=0.08
    )  # levels of the solution are 4 up to noise


@pytest.mark.slow
def test_two_routes_to_the_noise_of_a_tanh_network():
    """Changes of weights against the covariance of gradients of single samples over B."""
    gen = np.random.default_rng(0)
    X = gen.normal(size=(400, 5))
    y = np.tanh(X @ gen.normal(size=5)) + 0.5 * gen.normal(size=400)
    start = {"W": gen.normal(size=(8, 5)) / 5**0.5, "v": gen.normal(size=8) / 8**0.5}

    def loss(p, X, y):
        return 0.5 * ((jnp.tanh(X @ p["W"].T) @ p["v"] - y) ** 2).mean()

    def mover(rate, batch):
        return dynamics.sgld(dynamics.minibatch(loss, X, y, batch=batch), learning_rate=rate)

    settled = dynamics.run(mover(0.1, 400), start, 3000, 0, 3000).last.x
    rate, batch = 0.01, 8
    run = dynamics.run(mover(rate, batch), settled, 400, 1, chains=40)
    W = np.asarray(run.x["W"])
    found = weights.noise_by_variation(W, dt=rate)

    def sampled(p):
        one = jax.vmap(jax.grad(loss), (None, 0, 0))(p, X[:, None], y[:, None])
        return one["W"].var(0).mean()

    places = jax.tree.map(lambda v: v[::5, ::80].reshape(-1, *v.shape[2:]), run.x)
    G = np.asarray(jax.vmap(sampled)(places))
    direct = rate / batch * G.mean()
    error = np.hypot(found.error, rate / batch * G.std() / np.sqrt(len(G)))
    print(f"noise by variation {found.theta:.4g} +- {found.error:.2g}, by gradients {direct:.4g}")
    assert abs(found.theta - direct) < 3 * error and error < 0.05 * direct


@pytest.mark.slow
def test_early_training_follows_time_and_the_control_shows_it():
    """Digits, tanh 64-128-96-10: the second matrix at equal learning rate over batch and time."""
    from sklearn.datasets import load_digits

    X, label = load_digits(return_X_y=True)
    X, y = (X - X.mean(0)) / 8, np.eye(10)[label]
    widths = (64, 128, 96, 10)

    def apply(W, X):
        return jnp.tanh(jnp.tanh(X @ W[0].T) @ W[1].T) @ W[2].T

    def entropy(f, y):
        return optax.softmax_cross_entropy(f, y).mean()

    def trained(rate, batch):
        def one(key):
            *keys, order = jax.random.split(key, 4)
            start = [
                jax.random.normal(k, (b, a)) / a**0.5
                for k, a, b in zip(keys, widths, widths[1:], strict=False)
            ]
            return train(
                apply, start, X[:1300], y[:1300], optimizer=optax.sgd(rate), epochs=40, key=order,
                batch=batch, every=1, loss=entropy,
            )  # fmt: skip

        out = jax.vmap(one)(jax.random.split(jax.random.key(0), 4))
        right = np.argmax(jax.vmap(apply, (0, None))(out.params, X[1300:]), -1) == label[1300:]
        W = np.asarray(out.snapshots[1])[:, EPOCHS]
        levels = np.linalg.svd(W, compute_uv=False) ** 2
        edge = float(marchenko_pastur.edges(96, 128, 128**-0.5)[1])
        steps = np.array(EPOCHS) * (1300 // batch)
        run = dict(learning_rate=rate, batch=batch, steps=steps)
        return run | {"ratio": levels[..., 0].mean(0) / edge}, levels / edge, right.mean()

    hot, levels, right = trained(0.2, 8)
    cool, same = trained(0.2, 64)[0], trained(0.025, 8)[0]
    found = weights.linear_scaling_report([cool, same])
    assert found.sizes["pair"] == 3 and found.attrs["verdict"].endswith("at a similar time")
    assert found.attrs["largest_difference"] < 0.02
    print(*(np.round(run["ratio"], 3) for run in (hot, cool, same)), f"{right:.3f}")

    np.testing.assert_allclose(cool["ratio"], same["ratio"], rtol=0.02)
    # spacings stay those of random matrices while a tail grows
    np.testing.assert_allclose(hot["ratio"], [0.949, 1.446, 2.202, 2.597], atol=0.08)
    np.testing.assert_allclose(cool["ratio"], [0.949, 0.997, 1.425, 1.930], atol=0.08)
    np.testing.assert_allclose((levels > 1.05).sum(-1).mean(0), [0, 4, 7.5, 7.75], atol=1)
    tails = [[weights.hill(x, 15, key=0, draws=9).exponent for x in seed] for seed in levels]
    np.testing.assert_allclose(np.mean(tails, 0), [5.34, 3.95, 2.90, 2.66], rtol=0.1)
    gaps = -np.diff(levels)
    r = np.minimum(gaps[..., 1:], gaps[..., :-1]) / np.maximum(gaps[..., 1:], gaps[..., :-1])
    np.testing.assert_allclose(r.mean((0, -1)), 0.531, atol=4 * 0.26 / np.sqrt(4 * 94))
    law = lambda x: np.asarray(marchenko_pastur.cdf(x, 96, 128, 128**-0.5))  # noqa: E731
    edge = float(marchenko_pastur.edges(96, 128, 128**-0.5)[1])
    far = [[stats.kstest(edge * x, law).statistic for x in seed] for seed in levels]
    np.testing.assert_allclose(np.mean(far, 0), [0.026, 0.063, 0.081, 0.090], atol=0.012)
    assert abs(right - 0.937) < 0.02

    # the control: eight times the noise at a similar time changes next to nothing
    found = weights.linear_scaling_report([cool, same, hot])
    print(found.to_dataframe().round(3).to_string(), found.attrs)
    assert found["control"].any() and found.attrs["smallest_response"] < 0.1
    assert found.attrs["verdict"].startswith("not confirmed: runs with other noise agree")
