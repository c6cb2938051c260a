# SPDX-License-Identifier: Apache-2.0
"""Shapes that would be broadcast, and names that would be lost, are refused before sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from oracles import fourier_problem

import bayesrg as brg
from bayesrg.gp.effective import EffectiveNormal
from bayesrg.inference.sites import bind, layout_of
from bayesrg.models import gp_classification

k = brg.kernels
X = np.random.default_rng(0).normal(size=(12, 2))
Y = np.stack([np.sin(X[:, 0]), X[:, 1]], 1)
y = Y[:, 0]
QUICK = {"key": 0, "draws": 5, "warmup": 5, "chains": 1, "progress": False}


def line(X, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand((2,)).to_event(1))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(X @ slope, 1.0), obs=y)


def column_mean(X, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand((2, 1)).to_event(2))
    numpyro.sample("y", dist.Normal(X @ slope, 1.0), obs=y)


def one_number(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y[0])


def in_a_plate(over):
    def model(X, y=None):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate(over, len(X)):
            numpyro.sample("y", brg.gp.marginal(k.RBF(scale), X, 0.1), obs=y)

    return model


def a_lengthscale_per_output(X, Y=None):
    with numpyro.plate("output", 2):
        length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        fn = brg.gp.marginal(k.RBF(2.0 * length), X, 0.1, scale=scale)
        numpyro.sample("y", fn, obs=None if Y is None else Y.T)


def a_latent_per_output(X, Y=None):
    with numpyro.plate("output", 2):
        length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
        prior = brg.gp.marginal(k.RBF(length), X, 1e-3)
        likelihood = brg.gp.LaplaceMarginal(prior, lambda f: dist.Poisson(jnp.exp(f)))
        numpyro.sample("y", likelihood, obs=Y.T)


def a_lengthscale_per_column(X, Y=None):
    with numpyro.plate("column", 2):
        length = numpyro.sample("length", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("output", 2):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        fn = brg.gp.marginal(k.RBF(length), X, 0.1 * scale[:, None], scale=scale)
        numpyro.sample("y", fn, obs=Y.T)


def kept(value, **options):
    def model(X, y=None):
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("point", len(X)):
            numpyro.deterministic("kept", value(X, mean), **options)
            numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    return model


def needs_targets(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y.T)


def named(*names, plate=None):
    def model(X, y=None):
        for name in names:
            numpyro.sample(name, dist.Normal(0.0, 1.0))
        if plate:
            with numpyro.plate(plate, 2):
                numpyro.sample("w", dist.Normal(0.0, 1.0))
        numpyro.deterministic("curve", X[:, 0])
        with numpyro.plate("point", len(X)):
            numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)

    return model


@pytest.mark.parametrize(
    "model, targets, message",
    [
        (line, y[:, None], r"\(12, 1\) but its distribution has shape \(12,\).*y\[:, 0\]"),
        (column_mean, y, r"\(12,\) but its distribution has shape \(12, 1\)"),
        (one_number, y, r"shape \(\) but its distribution has shape \(12,\)"),
        (line, Y, r"shape \(12, 2\) but its distribution has shape \(12,\)"),
        (in_a_plate("row"), y, r"\(12, 12\).*take the site out of plate 'row'"),
        (in_a_plate("point"), y, r"axes \('point', 'point'\).*no plate over the points"),
        (a_lengthscale_per_output, Y, "plate 'output', over which 'length' varies"),
        (a_latent_per_output, Y, "plate 'output', over which 'length' varies"),
        (kept(lambda X, mean: mean), y, r"'kept' has shape \(\).*'point' of size 12"),
        (kept(lambda X, mean: X.T), None, None),
        (kept(lambda X, mean: X[:5]), y, r"shape \(5, 2\).*'point' of size 12"),
        (needs_targets, y, "fails with y=None.*no attribute 'T'.*obs=None if y is None"),
        (named("a.b", "a/b"), y, "'a/b' is stored as 'a.b', like site 'a.b'"),
        (named("X"), y, "'X' is stored as 'X', like the inputs"),
        (named(plate="chain"), y, r"'w' has the axes \('chain',\): 'chain' is taken"),
        (named("curve_axis"), y, "'curve_axis' is called like an axis"),
        (named("in.w", plate="in/w"), y, "'in.w' is called like an axis"),
    ],
)
def test_what_would_be_broadcast_or_lost_is_refused(model, targets, message):
    """The table of shapes and names; nothing is compiled for it."""
    if message is None:
        layout_of(bind(model, {}), X, y)
        return
    with pytest.raises(ValueError, match=message):
        brg.fit(model, (X, targets), **QUICK)


def test_shapes_that_count_every_number_once_pass():
    def deep(X, y=None):
        law = dist.Normal(0.0, 1.0).expand((2, 3, 4)).to_event(3)
        numpyro.sample("deep", law, infer={"event_dims": ["a", "b"]})

    def dims(model, targets):
        return layout_of(bind(model, {}), X, targets).dims

    assert dims(line, y) == {"slope": ("slope_axis",), "y": ("point",)}
    assert dims(deep, y) == {"deep": ("output", "a", "b")}
    assert dims(column_mean, y[:, None])["y"] == ("y_axis", "y_axis_bis")
    assert dims(a_lengthscale_per_column, Y)["y"] == ("output", "point")
    assert dims(kept(lambda X, mean: X), y)["kept"] == ("point", "kept_axis")
    assert dims(kept(lambda X, mean: X.T), y)["kept"] == ("kept_axis", "point")


def test_every_sampler_refuses_them():
    """One mechanism: quadrature, tempering, calibration, prediction."""
    grid = {"slope": np.ones(3)}
    inference, tall = brg.inference, (X, y[:, None])
    sampler = {"key": 0, "draws": 5, "warmup": 5}
    for wrong in (
        lambda: inference.grid_posterior(line, tall, grid),
        lambda: inference.path_evidence(line, tall, chains=1, **sampler),
        lambda: inference.sbc(line, X, {"a": lambda s, y, key: s["slope"][0]}, simulations=2,
                              observed=lambda sites: sites["y"][:, None], **sampler),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="NumPyro would broadcast them"):
            wrong()
    with pytest.raises(ValueError, match=r"grid has the sites \['slop'\]"):
        inference.grid_posterior(line, (X, y), {"slop": np.ones(3)})


p = fourier_problem()
PARTS = p.Phi[:8, :5], p.values[:5], 0.1
LAWS = {
    "MercerNormal": lambda: brg.gp.MercerNormal(*PARTS),
    "MatrixMercerNormal": lambda: brg.gp.MatrixMercerNormal(*PARTS, np.eye(2)),
    "EffectiveNormal": lambda: EffectiveNormal(np.zeros(1), np.ones(8), np.ones(1), np.ones(8)),
    "LaplaceMarginal": lambda: brg.gp.LaplaceMarginal(
        brg.gp.MercerNormal(*PARTS), lambda f: dist.Poisson(jnp.exp(f))
    ),
}


METHODS = {  # of each law, by default; each method at two laws
    "MercerNormal": ("log_prob", "shift"),
    "MatrixMercerNormal": ("loo", "krige"),
    "EffectiveNormal": ("loo", "shift"),
    "LaplaceMarginal": ("log_prob", "krige"),
}


@pytest.mark.parametrize(
    "name, method",
    [
        pytest.param(name, method, marks=() if method in METHODS[name] else pytest.mark.slow)
        for name in LAWS
        for method in ("log_prob", "loo", "krige", "shift")
    ],
)
def test_methods_of_a_law_spread_no_value(name, method):
    fn = LAWS[name]()
    wrong = [(), (9,)]  # krige takes rows of observations at the first points
    wrong += [(8, 1), (7, 3), (8, 2, 1)] if method != "krige" or "Matrix" in name else []
    for shape in wrong:
        with pytest.raises(ValueError, match=r"(observations|means) have shape \(.*for 8 points"):
            getattr(fn, method)(np.ones(shape))
    for value in (np.ones(fn.event_shape), np.ones((3, *fn.event_shape))):
        assert jax.eval_shape(lambda v: getattr(fn, method)(v), value) is not None


@pytest.mark.parametrize(
    "model",
    [gp_classification.model, pytest.param(gp_classification.laplace, marks=pytest.mark.slow)],
)
def test_labels_of_either_kind(model):
    """Labels -1 and 1 are those 0 and 1; another number is refused, not extrapolated."""
    data = gp_classification.demo(jax.random.key(0))
    for labels, first in ((data.y + 1.0, "2"), (0.5 * data.y, "0.5")):
        with pytest.raises(ValueError, match=f"cannot have the observed value {first}"):
            brg.fit(model, (data.X, labels), **QUICK)
    values = {"amplitude": 1.0, "f_modes": np.ones(5), "f_white": np.linspace(-1, 1, 60)}
    values = {"y_modes": np.ones(5)} | values
    density = jax.jit(lambda y: log_density(model, (data.X, y), {}, values)[0])
    found = [float(density(labels)) for labels in (data.y, 2.0 * data.y - 1.0)]
    assert found[0] == found[1] and np.isfinite(found[0])


def test_counts_below_zero_are_refused():
    def counts(X, y=None):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        with numpyro.plate("point", len(X)):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    with pytest.raises(ValueError, match="'y' is a Poisson and cannot have the observed value -1"):
        brg.fit(counts, (X, np.where(np.arange(12) == 3, -1.0, 1.0)), **QUICK)
