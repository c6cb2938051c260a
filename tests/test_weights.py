# SPDX-License-Identifier: Apache-2.0
"""Spectra of weights: levels, groups, summaries, bulk and outliers, noise, report and its words."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from bayesrg import dynamics, io
from bayesrg.cli import main
from bayesrg.diagnostics import weights
from bayesrg.ensembles import marchenko_pastur_null

rng = np.random.default_rng(0)


def perturbed(levels, v, chains=4, draws=500):
    """Matrices with these singular values, and independent entries of variance v added."""
    n = len(levels)
    W = np.random.default_rng(1).normal(size=(chains, draws, n, n)) * np.sqrt(v)
    return W + np.diag(levels)


def test_levels_spacings_and_ratios():
    W = rng.normal(size=(2, 5, 6, 4))
    found = weights.spectra({"a": W, "b": rng.normal(size=(2, 5, 3, 7)).astype(np.float32)})
    x = np.linalg.eigvalsh(W.swapaxes(-1, -2) @ W)[..., ::-1]
    np.testing.assert_allclose(found["levels"].sel(layer="a"), x)
    np.testing.assert_allclose(found["spacings"].sel(layer="a"), -np.diff(x))
    gaps = -np.diff(x)
    ratio = np.minimum(gaps[..., 1:], gaps[..., :-1]) / np.maximum(gaps[..., 1:], gaps[..., :-1])
    np.testing.assert_allclose(found["ratios"].sel(layer="a"), ratio)
    assert found["levels"].dims == ("chain", "draw", "layer", "level")
    assert np.isnan(found["levels"].sel(layer="b", level=3)).all()
    np.testing.assert_array_equal(found["n_zero"], [0, 4])
    edge = W.std((-1, -2)) ** 2 * (np.sqrt(6) + 2) ** 2
    np.testing.assert_allclose(found["edge"].sel(layer="a"), edge)
    singular = weights.spectra(W, "singular")["levels"]
    np.testing.assert_allclose(singular.isel(layer=0) ** 2, x)


@pytest.mark.parametrize("kind", ["numpy", "jax", "list", "tree", "snapshots", "integers"])
def test_weights_come_in_many_forms(kind):
    W = np.arange(24).reshape(2, 4, 3) ** 2 % 7
    tree = io.to_datatree({"posterior": {"W": W[None]}}, {})
    given, options = {
        "numpy": (W.astype(float), {}),
        "jax": (jnp.asarray(W, float), {}),
        "list": ([W.astype(float)], {}),
        "tree": (tree, {"var_name": "W"}),
        "snapshots": ({"W1": W.astype(np.float16)}, {"dims": ("step",)}),
        "integers": (W, {}),
    }[kind]
    found = weights.spectra(given, drop_zero=True, **options)["levels"]
    expected = np.linalg.svd(W.astype(float), compute_uv=False) ** 2
    np.testing.assert_allclose(found.isel(layer=0).squeeze(), expected, rtol=1e-3)
    assert found.dims[-3] == ("step" if kind == "snapshots" else "draw")


def test_groups_are_found_from_gaps():
    found = weights.spectra(perturbed([3, 2, 2, 1, 1.0], 1e-4))
    np.testing.assert_array_equal(found["group"].isel(layer=0), [0, 1, 1, 2, 2])
    known = weights.spectra(perturbed([3, 2, 2, 1, 1.0], 1e-4), degeneracies=[1, 4])
    np.testing.assert_array_equal(known["group"].isel(layer=0), [0, 1, 1, 1, 1])


def test_summary_of_groups():
    """Widths 2 c sqrt(v); levels of a pair repel with the exponent 1."""
    found = weights.spectra(perturbed([3, 2, 2, 1, 1.0], 1e-4))
    table = weights.summary(found, key=0).isel(layer=0)
    mean, sd = table.sel(statistic="mean"), table.sel(statistic="sd")
    for variable, theory in (
        ("level", [9, 4, 1]),
        ("sigma", [0.06, 0.04, 0.02]),
        ("spacing", [np.nan, 0.04 * np.sqrt(np.pi), 0.02 * np.sqrt(np.pi)]),
        ("q", [np.nan, 1, 1]),
        ("beta", [np.nan, 1, 1]),
    ):
        error = np.abs(mean[variable] - theory) / sd[variable]
        assert float(error.max()) < 4, variable  # 1e-3 of the level is n v: far below the errors
    assert (mean["distance"][1:] < 0.04).all() and np.isnan(mean["r"]).all()
    np.testing.assert_array_equal(table["size"], [1, 2, 2])
    assert (table["sigma"].sel(statistic="r_hat") < 1.02).all()
    assert (np.abs(weights.drift(found)["z"]) < 4).all()


def test_independent_levels_do_not_repel():
    """Twenty levels of a gas, and twenty independent ones."""
    G = rng.normal(size=(40, 20, 20))
    gas = 0.3 * np.linalg.eigvalsh((G + G.swapaxes(1, 2)) / 2)
    found = {}
    for name, x in (("gas", gas), ("independent", rng.normal(size=(40, 20)))):
        W = x[:, :, None] * np.eye(20)
        levels = weights.spectra(W, "symmetric", degeneracies=[20])
        found[name] = weights.summary(levels, key=0).isel(layer=0, group=0)
    low, high = (found[n].sel(statistic=["eti_low", "eti_high"]) for n in ("independent", "gas"))
    assert found["independent"]["beta"].sel(statistic="mean") < 0.06
    assert low["q"][1] < 0.25 and low["r"][0] < 0.386 < low["r"][1] + 0.02
    assert high["beta"][0] < 1 < high["beta"][1] + 0.1 and high["r"][0] < 0.53 < high["r"][1]
    assert found["independent"]["distance"].sel(statistic="mean") > 0.15


def test_outliers_of_a_perturbation():
    """M = 300, N = 200, s = .05: 2.908, 5.22 and none at 1.5, 2.5 and .8 of the threshold."""
    u, v = (np.linalg.qr(rng.normal(size=(n, 1)))[0] for n in (300, 200))
    null = np.asarray(marchenko_pastur_null(300, 200, 200, 0))
    W = rng.normal(size=(24, 300, 200)) * 0.05
    for share, place in ((1.5, 2.908), (2.5, 5.22), (0.8, None)):
        theta = share * 0.05 * (300 * 200) ** 0.25
        x = np.linalg.svd(W + theta * u @ v.T, compute_uv=False) ** 2
        found = [weights.outliers(levels, (300, 200), null) for levels in x]
        assert {f.count for f in found} == {int(place is not None)}
        np.testing.assert_allclose([f.edge for f in found], 2.475, rtol=0.02)
        if place is not None:
            # each matrix has a second level above 95 % of nulls with a probability of 5 %
            assert min(f.beyond for f in found) == 1 and np.mean([f.beyond for f in found]) < 1.3
            error = x[:, 0].std() / np.sqrt(24)
            assert abs(x[:, 0].mean() - place) < 4 * error < 0.05 * place
            np.testing.assert_allclose(np.mean([f.strength for f in found]), share, rtol=0.03)
        s = [weights.bulk(levels, (300, 200)).s for levels in x]
        np.testing.assert_allclose(s, 0.05, rtol=0.01)


def test_bulk_and_tail():
    x = np.r_[np.asarray(marchenko_pastur_null(97, 77, 1, 3))[0] * 0.04, [30, 40, 60]]
    found = weights.bulk(x, (80, 100))
    assert found.above == 3
    np.testing.assert_allclose(found.s, 0.2, rtol=0.02)
    pareto = (1 - np.random.default_rng(0).random(20_000)) ** (-1 / 1.5)
    tail = weights.hill(pareto, 2000, key=0)
    assert tail.interval[0] < 2.5 < tail.interval[1] and abs(tail.exponent - 2.5) < 0.1


def stationary(rate, batch, chains, every, records):
    found = dynamics.teacher_student(2 * jnp.eye(2), noise=0.1, learning_rate=rate, batch=batch)
    run = dynamics.run(found.algorithm, found.start, every * records, 0, every, chains=chains)
    return np.asarray(run.x)[:, 1 + found.target.burn_in // every :]


def test_two_routes_to_the_noise_of_training():
    """Label noise: alpha s^2 / B per unit of time, from widths and from changes of weights."""
    W = stationary(0.05, 16, 300, 1, 300)
    theory, curvature = 0.05 * 0.1**2 / 16, 1 + 3 / 16
    table = weights.summary(weights.spectra(W[:, ::40], degeneracies=[2]), key=0)
    width = weights.noise_by_width(table, learning_rate=0.05, curvature=curvature)
    change = weights.noise_by_variation(W, dt=0.05)
    assert abs(width.theta - theory) < 3 * width.error < 0.09 * theory
    # weights off the teacher add 3 v to the variance of a gradient: .5 % of it
    theory *= 1 + 3 * 0.05 / (16 * (2 - 0.05 * curvature))
    assert abs(change.theta - theory) < 3 * change.error < 0.01 * theory
    assert abs(width.theta - change.theta) < 3 * np.hypot(width.error, change.error)


def regression(n=256, N=3, s=0.5):
    """Whitened linear regression: inputs, targets and solution."""
    gen = np.random.default_rng(5)
    X = np.linalg.qr(gen.normal(size=(n, N)))[0] * np.sqrt(n)
    Y = 2 * X + s * gen.normal(size=(n, N))
    return X, Y, Y.T @ X / n


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate, batch, langevin",
    [(0.05, 16, 0), (0.02, 16, 0), (0.125, 16, 0), (0.01, 16, 1), (0.01, 256, 1)],
)
def test_temperature_of_training(rate, batch, langevin):
    """Widths of the weights and of the block of levels follow the formula; raw levels do not."""
    X, Y, best = regression()
    g = (X @ best.T - Y)[:, :, None] * X[:, None, :]
    curvature = 1 + 4 / batch if batch < 256 else 1.0
    theory = weights.effective_temperature(
        g if batch < 256 else g * 0,
        0.25,
        learning_rate=rate,
        batch=batch,
        langevin=langevin,
        curvature=curvature,
    )

    def loss(W, X, y):
        return 0.5 * ((X @ W.T - y) ** 2).sum(1).mean()

    rule = dynamics.sgld(
        dynamics.minibatch(loss, X, Y, batch=batch),
        learning_rate=rate,
        temperature=langevin * 0.25 / 256,
    )
    every = int(1 / rate)
    run = dynamics.run(rule, best, every * 60, 3, every, chains=150)
    W = np.asarray(run.x)[:, 10:]
    posterior = 4 * 2**2 * 0.25 / 256
    block = weights.spectral_temperature(W, posterior, at=best)
    assert abs(block.theta / theory - 1) < 0.05 and block.error < 0.03 * theory
    entries = ((W - best) ** 2).mean() / (0.25 / 256)
    np.testing.assert_allclose(entries, theory, rtol=0.05)


@pytest.mark.slow
def test_raw_levels_give_another_temperature():
    """Over data sets: (T + 1)/2 in place of T, since the solution's own levels are split."""
    gen, T = np.random.default_rng(0), 0.344
    unit = 0.25 / 256
    best = 2 * np.eye(3) + gen.normal(size=(400, 1, 3, 3)) * np.sqrt(unit)
    hot = best + gen.normal(size=(400, 40, 3, 3)) * np.sqrt(unit)
    cold = best + gen.normal(size=(400, 40, 3, 3)) * np.sqrt(T * unit)

    def raw(W):
        x = np.linalg.svd(W, compute_uv=False) ** 2
        return ((x - x.mean(-1, keepdims=True)) ** 2).sum(-1).mean()

    np.testing.assert_allclose(raw(cold) / raw(hot), (T + 1) / 2, rtol=0.03)
    found = [
        weights.spectral_temperature(c, h, at=b[0]).theta
        for c, h, b in zip(cold[:60], hot[:60], best[:60], strict=True)
    ]
    np.testing.assert_allclose(np.mean(found), T, rtol=0.05)


