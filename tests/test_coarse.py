# SPDX-License-Identifier: Apache-2.0
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density
from oracles import conditional, fourier_modes, fourier_problem, log_normal
from scipy.stats import norm

from bayesrg import rg
from bayesrg._covariance import LowRank
from bayesrg.gp import MercerNormal, eigenpairs

p = fourier_problem()
C = p.Phi * p.values @ p.Phi.T + p.ridge * np.eye(24)


def model(y=None, ridge=p.ridge, scale=1.0, residual=None):
    fn = MercerNormal(p.Phi, p.values, ridge, scale=scale, residual=residual)
    return numpyro.sample("y", fn, obs=y)


def multi(Y=None):
    with numpyro.plate("output", 3):
        numpyro.sample("y", MercerNormal(p.Phi, p.values, p.ridge), obs=Y)


def traced(model, *args, **kwargs):
    """Sites of a model with names and shapes; no value is computed."""
    sites = {}

    def run():
        sites.update(handlers.trace(handlers.seed(model, 0)).get_trace(*args, **kwargs))

    jax.eval_shape(run)
    return sites


@cache
def density(rule, cutoff=5):
    """Compiled log density of observations and given modes, after one cut."""
    coarse = rg.coarsen(model, y=rg.Coarse(cutoff, rule))
    return jax.jit(lambda y, w: log_density(coarse, (y,), {}, {"y_modes": w})[0])


EVERYWHERE = fourier_modes(np.concatenate([p.x, p.x_new]), 61)


@partial(jax.jit, static_argnums=2)
def exact(Phi, y, cutoff):
    """Low modes given the first 24 points; mean and variance at the other points."""
    low = rg.integrate_modes(*MercerNormal(Phi[:24], p.values, p.ridge).split(cutoff), y)
    root, rest = MercerNormal(Phi, p.values, p.ridge).split(cutoff)
    mean, variance, _ = rest.shift(root @ low.mean).krige(y)
    # total variance: given the modes, plus that of the modes through everything they move
    moved = jax.vmap(lambda w: rest.shift(root @ w).krige(y)[0])(jnp.eye(cutoff))
    gain = (moved - rest.krige(y)[0]).T if cutoff else jnp.zeros((3, 0))
    return low, mean, variance + jnp.einsum("ij,jk,ik->i", gain, low.cov, gain)


SLOW = [pytest.param(cutoff, marks=pytest.mark.slow) for cutoff in (24, 40)]


@pytest.mark.parametrize("cutoff", [0, 5, 61, *SLOW])
def test_exact_rule_moves_nothing(cutoff):
    """Evidence, low-mode posterior and predictive, against the full model inverted whole."""
    low, mean, total = exact(EVERYWHERE, p.y, cutoff)
    np.testing.assert_allclose(low.log_evidence, -14.377037219646, rtol=0, atol=1e-10)
    expected = [0.219758763471, 1.087198646960, 0.728297121778]
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        total, [0.049154991576, 0.060921300578, 0.076819395486], rtol=0, atol=1e-10
    )
    B = p.Phi * np.sqrt(p.values)
    joint = np.block([[C, B], [B.T, np.eye(61)]])
    mean, cov = conditional(joint, np.arange(24), np.arange(24, 24 + cutoff), p.y)
    np.testing.assert_allclose(low.mean, mean, rtol=0, atol=1e-10)
    np.testing.assert_allclose(low.cov, cov, rtol=0, atol=1e-10)


