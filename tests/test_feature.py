# SPDX-License-Identifier: Apache-2.0
"""What layers have learnt: by hand, against reference posteriors, and whom to believe."""

import arviz as az
import jax
import numpy as np
import pytest
import xarray as xr
from oracles import within
from test_order_parameter import latents_of_the_prior

from bayesrg import diagnostics, io
from bayesrg.deep_linear.features import feature_means
from bayesrg.deep_linear.order import order_parameter
from bayesrg.deep_linear.problem import prepare
from bayesrg.diagnostics import feature
from bayesrg.diagnostics.feature.convergence import mcse
from bayesrg.networks import DeepLinear

LINEAR = ("kernel_scale", "target_gain")


def two_outputs():
    """Data of the reference: two outputs, six points, five inputs."""
    rng = np.random.default_rng(4)
    X, _ = rng.standard_normal((6, 5)), rng.standard_normal((1, 5))
    B = np.array([[1, 0.8], [-0.6, -0.9], [0.5, 0.1], [0, 0.4], [0.2, 0]])
    return X, X @ B + np.sqrt(0.15) * rng.standard_normal((6, 2))


X, Y = two_outputs()
NET = DeepLinear((4, 3), ridge=0.15, outputs=2)


def tree(posterior, prior, X=X, Y=Y):
    """Sites (chain, draw, ...) as fit returns them."""
    groups = {"posterior": posterior, "prior": prior, "constant_data": {"X": X}}
    outputs = ("point", "output")[: np.ndim(Y)]
    return io.to_datatree(
        groups | {"observed_data": {"y": Y}},
        {"X": ("point", "feature"), "y": outputs, "Q": ("output", "output_bis")}
        | {f"z{i}": (f"z{i}_unit", f"z{i}_unit_bis") for i in range(1, 4)},
    )


def resample(latents, Q, seed, kept):
    """Draws of the posterior of Q and what makes it: those of the prior, by p(Y | Q)."""
    kappa, U = np.linalg.eigh(X @ X.T / 5)
    q, V = np.linalg.eigh(Q)
    C = np.clip(kappa, 0.0, None)[:, None] * q[:, None] + 0.15
    R = U.T @ Y @ V
    weight = -0.5 * (np.log(C) + R**2 / C).sum((1, 2))
    weight = np.exp(weight - weight.max())
    at = (np.random.default_rng(seed).uniform() + np.arange(kept)) / kept
    index = np.searchsorted(np.cumsum(weight) / weight.sum(), at)
    index = np.random.default_rng(seed).permutation(index).reshape(4, -1)
    assert 1 / ((weight / weight.sum()) ** 2).sum() > 2 * kept
    return {name: np.asarray(v)[index] for name, v in latents.items()}


def of_the_prior(latents, draws):
    return {name: np.asarray(v)[None, :draws] for name, v in latents.items()}


@pytest.fixture(scope="module")
def collapsed():
    latents = latents_of_the_prior((4, 3), 2, 100_000, 5)
    Q = np.asarray(jax.jit(lambda z: order_parameter((4, 3), 2, z).Q)(latents))
    return tree(resample(latents, Q, 1, 2000), of_the_prior(latents, 1000))


@pytest.fixture(scope="module")
def raw():
    rng = np.random.default_rng(6)
    shapes = {"z1": (4, 5), "z2": (3, 4), "z3": (2, 3)}
    latents = {name: rng.standard_normal((100_000, *shape)) for name, shape in shapes.items()}
    A = latents["z3"] @ latents["z2"] / np.sqrt(12)
    Q = A @ A.swapaxes(1, 2)
    return tree(resample(latents, Q, 2, 2000), of_the_prior(latents, 1000))


@pytest.fixture(scope="module")
def measured(collapsed):
    return feature.measure_deep_linear(collapsed, NET, keep_kernels=True)


@pytest.fixture(scope="module")
def drawn(collapsed):
    return feature.measure_deep_linear(collapsed, NET, kernel="draw", key=3, prior=None)


@pytest.fixture(scope="module")
def measured_raw(raw):
    return feature.measure_deep_linear(raw, NET)


def made_up(seed=0):
    """Kernels of two layers of nobody's model."""
    rng = np.random.default_rng(seed)
    H = rng.standard_normal((2, 6, 2, 5, 4))
    H0 = rng.standard_normal((1, 9, 2, 5, 7))
    dims = {"feature_kernel": ("layer", "point", "point_bis"), "y": ("point",)}
    groups = {
        "posterior": {"feature_kernel": H @ H.swapaxes(-1, -2)},
        "prior": {"feature_kernel": H0 @ H0.swapaxes(-1, -2)},
        "observed_data": {"y": rng.standard_normal(5)},
    }
    A = rng.standard_normal((2, 5, 8))
    return io.to_datatree(groups, dims), A @ A.swapaxes(1, 2)


