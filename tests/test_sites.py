# SPDX-License-Identifier: Apache-2.0
"""Names of axes, and laws of sites, in models of every shape."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from oracles import fourier_problem
from sampling import from_prior
from scipy import stats

import bayesrg as brg
from bayesrg.inference.sites import bind, fingerprint, layout_of

p = fourier_problem()
X, y = np.asarray(p.x), np.asarray(p.y)
SMALL = {"draws": 6, "warmup": 6, "chains": 2, "block": 12, "progress": False, "devices": 1}
SMALL |= {"sampler": from_prior}


def gp(scale=1.0, modes=61):
    return brg.gp.MercerNormal(p.Phi[:, :modes], p.values[:modes], 0.1, scale=scale)


def dims(model, Y=y):
    return layout_of(bind(model, {}), X, Y).dims


def test_axes_are_named_where_they_stand():
    Y = jnp.stack([y] * 3, 1)

    def batched(X, Y=None):
        numpyro.sample("y", gp(jnp.ones(3)), obs=Y.T)

    def expanded(X, Y=None):
        numpyro.sample("w", dist.Normal(0, 1).expand((3, 2)).to_event(1),
                       infer={"event_dims": ["coef"]})  # fmt: skip
        numpyro.sample("v", dist.Normal(0, 1).expand((4,)).to_event(1))
        numpyro.sample("y", gp().expand((3,)).to_event(1), obs=Y.T)

    def far_plate(X, Y=None):
        with numpyro.plate("group", 2, dim=-2):
            numpyro.sample("y", gp(jnp.ones(3)), obs=jnp.stack([Y.T] * 2))

    assert dims(batched, Y) == {"y": ("output", "point")}
    assert dims(brg.rg.coarsen(batched, y=brg.rg.Coarse(2)), Y) == {
        "y_modes": ("output", "mode"), "y": ("output", "point"),
    }  # fmt: skip
    assert dims(expanded, Y) == {
        "w": ("output", "coef"), "v": ("v_axis",), "y": ("output", "point")
    }  # fmt: skip
    assert dims(far_plate, Y) == {"y": ("group", "output", "point")}


def test_two_cuts_of_different_size_and_a_scope_reach_the_tree():
    def two(X, y=None):
        for name, modes in (("a", 61), ("b", 9)):
            spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, modes)
            numpyro.sample(name, brg.gp.marginal(spectrum, X, 0.1), obs=y)

    coarse = brg.rg.coarsen(two, a=brg.rg.Coarse(3, "truncate"), b=brg.rg.Coarse(2))
    model = handlers.scope(coarse, prefix="in")
    dt = brg.fit(model, (X, y), key=0, **SMALL)
    assert dt["posterior"]["in.a_modes"].dims == ("chain", "draw", "in.a_mode")
    assert dt["posterior"]["in.b_modes"].shape == (2, 6, 2)
    out = brg.predict(dt, model, X[:4], key=0, site="in.b")
    assert out["predictions"]["f"].shape == (2, 6, 4)


def test_a_site_called_like_an_axis_is_named_before_sampling():
    def clash(X, y=None):
        numpyro.sample("mode", dist.Normal(0, 1))
        brg.rg.coarsen(lambda: numpyro.sample("y", gp(), obs=y), y=brg.rg.Coarse(2))()

    with pytest.raises(ValueError, match="site 'mode' is called like an axis of the result"):
        brg.fit(clash, (X, y), key=0, **SMALL)


def counts(X, y=None):
    """Two observed sites of different shapes, and a factor."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    first = numpyro.sample("first", dist.Normal(0.0, 1.0), obs=2.0)
    numpyro.factor("extra", -rate)
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Poisson(first * rate), obs=y)


COUNTED = np.round(2 + p.y)


@pytest.fixture(scope="module")
def counted():
    return brg.fit(counts, (X, COUNTED), key=0, **SMALL)


def test_other_observed_sites_keep_their_values(counted):
    rate = counted["posterior"]["rate"].to_numpy()[..., None]
    expected = stats.poisson(2.0 * rate).logpmf(COUNTED)
    np.testing.assert_allclose(counted["log_likelihood"]["y"], expected, rtol=1e-10)
    assert set(counted["observed_data"].data_vars) == {"first", "y"}


def test_counts_are_predicted_as_counts(counted):
    x = np.linspace(0, 1, 300)
    out = brg.predict(counted, counts, x, key=0, site="y")["predictions"]
    drawn, mean = out["y"].to_numpy(), 2 * counted["posterior"]["rate"].to_numpy()[..., None]
    assert (drawn == np.round(drawn)).all() and drawn.min() >= 0
    np.testing.assert_allclose(out["f"], np.broadcast_to(mean, (2, 6, 300)))
    assert abs((drawn - mean).mean()) < 5 * np.sqrt(mean.mean() / drawn.size)


def test_what_cannot_be_predicted_or_sampled_says_so():
    def correlated(X, y=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        cov = scale * jnp.eye(X.shape[0])
        numpyro.sample("y", dist.MultivariateNormal(0.0, cov), obs=y,
                       infer={"event_dims": ["point"]})  # fmt: skip

    dt = brg.fit(correlated, (X, y), key=0, **SMALL)
    assert dt["log_likelihood"]["y"].dims == ("chain", "draw")
    with pytest.raises(ValueError, match="no function to predict: its points depend on each other"):
        brg.predict(dt, correlated, X[:3], key=0)

    def blind(X, y=None):
        numpyro.sample("y", gp(numpyro.sample("scale", dist.HalfNormal(1.0))), obs=y)

    with pytest.raises(ValueError, match="site 'y' has 24 points at 27 inputs"):
        brg.predict(dt, blind, X[:3], key=0)

    def fixed(X, y=None):
        numpyro.sample("y", gp(), obs=y)

    with pytest.raises(ValueError, match="no latent site"):
        brg.fit(fixed, (X, y), key=0, **SMALL)


def test_fingerprints_do_not_hold_addresses():
    assert fingerprint({"f": jnp.tanh}) == fingerprint({"f": jnp.tanh})
    assert " at 0x" not in fingerprint({"f": test_axes_are_named_where_they_stand, "n": 3})
    kernel = brg.kernels.RBF(1.0)
    assert fingerprint({"k": kernel}) != fingerprint({"k": brg.kernels.RBF(2.0)})
    assert fingerprint({"k": jax.tree.map(jnp.array, kernel)}) == fingerprint({"k": kernel})