def test_reference_posterior_and_learnability():
    low = exact(EVERYWHERE, p.y, 5)[0]
    np.testing.assert_allclose(
        np.sqrt(np.diagonal(low.cov)),
        [0.05573453, 0.11452968, 0.16092741, 0.22206899, 0.26689107], rtol=0, atol=6e-9,
    )  # fmt: skip
    np.testing.assert_allclose(
        low.mean, [-0.00522357, -0.00812641, 2.05139757, -0.05143389, 0.03464193], rtol=0, atol=6e-9
    )
    learnt = 1 - np.diagonal(low.cov)[:4]
    np.testing.assert_allclose(
        learnt, [0.99689366242, 0.98688295275, 0.974102369538, 0.950685363906], rtol=0, atol=6e-12
    )
    whole = exact(EVERYWHERE, p.y, 61)[0]
    conserved = (1 - np.diagonal(whole.cov)).sum() + p.ridge * np.trace(np.linalg.inv(C))
    np.testing.assert_allclose(conserved, 24, rtol=1e-13)


def test_reference_log_joint():
    """Dense and low-rank algebra of the eliminated modes, at given low modes."""
    w = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(density("exact")(p.y, w), -269.257306014430, rtol=1e-13)

    @jax.jit
    def low_rank(r):
        _, rest = MercerNormal(p.Phi, p.values, p.ridge).split(5)
        return LowRank(rest.features, jnp.sqrt(rest.values), rest.ridge).quad_logdet(r)

    quad, log_det = low_rank((p.y - p.Phi[:, :5] * np.sqrt(p.values[:5]) @ w)[None])
    found = -0.5 * (quad[0] + log_det + 24 * np.log(2 * np.pi)) + norm.logpdf(w).sum()
    np.testing.assert_allclose(found, -269.257306014430, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, marks=() if rule in ("exact", "local") else pytest.mark.slow)
        for rule in rg.coarse.RULES
    ],
)
def test_it_is_a_numpyro_reparameterisation(rule):
    config = {"y": rg.Coarse(5, rule)}
    trace = traced(handlers.reparam(model, config=config), p.y)
    assert trace["y_modes"]["value"].shape == (5,)
    assert trace["y_modes"]["infer"] == {"event_dims": ["mode"]}
    assert trace["y"]["is_observed"]
    w = np.linspace(-1, 1, 5)

    @jax.jit
    def plain(w):
        given = handlers.condition(handlers.reparam(model, config=config), {"y_modes": w})
        rest = MercerNormal(p.Phi, p.values, p.ridge).split(5, rule)[1]
        noise = rest.covariance_matrix if rule == "exact" else rest.variance
        return log_density(given, (p.y,), {}, {})[0], noise

    found, noise = map(np.asarray, plain(w))
    mean = p.Phi[:, :5] * np.sqrt(p.values[:5]) @ w
    expected = log_normal(p.y, mean, noise if rule == "exact" else np.diag(noise))
    expected += norm.logpdf(w).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(density(rule)(p.y, w), expected, rtol=1e-10)


@pytest.mark.parametrize("cutoff", [0, 61])
def test_cutting_nothing_and_everything(cutoff):
    coarse = rg.coarsen(model, y=rg.Coarse(cutoff))

    @jax.jit
    def cut(y):
        trace = handlers.trace(handlers.seed(coarse, 0)).get_trace(y)
        assert ("y_modes" in trace) == (cutoff > 0)
        fn = trace["y"]["fn"]
        return fn.log_prob(y) if cutoff == 0 else fn.variance

    if cutoff == 0:
        np.testing.assert_allclose(cut(p.y), -14.377037219646, rtol=0, atol=1e-12)
    else:
        np.testing.assert_allclose(cut(p.y), p.ridge)


@pytest.mark.slow
def test_prior_predictive_keeps_its_law():
    coarse = rg.coarsen(model, y=rg.Coarse(5))
    draws = Predictive(coarse, num_samples=40_000)(jax.random.key(0))
    assert draws["y_modes"].shape == (40_000, 5)
    error = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / 40_000)
    assert (np.abs(np.cov(draws["y"].T) - C) < 5 * error).all()