def test_every_quantity_by_hand():
    dt, K = made_up()
    out = feature.measure(dt, prior_mean=K, ridge=0.3, modes=3)
    y = dt["observed_data"]["y"].to_numpy()
    H = np.eye(5) - 1 / 5
    for source, name in (("posterior", "feature_learning"), ("prior", "feature_learning_prior")):
        for at in ({"chain": 0, "draw": 0}, {"chain": -1, "draw": 4}):
            group = out[name].isel(at)
            for i in range(2):
                Phi = dt[source]["feature_kernel"].isel(at).to_numpy()[i]
                a = np.linalg.solve(K[i], y)
                values = np.linalg.eigvalsh(Phi)[::-1]
                centred, yc = H @ Phi @ H, H @ y
                expected = {
                    "kernel_scale": np.trace(Phi) / np.trace(K[i]),
                    "target_alignment": y @ Phi @ y / (np.linalg.norm(Phi) * (y @ y)),
                    "centred_alignment": yc @ Phi @ yc / (np.linalg.norm(centred) * (yc @ yc)),
                    "target_gain": a @ Phi @ a / (y @ a),
                    "participation_ratio": np.trace(Phi) ** 2 / np.trace(Phi @ Phi),
                    "effective_dimension": np.trace(Phi @ np.linalg.inv(Phi + 0.3 * np.eye(5))),
                    "top_eigenvalue": values[0],
                    "spectral_shift": (values - np.linalg.eigvalsh(K[i])[::-1])[:3],
                    "lazy_distance": np.linalg.norm(Phi - K[i]) / np.linalg.norm(K[i]),
                }
                assert set(expected) == set(group.data_vars)
                for quantity, value in expected.items():
                    found = group[quantity].isel(layer=i)
                    np.testing.assert_allclose(found, value, rtol=1e-10, err_msg=quantity)
    kernels = out["feature_kernels"]
    mean = dt["posterior"]["feature_kernel"].mean(("chain", "draw"))
    np.testing.assert_allclose(kernels["posterior"], mean, rtol=1e-12)
    np.testing.assert_allclose(kernels["prior_mean"], K)
    assert out["feature_learning"]["layer"].values.tolist() == [1, 2]
    again = feature.measure(dt, modes=3)["feature_kernels"]  # against the prior draws' own mean
    np.testing.assert_allclose(again["prior_mean"], kernels["prior"], rtol=1e-12)


def test_several_targets_and_a_rank_deficient_prior_mean(measured):
    """Alignment with YY^T as a matrix, and the pseudo-inverse, on the last draw."""
    group = measured["feature_learning"].isel(chain=-1, draw=-1)
    K = X @ X.T / 5
    plus = np.linalg.pinv(K, rcond=1e-10)
    for i in range(2):
        Phi, YY = group["feature_kernel"].to_numpy()[i], Y @ Y.T
        np.testing.assert_allclose(
            group["target_alignment"][i],
            (Phi * YY).sum() / (np.linalg.norm(Phi) * np.linalg.norm(YY)), rtol=1e-10,
        )  # fmt: skip
        gain = np.trace(Y.T @ plus @ Phi @ plus @ Y) / np.trace(Y.T @ plus @ Y)
        np.testing.assert_allclose(group["target_gain"][i], gain, rtol=1e-9)


def test_order_parameter_and_kernels_of_a_draw(collapsed, measured):
    at = {"chain": 2, "draw": 17}
    draw = {k: v.to_numpy() for k, v in collapsed["posterior"].isel(at).data_vars.items()}
    Q, chain = jax.jit(lambda draw: order_parameter((4, 3), 2, draw))(draw)
    data = prepare(NET, X, Y).as_jax()
    kernels = jax.jit(lambda chain: feature_means(data, chain))(chain)
    group = measured["feature_learning"].isel(at)
    q = np.linalg.eigvalsh(np.asarray(Q))[::-1]
    np.testing.assert_allclose(group["order_parameter"], Q, rtol=1e-12)
    np.testing.assert_allclose(group["log_q_eig"], np.log(q), rtol=1e-10)
    np.testing.assert_allclose(group["effective_ridge"], 0.15 / q, rtol=1e-10)
    np.testing.assert_allclose(group["feature_kernel"], kernels, rtol=1e-10, atol=1e-12)
    squares = [float(draw[f"c{i}"].sum() + (draw[f"t{i}"] ** 2).sum()) for i in (1, 2)]
    np.testing.assert_allclose(group["layer_excess"], np.subtract(squares, [8, 6]), rtol=1e-12)