def test_scaling_needs_a_control():
    run = dict(learning_rate=0.2, batch=64, steps=[10, 20], ratio=[1.0, 1.4])
    same = dict(learning_rate=0.025, batch=8, steps=[80, 160], ratio=[1.001, 1.41])
    other = dict(learning_rate=0.2, batch=8, steps=[10, 20], ratio=[1.3, 2.0])
    alike = dict(other, ratio=[1.0, 1.4])
    found = weights.linear_scaling_report([run, same])
    assert found.attrs["verdict"].startswith("not confirmed: no control")
    np.testing.assert_allclose(found.attrs["largest_difference"], 0.01 / 1.405)
    found = weights.linear_scaling_report([run, same, other])
    assert found["control"].sum() == 4 and found.attrs["verdict"].endswith("as the rule says")
    # a control that is 10 % later, and agrees, counts only if there is none at equal times
    later = dict(other, steps=[11], ratio=[1.0])
    found = weights.linear_scaling_report([run, same, other, later])
    assert found["control"].sum() == 4 and found.attrs["verdict"].endswith("as the rule says")
    found = weights.linear_scaling_report([run, same, later])
    assert found["control"].sum() == 2
    assert found.attrs["verdict"].startswith("not confirmed: runs with other noise agree")
    found = weights.linear_scaling_report([run, same, alike])
    assert found.attrs["verdict"].startswith("not confirmed: runs with other noise agree")