def wrapped(kind):
    fn = MercerNormal(p.Phi, p.values, p.ridge)
    own = MercerNormal(p.Phi, p.values, p.ridge, scale=jnp.ones(3))

    def model(Y=None):
        if kind == "plate":
            with numpyro.plate("output", 3):
                numpyro.sample("y", fn, obs=Y)
        if kind == "expand":
            numpyro.sample("y", fn.expand((3,)), obs=Y)
        if kind == "to_event":
            numpyro.sample("y", fn.expand((3,)).to_event(1), obs=Y)
        if kind == "batched parameters":
            numpyro.sample("y", own, obs=Y)
        if kind == "plate of batched":
            with numpyro.plate("output", 3):
                numpyro.sample("y", own, obs=Y)

    return model


@pytest.mark.parametrize(
    "kind",
    ["plate", "batched parameters"]
    + [
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in ("expand", "to_event", "plate of batched")
    ],
)
def test_each_target_has_its_own_modes(kind):
    Y = np.stack([p.y, -p.y, 2 * p.y])

    @partial(jax.jit, static_argnums=1)
    def modes_and_density(key, rule):
        coarse = rg.coarsen(wrapped(kind), y=rg.Coarse(4, rule))
        trace = handlers.trace(handlers.seed(coarse, key)).get_trace(Y)
        assert trace["y"]["fn"].shape() == (3, 24)
        w = trace["y_modes"]["value"]
        return w, log_density(coarse, (Y,), {}, {"y_modes": w})[0]

    for rule in ("exact", "universal") if kind == "plate" else ("exact",):
        w, joint = modes_and_density(jax.random.key(0), rule)
        w = np.asarray(w)
        assert w.shape == (3, 4) and len(np.unique(w)) == 12
        alone = [density(rule, 4)(y, wi) for y, wi in zip(Y, w, strict=True)]
        np.testing.assert_allclose(joint, sum(alone), rtol=1e-11)
        free = traced(rg.coarsen(wrapped(kind), y=rg.Coarse(4, rule)))["y"]["value"]
        assert free.shape == (3, 24)


def test_two_sites():
    def two(y=None):
        numpyro.sample("a", MercerNormal(p.Phi, p.values, 0.1), obs=y)
        numpyro.sample("b", MercerNormal(p.Phi[:, :9], p.values[:9], 0.2), obs=y)

    coarse = rg.coarsen(two, a=rg.Coarse(3), b=rg.Coarse(2, "local"))
    trace = traced(coarse, p.y)
    assert list(trace) == ["a_modes", "a", "b_modes", "b"]
    assert trace["b_modes"]["value"].shape == (2,)


def test_eigenpairs_of_the_eliminated_part():
    residual = 0.01 * np.eye(24) + 0.001
    eigen = eigenpairs(p.Phi[:, 5:], p.values[5:], residual)
    w = np.linspace(-1, 1, 5)
    given = {"residual": residual, "scale": 0.7, "ridge": 0.2}

    def joint(eigen):
        coarse = rg.coarsen(model, y=rg.Coarse(5, eigen=eigen))
        return jax.jit(lambda w: log_density(coarse, (p.y,), given, {"y_modes": w})[0])(w)

    np.testing.assert_allclose(joint(None), joint(eigen), rtol=1e-12)

    # a prediction has more points, for which only the conditional density would need eigenpairs
    few = eigenpairs(p.Phi[:8, 5:], p.values[5:], residual[:8, :8])
    law = MercerNormal(p.Phi, p.values, p.ridge, residual=residual)
    root, rest = law.split(5, eigen=few)
    site = rest._given(root, jnp.asarray(w))
    with pytest.raises(ValueError, match="eigen has 8 rows but there are"):
        site.log_prob(p.y)


def hyper(y=None):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(-1.5, 0.5))
    numpyro.sample("y", MercerNormal(p.Phi, p.values, noise**2, scale=scale), obs=y)