@pytest.mark.parametrize(
    "route",
    ["measured", *(pytest.param(r, marks=pytest.mark.slow) for r in ("drawn", "measured_raw"))],
)
def test_three_ways_to_the_reference_kernels(route, request):
    """Traces and overlaps by importance sampling with 4e6 draws; the prior's are known."""
    out = request.getfixturevalue(route)
    group = out["feature_learning"].to_dataset()
    trace = 7.569412 * group["kernel_scale"]
    assert abs(np.trace(X @ X.T / 5) - 7.569412) < 1e-6
    error = mcse(xr.Dataset({"trace": trace}))["trace"]
    for i, (expected, own) in enumerate([(9.4435, 0.0033), (12.938, 0.011)]):
        assert within(trace[..., i].mean(), expected, np.hypot(1.2 * error[i], own)), (i, expected)
    overlap = (out["feature_kernels"]["posterior"] * (Y @ Y.T)).sum(("point", "point_bis"))
    for i, expected in enumerate((232.88, 426.36)):
        assert abs(overlap[i] / expected - 1) < 0.06
    if "feature_learning_prior" in out.children:
        prior = out["feature_learning_prior"].to_dataset()[list(LINEAR)]
        mean, error = prior.mean(("chain", "draw")), mcse(prior)
        for name in LINEAR:
            assert within(mean[name], 1.0, error[name] + 1e-12), (name, mean, error)


def test_estimators_agree_on_what_is_linear_alone(measured, drawn):
    assert "feature_learning_prior" not in drawn.children  # where no prior is asked for
    means, errors = [], []
    for out in (measured, drawn):
        group = out["feature_learning"].to_dataset()[[*LINEAR, "participation_ratio"]]
        means.append(group.mean(("chain", "draw")))
        errors.append(mcse(group))
    for name in LINEAR:
        assert within(means[0][name], means[1][name], np.hypot(errors[0][name], errors[1][name]))
        assert (errors[0][name] < errors[1][name]).all()
    gap = means[0]["participation_ratio"] - means[1]["participation_ratio"]
    assert (gap > 0.2).any()
    mixed = measured.copy()
    mixed["feature_learning"] = drawn["feature_learning"]
    with pytest.raises(ValueError, match="different estimators, draw, rao_blackwell"):
        feature.compare(mixed)


def test_learning_is_posterior_less_prior(measured):
    result = feature.compare(measured)
    assert result["spectral_shift"].dims == ("statistic", "layer", "mode")
    groups = (measured["feature_learning"], measured["feature_learning_prior"])
    for name in ("lazy_distance", "target_alignment", "top_eigenvalue"):
        after, before = (g[name].isel(layer=1) for g in groups)
        flat = [v.to_numpy().ravel() for v in (after, before)]
        mean = [v.mean() for v in flat]
        found = result[name].isel(layer=1)
        np.testing.assert_allclose(found[:3], [*mean, mean[0] - mean[1]], rtol=1e-10)
        rough = np.hypot(*(v.std() / np.sqrt(v.size) for v in flat))  # draws are independent
        assert 0.8 * rough < found[3] < 1.25 * rough
    assert result["target_alignment"].sel(statistic="difference").min() > 0.1
    with pytest.raises(ValueError, match="no group 'feature_learning_prior'"):
        feature.compare(measured.drop_nodes("feature_learning_prior"))


def test_all_layers_share_one_excess(measured, measured_raw):
    found = feature.layer_identity(measured)
    assert found.sizes == {"level": 2} and found["spread"] < 4
    for out in (measured, measured_raw):
        found = feature.layer_identity(out)
        assert within(found["drive"], 1.312, np.hypot(1.2 * found["drive_mcse"], 0.008))
        assert within(found["excess"][-2:], 1.312, 1.2 * found["mcse"][-2:])
    # the first matrix was left at its prior, which the order parameter does not see
    assert found["level"].values.tolist() == [1, 2, 3]
    assert np.abs(found["z"][1:]).max() < 4 < np.abs(found["z"][0]) == found["spread"]


