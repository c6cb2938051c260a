# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import diagnostics, io, spectrum


@pytest.fixture(scope="module", autouse=True)
def problem():
    """Compile when the tests run: every worker collects all files."""
    global prior
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
    return diagnostics.posterior_flow(dt, levels, cutoffs=[0, 3, 17, 40])


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
        np.testing.assert_allclose(at["learnability"], learnt, rtol=1e-12)
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
    summary = az.summary(flow, group="flow", var_names=names, coords={"mode": [0, 7]})
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

    other = diagnostics.posterior_flow(dt, prior, values_fn=values_fn, cutoffs=[0, 3, 17, 40])
    for name in ("stop", "effective_ridge", "dressed", "rescaled"):
        np.testing.assert_allclose(other["flow"][name], flow["flow"][name], rtol=1e-12)
    with pytest.raises(ValueError, match="values must be sorted in falling order"):
        diagnostics.posterior_flow(dt, prior, values_fn=lambda p: (jnp.arange(1.0, 4), 0.1))


VALUES, COUNTS = np.array([1.0, 0.1, 0.01]), np.array([1.0, 3.0, 5.0])


def test_constant_draws_fixed_parameters_and_whole_levels():
    """A number stands in place of a site, and one value for several modes."""
    constant = posterior(np.full((1, 3), 9.0), np.full((1, 3), 0.1))
    levels = spectrum.Levels(1.0 / 1.5 * jnp.asarray(VALUES), jnp.asarray(COUNTS))
    group = diagnostics.posterior_flow(constant, levels, scale=1.5, n=12)["flow"]
    assert all(not np.ptp(v.values, axis=1).any() for v in group.data_vars.values())
    cutoffs = group["cutoff"].values
    assert cutoffs.tolist() == list(range(1, 10)) and group.attrs["n"] == 12

    long = np.repeat(VALUES, COUNTS.astype(int))
    ridges = 0.01 + np.array([long[c:].sum() for c in cutoffs])
    np.testing.assert_allclose(group["universal"][0, 0], ridges, rtol=1e-12)
    np.testing.assert_allclose(group["rescaled"][0, 0], ridges / (cutoffs * long[cutoffs - 1]))
    root = float(group["effective_ridge"][0, 0])
    np.testing.assert_allclose(root, 0.01 + (long * root / (root + 12 * long)).sum(), rtol=1e-12)
    learnt = (12 * long / (12 * long + root)).sum()
    np.testing.assert_allclose(group["total_learnability"][0, 0], learnt, rtol=1e-12)


def test_degeneracy_of_values_that_move(dt):
    """Levels of another kernel come in another order, with another degeneracy."""
    reference = spectrum.Levels(jnp.asarray(VALUES), jnp.asarray(COUNTS))
    other, counts = jnp.array([2.0, 0.5, 0.002]), jnp.array([3.0, 1.0, 5.0])
    with pytest.raises(ValueError, match="values_fn returns no degeneracy"):
        diagnostics.posterior_flow(dt, reference, n=30, values_fn=lambda q: (other, 0.1))
    flow = diagnostics.posterior_flow(
        dt, reference, n=30, values_fn=lambda q: (spectrum.Levels(other, counts), 0.1)
    )["flow"]
    root = flow["effective_ridge"].values[0, 0]
    assert (flow["effective_ridge"] == root).all()
    np.testing.assert_allclose(root, 0.1 + (counts * other * root / (root + 30 * other)).sum())
    assert (flow["stop"] == 4).all()  # 30 * 0.5 is above its running ridge, 30 * 0.002 is below


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": "scale"}, "scale: the posterior has no site 'scale' .*, only 'amplitude', 'n"),
        ({"noise": "y_modes"}, "noise: the posterior has no site 'y_modes' with one number per"),
        ({"rule": "posterior"}, 'use "running" or "self_consistent"'),
        ({"cutoffs": [41]}, "cutoffs must be an integer between 0 and 40"),
    ],
)
def test_wrong_names_are_told_apart(dt, wrong, message):
    with pytest.raises(ValueError, match=message):
        diagnostics.posterior_flow(dt, prior, **wrong)


def test_missing_groups_are_named(dt):
    with pytest.raises(ValueError, match="no group 'posterior', only 'constant_data'"):
        diagnostics.posterior_flow(dt.drop_nodes("posterior"), prior)
    with pytest.raises(ValueError, match="no group 'constant_data', only .*; give n="):
        diagnostics.posterior_flow(dt.drop_nodes("constant_data"), prior)