def network():
    gen = np.random.default_rng(2)
    W = gen.normal(size=(64, 96)) / 10
    return {
        "first.weight": W.astype(np.float32),
        "first.bias": np.zeros(64, np.float32),
        "conv": gen.normal(size=(16, 4, 3, 3)),
        "second": W[:, :32] + 0.2 * np.outer(gen.normal(size=64), gen.normal(size=32)),
        "head": gen.normal(size=(2, 64)),
    }


@pytest.fixture(scope="module")
def report():
    return weights.report(network(), key=0, draws=100, initial=network())


def test_report_on_a_network(report):
    assert list(report["layer"]) == ["first.weight", "conv", "second"]
    assert report.attrs == {
        "skipped": "first.bias (vector), head (fewer than three levels)",
        "convolutions": "conv",
    }
    np.testing.assert_array_equal(report["rows"], [64, 16, 64])
    np.testing.assert_array_equal(report["columns"], [96, 36, 32])
    np.testing.assert_array_equal(report["change"], 0.0)
    np.testing.assert_array_equal(report["beyond"] > 0, [False, False, True])
    x = np.linalg.svd(network()["conv"].reshape(16, 36), compute_uv=False) ** 2
    np.testing.assert_allclose(report["levels"].sel(layer="conv")[:16], x)
    words = weights.statements(report)
    assert "no levels above the largest of 95 % of nulls" in words[0]
    assert "1 level above" in words[2] and "not distributed as of independent entries" in words[2]
    turned = {n: np.moveaxis(v, 0, -1) for n, v in network().items()}
    flipped = weights.report(turned, key=0, draws=100, transpose=True)
    np.testing.assert_allclose(flipped["r"], report["r"])