def test_svi_with_an_autoguide():
    coarse = rg.coarsen(hyper, y=rg.Coarse(3, "universal"))
    svi = SVI(coarse, AutoNormal(coarse), numpyro.optim.Adam(0.1), Trace_ELBO())

    @jax.jit
    def fit(key):
        result = svi.run(key, 200, p.y, progress_bar=False)
        return result.losses, svi.guide.median(result.params)["y_modes"]

    losses, modes = map(np.asarray, fit(jax.random.key(0)))
    assert np.isfinite(losses).all() and losses[-50:].mean() < losses[0]
    assert modes.shape == (3,) and 1.0 < modes[2] < 3.0  # sin 2 pi x is in the target


def masked_rows(y=None):
    numpyro.sample("y", MercerNormal(p.Phi, p.values, p.ridge).mask(np.array(True)), obs=y)


def masked_by_a_handler(y=None):
    with handlers.mask(mask=np.array(True)):
        model(y)


def test_what_cannot_be_split_raises_under_plain_reparam_too():
    cases = [
        (masked_rows, "site 'y' is masked"),
        (masked_by_a_handler, "site 'y' is masked"),
        (lambda y=None: numpyro.sample("y", dist.Normal(0, 1), obs=0.0), "has no modes to keep"),
    ]
    for broken, message in cases:
        for wrap in (
            lambda m: rg.coarsen(m, y=rg.Coarse(2)),
            lambda m: handlers.reparam(m, config={"y": rg.Coarse(2)}),
        ):
            with pytest.raises(ValueError, match=message):
                traced(wrap(broken), p.y)


def test_what_plain_reparam_passes_over_raises_under_coarsen():
    def observed_in_part(y=None):
        fn = MercerNormal(p.Phi, p.values, p.ridge).expand((2,))
        with numpyro.plate("output", 2):
            numpyro.sample("y", fn, obs=jnp.stack([p.y] * 2), obs_mask=np.array([True, False]))

    with pytest.raises(ValueError, match="site 'y' has an obs_mask"):
        traced(rg.coarsen(observed_in_part, y=rg.Coarse(2)))
    with pytest.raises(ValueError, match="no site 'z' to coarse-grain, only 'y'"):
        traced(rg.coarsen(model, z=rg.Coarse(2)), p.y)
    with pytest.raises(ValueError, match=r"no site 'y' to coarse-grain, only 'in/y'"):
        traced(rg.coarsen(handlers.scope(model, prefix="in"), y=rg.Coarse(2)), p.y)
    twice = rg.coarsen(rg.coarsen(model, y=rg.Coarse(2)), y=rg.Coarse(1))
    with pytest.raises(ValueError, match="site 'y' is cut twice"):
        traced(twice, p.y)
    with pytest.raises(ValueError, match="must be given an rg.Coarse, got a LocScaleReparam"):
        rg.coarsen(model, y=LocScaleReparam())
    outside = handlers.scope(rg.coarsen(model, y=rg.Coarse(2)), prefix="in")
    assert list(traced(outside, p.y)) == ["in/y_modes", "in/y"]


def test_a_failed_call_leaves_the_model_usable():
    coarse = rg.coarsen(model, y=rg.Coarse(5))
    with pytest.raises(ValueError, match="ridge must be non-negative"):
        traced(coarse, p.y, ridge=-1.0)
    assert "y_modes" in traced(coarse, p.y)
    assert not numpyro.primitives._PYRO_STACK


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rg.Coarse(5, "exakt"), "rule must be one of 'exact'"),
        (lambda: rg.Coarse(5, "local", eigen=(1, 2)), 'eigen belongs to rule="exact"'),
        (lambda: traced(rg.coarsen(model, y=rg.Coarse(62)), p.y), "between 0 and 61, got 62"),
        (
            lambda: traced(rg.coarsen(model, y=rg.Coarse(-1)), p.y),
            "at least 0, got -1",
        ),
        (
            lambda: traced(
                rg.coarsen(model, y=rg.Coarse(5, max_dense=10)), p.y, residual=np.eye(24)
            ),
            'about 0 s each on two cores.*rule="local"',
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
