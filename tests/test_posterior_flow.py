# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import diagnostics, io, kernels, rg, spectrum

prior = spectrum.fourier(lambda j: (1 + j) ** -2.0, 40)


def posterior(amplitude, noise, **more):
    groups = {
        "posterior": {"amplitude": amplitude, "noise": noise} | more,
        "constant_data": {"X": np.zeros((24, 1))},
    }
    return io.to_datatree(groups, {"X": ("point", "feature")})


@pytest.fixture(scope="module")
def dt():
    z = np.random.default_rng(0).normal(size=(2, 2, 30))
    return posterior(np.exp(0.5 * z[0]), 0.2 * np.exp(0.3 * z[1]), y_modes=np.zeros((2, 30, 4)))


@pytest.fixture(scope="module")
def flow(dt):
    levels = spectrum.levels(prior, tail=0.01)
    return diagnostics.posterior_flow(dt, levels, cutoffs=[0, 3, 17, 40], modes=[0, 7])


def test_every_draw_flows_as_by_itself(dt, flow):
    """Against one call of each function a draw, and the definition of each in NumPy."""
    group = flow["flow"]
    assert {v.dims[:2] for v in group.data_vars.values()} == {("chain", "draw")}
    for chain, draw in ((0, 0), (1, 17), (1, 29)):
        at = group.isel(chain=chain, draw=draw)
        a, s = (float(dt["posterior"][v][chain, draw]) for v in ("amplitude", "noise"))
        values, tail = a * np.arange(1, 41.0) ** -2, 0.01 * a
        ridges = s**2 + tail + np.array([values[c:].sum() for c in (0, 3, 17, 40)])
        np.testing.assert_allclose(at["universal"], ridges, rtol=1e-12)
        root = float(at["effective_ridge"])
        right = s**2 + tail + (values * root / (root + 24 * values)).sum()
        np.testing.assert_allclose(root, right, rtol=1e-12)
        learnt = 24 * values / (24 * values + root)
        np.testing.assert_allclose(at["learnability"], learnt[[0, 7]], rtol=1e-12)
        np.testing.assert_allclose(at["total_learnability"], learnt.sum(), rtol=1e-12)
        np.testing.assert_allclose(
            at["rescaled"][1:], ridges[1:] / ([3, 17, 40] * values[[2, 16, 39]])
        )
        for c, dressed in zip((0, 3, 17), at["dressed"].values[:3], strict=True):
            high = values[c:]
            right = s**2 + tail + (high * dressed / (dressed + 24 * high)).sum()
            np.testing.assert_allclose(dressed, right, rtol=1e-12)
        running = s**2 + tail + np.append(values[::-1].cumsum()[::-1][1:], 0.0)
        assert int(at["stop"]) == np.argmin(24 * values >= running)
        np.testing.assert_allclose(at["ridge"], s**2, rtol=1e-14)
    assert len(np.unique(group["stop"])) > 3


def test_arviz_reads_the_group_and_the_tree_keeps_the_others(dt, flow, tmp_path):
    names = ["stop", "effective_ridge", "learnability"]
    summary = az.summary(flow, group="flow", var_names=names)
    assert list(summary.index) == names[:2] + ["learnability[0]", "learnability[7]"]
    assert set(az.hdi(flow, group="flow", var_names=names).data_vars) == set(names)
    assert set(flow.children) == {"posterior", "constant_data", "flow"} and "flow" not in dt
    assert flow["flow"].attrs["n"] == 24
    io.save(flow, tmp_path / "a.nc")
    np.testing.assert_array_equal(
        io.open_run(tmp_path / "a.nc")["flow"]["stop"], flow["flow"]["stop"]
    )


def test_a_function_of_the_draw_replaces_the_names(dt, flow):
    def values_fn(draw):
        assert draw["y_modes"].shape == (4,)
        return draw["amplitude"] * prior.values, draw["noise"] ** 2 + 0.01 * draw["amplitude"]

    other = diagnostics.posterior_flow(
        dt, prior, values_fn=values_fn, cutoffs=[0, 3, 17, 40], modes=[0, 7]
    )
    for name in ("stop", "effective_ridge", "dressed", "rescaled"):
        np.testing.assert_allclose(other["flow"][name], flow["flow"][name], rtol=1e-12)
    with pytest.raises(ValueError, match="values must be sorted in falling order"):
        diagnostics.posterior_flow(dt, prior, values_fn=lambda p: (jnp.arange(1.0, 4), 0.1))