def test_a_file_gives_the_same_report(report, tmp_path, capsys, monkeypatch):
    from safetensors.numpy import save_file

    np.savez(tmp_path / "net.npz", **network())
    save_file(network(), tmp_path / "net.safetensors")
    for name in ("net.npz", "net.safetensors"):
        found = io.load_weights(tmp_path / name)
        assert set(found) == set(network())
        again = weights.report({n: found[n] for n in network()}, key=0, draws=100)
        xr.testing.assert_allclose(again, report.drop_vars("change"))
    assert list(io.load_weights(tmp_path / "net.npz", ["head"])) == ["head"]
    argv = ["bayesrg", "weights", str(tmp_path / "net.npz"), "--only", "*first*", "--json"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    rows = json.loads(capsys.readouterr().out)["matrices"]
    assert [row["layer"] for row in rows] == ["first.weight"] and rows[0]["rows"] == 64


def test_files_that_are_no_weights(tmp_path):
    from safetensors.numpy import save_file

    save_file(network(), tmp_path / "good.safetensors")
    good = (tmp_path / "good.safetensors").read_bytes()
    np.savez(tmp_path / "good.npz", a=np.ones(3))
    archive = (tmp_path / "good.npz").read_bytes()
    head = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + head])
    beyond = dict(header, head=dict(header["head"], data_offsets=[0, 10**12]))
    text = json.dumps(beyond).encode()
    files = {
        "empty.safetensors": b"",
        "short.safetensors": good[:-7],
        "headless.safetensors": good[8:],
        "length.safetensors": (10**15).to_bytes(8, "little") + good[8:],
        "json.safetensors": good[:8] + b"{" * head + good[8 + head :],
        "beyond.safetensors": len(text).to_bytes(8, "little") + text + good[8 + head :],
        "nothing.safetensors": (2).to_bytes(8, "little") + b"{}",
        "empty.npz": b"",
        "short.npz": archive[: len(archive) // 2],
        "text.npz": b"weights",
        "swapped.npz": good,
        "a.pt": b"x", "a.pth": b"x", "a.bin": b"x", "a.pkl": b"x", "a.h5": b"x", "a.keras": b"x",
        "a.txt": b"x",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            io.load_weights(tmp_path / name)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="not an array of numbers"):
        io.load_weights(tmp_path / "objects.npz")
    with pytest.raises(ValueError, match="weights_only=True"):
        io.load_weights(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError):
        io.load_weights(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="has no tensor 'haed'; it has head"):
        io.load_weights(tmp_path / "good.safetensors", ["haed"])
    bits = np.frombuffer(good[8 : 8 + head], np.uint8)
    for seed in range(8):  # headers with a few bytes changed: read, or refused in one line
        gen = np.random.default_rng(seed)
        bad = bits.copy()
        bad[gen.integers(len(bad), size=3)] = gen.integers(32, 127, size=3)
        (tmp_path / "fuzz.safetensors").write_bytes(good[:8] + bad.tobytes() + good[8 + head :])
        try:
            io.load_weights(tmp_path / "fuzz.safetensors")
        except ValueError as error:
            assert "fuzz.safetensors" in str(error) and "\n" not in str(error)


def test_shards_are_one_network(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones((2, 2))}, tmp_path / "model-1.safetensors")
    save_file({"b": np.ones(3, np.float16)}, tmp_path / "model-2.safetensors")
    found = io.load_weights(tmp_path)
    assert list(found) == ["a", "b"] and found["b"].dtype == np.float32
    save_file({"a": np.ones((2, 2))}, tmp_path / "model-3.safetensors")
    with pytest.raises(ValueError, match="'a' stands in model-1.safetensors and in model-3"):
        io.load_weights(tmp_path)