def test_draws_of_the_prior_do_not_share_it(collapsed, measured):
    latents = latents_of_the_prior((4, 3), 2, 2000, 7).items()  # in the shapes of ``measured``
    latents = {k: v.reshape(4, 500, -1) for k, v in latents}
    prior = {k: v.to_numpy() for k, v in collapsed["prior"].data_vars.items()}
    wrong = feature.measure_deep_linear(tree(latents, prior), NET, keep_kernels=True)
    wrong = wrong.drop_nodes("feature_learning_prior")
    assert feature.layer_identity(wrong)["spread"] > 4
    verdict = feature.diagnose(wrong)
    assert not verdict.passed
    assert [r for r in verdict.reasons if r.startswith("layer identity: off by")]
    assert "feature_kernel" in measured["feature_learning"]
    assert "feature_kernel" not in feature.diagnose(measured).table["variable"]
    good = feature.diagnose(measured, var_names=["c1", "c2", "kernel_scale", "drive"])
    assert good.passed and not good.reasons
    assert set(good.table["status"].values) == {"passed"}
    with pytest.raises(ValueError, match="make it with measure_deep_linear"):
        feature.layer_identity(collapsed)


def test_weights_are_no_invariants(raw):
    verdict = feature.diagnose(raw)
    assert not verdict.passed and "nothing to check" in verdict.reasons[-1]
    without = feature.diagnose(raw, var_names=["z1"])
    assert (
        "z1 left out: the posterior of weights is invariant under rotations" in without.reasons[0]
    )
    with pytest.warns(UserWarning, match="z1, z3: the posterior of weights is invariant"):
        allowed = feature.diagnose(raw, var_names=["z1", "z3"], allow_weights=True)
    assert allowed.table["status"].values.tolist() == ["weights", "weights"]
    assert not allowed.passed


def test_kernels_of_a_network_that_is_there():
    net = DeepLinear((4, 3), ridge=0.1)
    rng = np.random.default_rng(0)
    weights = tuple(rng.standard_normal(shape) for shape in ((4, 5), (3, 4), (1, 3)))

    def apply(params, X):
        return net.layers(params, X)[1:-1]

    found = feature.kernels(apply, weights, X)["feature_kernel"]
    H = X
    for layer, W in enumerate(weights[:2], 1):
        H = H @ W.T
        np.testing.assert_allclose(found.sel(layer=layer), H @ H.T / H.shape[1], rtol=1e-12)
    many = tuple(rng.standard_normal((2, 3, *W.shape)) for W in weights)
    for draws, W in zip(many, weights, strict=True):
        draws[0, 0] = W
    ensemble = feature.kernels(apply, many, X, lead=("chain", "draw"))
    assert ensemble["feature_kernel"].dims == ("chain", "draw", "layer", "point", "point_bis")
    np.testing.assert_allclose(ensemble["feature_kernel"][0, 0], found, rtol=1e-12)
    with pytest.raises(ValueError, match=r"of 6 draws take 3,456 bytes and max_bytes is 3,000"):
        feature.kernels(apply, many, X, lead=("chain", "draw"), max_bytes=3000)
    dt = xr.DataTree.from_dict({"posterior": ensemble})
    out = feature.measure(dt, prior_mean=np.stack([X @ X.T / 5] * 2), Y=Y, prior=None)
    assert out["feature_learning"].attrs["estimator"] == "draw"


@pytest.mark.parametrize("widths", [(3, 1, 4), ()])
def test_narrow_layers_and_none(widths):
    """Prior means under a bottleneck, where the order parameter has a kernel; both routes."""
    net = DeepLinear(widths, ridge=0.15, outputs=2)
    sizes = (5, *widths, 2)
    rng = np.random.default_rng(9)
    z = {
        f"z{i}": rng.standard_normal((1, 4000, b, a))
        for i, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True), 1)
    }
    out = feature.measure_deep_linear(tree(z, z), net)
    group = out["feature_learning_prior"].to_dataset()
    assert group.sizes["layer"] == len(widths) and group.sizes["level"] == len(widths) + 1
    error = mcse(group[["kernel_scale"]])["kernel_scale"]
    assert within(group["kernel_scale"].mean(("chain", "draw")), 1.0, error + 1e-12)
    rank = min(sizes[1:])
    assert (np.isfinite(group["log_q_eig"]).sum("output") == rank).all()
    assert np.isfinite(group["lazy_distance"]).all()