def test_constant_draws_and_fixed_parameters_are_fine():
    """A number stands in the place of a site, eigenvalues in that of a spectrum."""
    constant = posterior(np.full((1, 3), 9.0), np.full((1, 3), 0.2))
    group = diagnostics.posterior_flow(constant, prior.values, scale=1.5, n=12)["flow"]
    assert all(not np.ptp(v.values, axis=1).any() for v in group.data_vars.values())
    cutoffs = group["cutoff"].values
    assert cutoffs[[0, -1]].tolist() == [1, 40] and group.attrs["n"] == 12
    values = 1.5 * np.arange(1, 41.0) ** -2
    ridges = 0.04 + np.array([values[c:].sum() for c in cutoffs])
    np.testing.assert_allclose(group["universal"][0, 0], ridges, rtol=1e-12)
    root = float(group["effective_ridge"][0, 0])
    np.testing.assert_allclose(root, 0.04 + (values * root / (root + 12 * values)).sum())


def test_levels_are_counted_whole():
    values, counts = np.array([1.0, 0.1, 0.01]), np.array([1, 3, 5])
    levels = spectrum.fourier(lambda j: (1 + j) ** -2.0, 3)
    levels = type(levels)(jnp.asarray(values), jnp.asarray(counts, float))
    dt = posterior(np.ones((1, 2)), np.full((1, 2), 0.1))
    group = diagnostics.posterior_flow(dt, levels, cutoffs=[1, 4, 9])["flow"].isel(chain=0, draw=0)
    long = np.repeat(values, counts)
    np.testing.assert_allclose(group["universal"], 0.01 + np.array([0.35, 0.05, 0.0]), rtol=1e-12)
    np.testing.assert_allclose(group["rescaled"], group["universal"] / ([1, 4, 9] * values))
    root = float(group["effective_ridge"])
    np.testing.assert_allclose(root, 0.01 + (long * root / (root + 24 * long)).sum(), rtol=1e-12)
    learnt = (24 * long / (24 * long + root)).sum()
    np.testing.assert_allclose(group["total_learnability"], learnt, rtol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": "scale"}, "scale: the posterior has no site 'scale', only 'amplitude', 'noise'"),
        ({"noise": "y_modes"}, "noise: site 'y_modes' has dims .* give one number per draw"),
        ({"rule": "posterior"}, 'use "running" or "self_consistent"'),
        ({"modes": [40]}, "modes must be integers from 0 to 39"),
        ({"cutoffs": [41]}, "cutoffs must be an integer between 0 and 40"),
    ],
)
def test_wrong_names_are_told_apart(dt, wrong, message):
    with pytest.raises(ValueError, match=message):
        diagnostics.posterior_flow(dt, prior, **wrong)


def test_missing_groups_are_named(dt):
    with pytest.raises(ValueError, match="no group 'posterior', only 'constant_data'"):
        diagnostics.posterior_flow(dt.drop_nodes("posterior"), prior)
    with pytest.raises(ValueError, match="no X in constant_data to count points in; give n="):
        diagnostics.posterior_flow(dt.drop_nodes("constant_data"), prior)


def test_degeneracy_of_values_that_move(dt):
    """Levels of another kernel come in another order, with another degeneracy."""
    reference = spectrum.sphere(kernels.NNGP(1), 3, 9)
    other = spectrum.sphere(kernels.RBF(2.0), 3, 9)
    with pytest.raises(ValueError, match="values_fn returns no degeneracy"):
        diagnostics.posterior_flow(dt, reference, n=30, values_fn=lambda q: (other.values, 0.1))
    flow = diagnostics.posterior_flow(
        dt, reference, n=30, values_fn=lambda q: (spectrum.levels(other, tail=0.0), 0.1)
    )["flow"]
    expected = rg.effective_ridge(other.values, 30, 0.1, degeneracy=other.degeneracy)
    np.testing.assert_allclose(flow["effective_ridge"], expected, rtol=1e-12)
    stop = rg.cutoff(other.values, 30, 0.1, degeneracy=other.degeneracy)
    assert (flow["stop"] == stop).all()