@pytest.mark.slow
def test_the_five_per_cent_verdict_is_given_in_five_per_cent():
    """Of 200 white matrices of three shapes: the binomial bound at four standard deviations."""
    gen, beyond = np.random.default_rng(3), []
    for shape in ((60, 40), (40, 40), (30, 90)):
        white = {str(i): gen.normal(size=shape) for i in range(67)}
        found = weights.report(white, key=1, draws=400)
        beyond += (found["distance"] > found["distance_null"][:, 1]).to_numpy().tolist()
        beyond += (found["beyond"] > 0).to_numpy().tolist()
    share = np.mean(beyond)
    assert abs(share - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 201)


def test_what_cannot_be_analysed_says_so():
    W = rng.normal(size=(2, 3, 4, 4))
    W[1, 2, 0, 0] = np.nan
    with pytest.raises(
        ValueError, match="1 non-finite values at chain 1, draw 2: training diverged"
    ):
        weights.spectra(W)
    for given, message in (
        (np.ones((4, 4)) * 1j, "is complex"),
        (np.ones(4), "give matrices"),
        (np.ones((0, 4)), "give matrices"),
        (np.zeros((3, 3)), "a matrix of zeros"),
        (np.ones((4, 4)), "structural zero eigenvalues; pass drop_zero=True"),
        ({}, "holds no arrays"),
        (np.ones((2, 2, 2, 3, 3)), "name the axes"),
    ):
        with pytest.raises(ValueError, match=message):
            weights.spectra(given)
    assert weights.spectra(np.ones((4, 4)), drop_zero=True).sizes["level"] == 1
    assert weights.spectra(np.ones((1, 5))).sizes["level"] == 1
    with pytest.raises(ValueError, match="needs draws"):
        weights.summary(weights.spectra(np.eye(3) + rng.normal(size=(3, 3))), key=0)
    close = weights.spectra(perturbed([2, 1.99, 1.98], 1e-4), degeneracies=[1, 2])
    with pytest.warns(UserWarning, match="level groups overlap") as seen:
        weights.summary(close, key=0)
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="only 8 spacings: KS has no power below 50"):
        weights.summary(weights.spectra(perturbed([2, 2.0], 1e-4, 1, 8)), key=0)
    with pytest.raises(ValueError, match="add up to 3 for 2 levels"):
        weights.spectra(perturbed([2, 1.0], 1e-4), degeneracies=[3])
    with pytest.raises(ValueError, match="no matrix with three levels"):
        weights.report({"a": np.ones(3)}, key=0)
    with pytest.raises(ValueError, match="runs has 1 entries"):
        weights.linear_scaling_report([{}])
    with pytest.raises(ValueError, match="burn_in is 9 and the run has 4 steps"):
        found = dynamics.teacher_student(jnp.eye(2), noise=0.1, learning_rate=0.1, batch=2)
        io.trajectory(dynamics.run(found.algorithm, found.start, 4, 0), burn_in=9)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_weights_whose_squares_are_no_numbers_are_refused(unit):
    W = unit * np.random.default_rng(0).normal(size=(8, 5))
    for call in (weights.spectra, lambda W: weights.report({"W": W}, key=0)):
        with pytest.raises(ValueError, match="W: the largest entry is .* rescale the weights"):
            call(W)