def test_mean_field_and_scales_measure_in_mapped_units():
    net = DeepLinear(
        (6, 5), ridge=0.2, weight_scales=(0.5, 2.0, 1.5), parametrisation="mean_field", richness=1.5
    )
    latents = {k: v[None] for k, v in latents_of_the_prior((6, 5), 1, 1000, 3).items()}
    out = feature.measure_deep_linear(tree(latents, latents, Y=Y[:, 0]), net)
    group = out["feature_learning_prior"].to_dataset()
    q = group["order_parameter"].to_numpy()[..., 0, 0]
    np.testing.assert_allclose(group["effective_ridge"][..., 0], 0.2 * 1.5**2 / q, rtol=1e-12)
    K = out["feature_kernels"]["prior_mean"]
    np.testing.assert_allclose(K[0], 0.25 * X @ X.T / 5, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(K[1], X @ X.T / 5, rtol=1e-10, atol=1e-12)
    error = mcse(group[["kernel_scale"]])["kernel_scale"]
    assert within(group["kernel_scale"].mean(("chain", "draw")), 1.0, error + 1e-12)


def test_the_order_parameter_is_a_ridge_that_flows(measured):
    """Along an eigenvector of Q the network is kernel ridge regression with the ridge T/q."""
    ridge = measured["feature_learning"]["effective_ridge"][..., 1]
    dt = xr.DataTree.from_dict({"posterior": ridge[:, :16].to_dataset(name="ridge")})
    values = np.linalg.eigvalsh(X @ X.T / 5)[:0:-1] / 6

    def flow_of(draw):
        return values, draw["ridge"]

    flow = diagnostics.posterior_flow(dt, values, values_fn=flow_of, n=6, cutoffs=[0, 2])["flow"]
    q = np.linalg.eigvalsh(measured["feature_learning"]["order_parameter"])[:, :16, 0]
    np.testing.assert_allclose(flow["ridge"], 0.15 / q, rtol=1e-10)
    s = flow["effective_ridge"][1, 8].item()
    np.testing.assert_allclose(
        s, 0.15 / q[1, 8] + (values * s / (s + 6 * values)).sum(), rtol=1e-10
    )
    np.testing.assert_allclose(flow["universal"][..., 1], 0.15 / q + values[2:].sum(), rtol=1e-10)


def test_groups_go_to_a_file_and_arviz_reads_them(measured, tmp_path):
    io.save(measured.drop_nodes("prior"), tmp_path / "a.nc")
    back = io.open_run(tmp_path / "a.nc")
    summary = az.summary(back, group="feature_learning", var_names=["kernel_scale", "drive"])
    assert list(summary.index) == ["kernel_scale[1]", "kernel_scale[2]", "drive"]
    assert back["feature_learning"].attrs["estimator"] == "rao_blackwell"
    np.testing.assert_array_equal(back["feature_learning"].attrs["widths"], [4, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": "elsewhere"}, "no group 'elsewhere', only"),
        ({"kernel": "mean"}, "kernel must be one of 'rao_blackwell', 'draw', got 'mean'"),
        ({"kernel": "draw"}, "key is None, and draws of kernels from the collapsed model"),
        ({"net": DeepLinear((4, 1), ridge=0.1, outputs=2)}, "give the network of the fit"),
        ({"net": DeepLinear((4, 3, 2), ridge=0.1, outputs=2)}, "hold neither all of z1, z2"),
        ({"net": DeepLinear((4, 3), ridge=0.1)}, r"Y has shape \(6, 2\) and the network 1 out"),
        ({"keep_kernels": True, "max_bytes": 10}, "thin the draws, or measure them without"),
        ({"X": X[:4]}, "the inputs have 4 rows"),
    ],
)
def test_wrong_arguments_are_told(collapsed, change, message):
    net = change.pop("net", NET)
    with pytest.raises(ValueError, match=message):
        feature.measure_deep_linear(collapsed, net, **change)


def test_trees_that_lack_something_are_told():
    dt, K = made_up()
    with pytest.raises(ValueError, match=r"no group 'prior', .* prior=None goes without"):
        feature.measure(dt.drop_nodes("prior"), prior_mean=K)
    with pytest.raises(ValueError, match="neither prior_mean nor a group of prior draws"):
        feature.measure(dt, prior=None)
    with pytest.raises(ValueError, match="'observed_data' has no variable 'feature_kernel', only"):
        feature.measure(dt, prior="observed_data")
    with pytest.raises(ValueError, match=r"prior_mean has shape \(1, 5, 5\); give \(2, 5, 5\)"):
        feature.measure(dt, prior_mean=K[:1])
    with pytest.raises(ValueError, match="no group 'observed_data', only .*; give Y="):
        feature.measure(dt.drop_nodes("observed_data"), prior_mean=K)
    with pytest.raises(ValueError, match="no group 'constant_data', only .*; give X="):
        feature.measure_deep_linear(dt, NET)
