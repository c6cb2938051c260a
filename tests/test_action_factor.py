# SPDX-License-Identifier: Apache-2.0
"""The action as a prior: a flow of translations, whose posterior and evidence are Gaussian."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro.infer.util import log_density
from oracles import log_normal
from sampling import two_steps

from bayesrg import dynamics
from bayesrg.inference import (
    Sampler,
    action_factor,
    fit,
    grid_posterior,
    path_evidence,
    sbc,
    strength_evidence,
    strength_for_action,
)
from bayesrg.inference.dependence import idle_sites
from bayesrg.inference.path import _NODES, up_to
from bayesrg.inference.sites import bind, layout_of

K, N, NOISE, SHIFT = 4, 25, 0.5, 1.66571
rng = np.random.default_rng(0)
x = rng.standard_normal(N)
noise = rng.standard_normal(N)
X, y = x[:, None], x + SHIFT + NOISE * (noise - noise.mean())
LAMS = np.array([0.5, 2.0, 8.0])
SHORT = {"draws": 250, "warmup": 1, "chains": 2}


def paths(b, X):
    """Paths of layers that add b_k to each point."""
    states = X[:, :1] + jnp.concatenate([jnp.zeros(1), jnp.cumsum(b)])[:, None, None]
    return dynamics.Paths(states, jnp.broadcast_to(b[:, None, None], (b.size, len(X), 1)))


def translation(X, y=None, *, lam=2.0, kind="transport", scale_by_n=False, sd=2.0):
    b = numpyro.sample("b", dist.Normal(0.0, sd).expand([K]).to_event(1))
    action_factor("action", paths(b, X), lam, kind=kind, scale_by_n=scale_by_n)
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(X[:, 0] + b.sum(), NOISE), obs=y)


def gaussian(lam, targets, precision=0.25):
    """Mean, covariance, and log normaliser up to a constant, of b at one strength."""
    P = (2 * lam + precision) * np.eye(K) + targets * N / NOISE**2 * np.ones((K, K))
    h = np.full(K, targets * N / NOISE**2 * SHIFT)
    mean, C = np.linalg.solve(P, h), np.linalg.inv(P)
    return mean, C, 0.5 * h @ mean - 0.5 * np.linalg.slogdet(P)[1]


def log_ratio(lams, targets):
    """Closed log Z(lam)/Z(0) at each strength."""
    return np.array([gaussian(lam, targets)[2] - gaussian(0.0, targets)[2] for lam in lams])


def test_the_density():
    b = {"b": np.arange(1.0, 5.0)}

    @jax.jit
    def ask(lams):
        given = {}, dict(kind="kinetic"), dict(scale_by_n=True), dict(lam=0.0)
        fixed = [log_density(translation, (X, y), hyper, b)[0] for hyper in given]
        traced = jax.vmap(lambda lam: log_density(translation, (X, y), {"lam": lam}, b)[0])
        return jnp.stack(fixed), traced(lams)

    (transport, kinetic, scaled, none), traced = map(np.asarray, ask(np.array([0.0, 2.0])))
    T = 30.0  # 1 + 4 + 9 + 16
    assert_allclose([transport - none, kinetic - none, scaled - none], [-2 * T, -8 * T, -50 * T])
    assert_allclose(traced, [none, transport], rtol=1e-12)


def flat(X, y=None):
    """Two flows without a prior but the action: one kind each, of the same strength per step."""
    everywhere = dist.ImproperUniform(dist.constraints.real_vector, (), (K,))
    for i, (kind, lam) in enumerate((("transport", 2.0), ("kinetic", 2.0 / K))):
        b = numpyro.sample(f"b{i}", everywhere)
        action_factor(f"{kind}_factor", paths(b, X), lam, kind=kind)
        numpyro.deterministic(f"shift{i}", b.sum())
        numpyro.deterministic(f"cost{i}", (b**2).sum())
        numpyro.sample(f"y{i}", dist.Normal(X[:, 0] + b.sum(), NOISE), obs=y)


@pytest.mark.slow
def test_the_posterior_of_translations_by_nuts():
    """Means, deviations and the mean cost are those in closed form, for both actions."""
    mean, C, _ = gaussian(2.0, 1, precision=0.0)
    total, spread, cost = mean.sum(), np.sqrt(C.sum()), mean @ mean + np.trace(C)
    closed = [mean[0], C[0, 0] ** 0.5, total, spread, cost]
    assert_allclose(closed, [0.41231, 0.43373, 1.64922, 0.09950, 1.43246], atol=1e-5)
    assert_allclose(total, SHIFT * (K / 4) / (K / 4 + NOISE**2 / N))

    dt = fit(flat, (X, y), key=0, draws=500, warmup=300, chains=2, progress=False)["posterior"]
    ds = dt.to_dataset()
    found, mcse = {}, {}
    for method in ("mean", "sd"):
        error = az.mcse(ds, method=method)
        for name in ds.data_vars:
            found[name, method] = getattr(ds[name], {"mean": "mean", "sd": "std"}[method])(
                ("chain", "draw")
            ).to_numpy()
            mcse[name, method] = error[name].to_numpy()
    for i in range(2):
        for key, value in {
            (f"b{i}", "mean"): mean,
            (f"b{i}", "sd"): np.sqrt(np.diag(C)),
            (f"shift{i}", "mean"): total,
            (f"shift{i}", "sd"): spread,
            (f"cost{i}", "mean"): cost,
        }.items():
            assert (abs(found[key] - value) < 4 * mcse[key]).all(), key


def exactly(lam, tempered="action"):
    """Sampler of independent draws of b of `translation` with one site raised to a power.

    The factor has the strength lam at power 1. The data add to the precision of the sum of b.
    """

    def make(model):
        def step(state, args):
            _, y, _, power = args
            on_action, on_y = (power, 1.0) if tempered == "action" else (1.0, power)
            total = 0.0 if y is None else on_y * (y - X[:, 0]).sum() / NOISE**2
            precision = 2 * lam * on_action + 0.25
            sharp = precision + (0 if y is None else on_y * K * N / NOISE**2)
            key, now = jax.random.split(state[0])
            white = jax.random.normal(now, (K,))
            along, across = white.mean(), white - white.mean()
            return key, total / sharp + along / jnp.sqrt(sharp) + across / jnp.sqrt(precision)

        return Sampler(
            init=lambda key, warmup, args: (key, jnp.zeros(K)),
            step=step,
            draw=lambda state: state[1],
            sites=lambda draw, args: {"b": draw},
            stats=lambda state: {},
        )

    return make


@pytest.mark.slow
def test_the_path_of_a_factor():
    """Without targets, for a strength in an array."""
    found = path_evidence(
        translation, (X, None), key=1, tempered=["action"], lam=jnp.array(8.0),
        sampler=exactly(8.0), **SHORT,
    )  # fmt: skip
    check_path(found, 8.0, 0)


def check_path(found, lam, targets):
    """Means and normalisers up to every power are those of the prior or of the posterior."""
    laws = [gaussian(lam * power, targets)[:2] for power in found.power]
    closed = [-lam * (mean @ mean + np.trace(C)) for mean, C in laws]
    assert found.power.shape == (15,) and (abs(found.mean - closed) < 4.5 * found.mcse).all()
    closed = log_ratio([lam, *lam * found.power], targets)
    assert abs(found.log_evidence - closed[0]) < 3 * found.standard_error < 0.6
    assert (abs(found.log_z - closed[1:]) < 3.5 * found.log_z_error).all()
    assert found.quadrature_error < 0.1 and found.log_z_quadrature_error.max() < 0.2
    assert_allclose(found.log_z[-1], found.log_evidence, rtol=0.01)


@pytest.mark.slow
def test_the_evidence_of_a_model_with_a_factor():
    """By default the factor stays at power one: it belongs to the prior."""
    found = path_evidence(
        translation, (X, y), key=2, sampler=exactly(2.0, "y"), crowding=5.0, **SHORT
    )
    C = NOISE**2 * np.eye(N) + K / 4.25
    closed = log_normal(y, x, C)
    assert abs(found.log_evidence - closed) < 3 * found.standard_error < 1.0


def test_integrals_up_to_a_power():
    """Without noise: exact for a polynomial, and the error is that of a rough integrand."""
    ends, none = np.array([0.0, 0.1, 0.5, 1.0]), np.zeros(15)
    for crowding in (1.0, 3.0):
        power = (0.5 + 0.5 * _NODES) ** crowding
        found, error, coarse = up_to(ends, 5 * power**2, none, crowding)
        assert_allclose(found, 5 * ends**3 / 3, atol=1e-12)
        assert not error.any() and coarse[0] < 1e-12
    assert coarse.max() > 1e-4  # degree 8 in u, of which every second node integrates 6
    found, error, _ = up_to(ends, none, np.ones(15), 3.0)
    assert not found.any() and error[0] < 1e-12 and (np.diff(error) > 0).all()


def test_the_evidence_of_strengths():
    found = strength_evidence(translation, (X, y), LAMS[::-1], key=3, sampler=exactly(8.0), **SHORT)
    check_evidence(found, LAMS[::-1])
    best = [gaussian(lam, 1)[2] - gaussian(lam, 0)[2] for lam in LAMS]
    assert found.log_evidence.argmin() == 2 - np.argmin(best)


def check_evidence(found, lams):
    prior, posterior = log_ratio(lams, 0), log_ratio(lams, 1)
    errors = found.standard_error
    assert (abs(found.log_z_prior - prior) < 3 * found.prior_error).all()
    assert (abs(found.log_z_posterior - posterior) < 3 * found.posterior_error).all()
    assert (abs(found.log_evidence - posterior + prior) < 3 * errors).all()
    assert_allclose(found.log_evidence, found.log_z_posterior - found.log_z_prior)
    assert_allclose(errors, np.hypot(found.prior_error, found.posterior_error))
    assert errors.max() < 0.3 and found.quadrature_error.max() < 0.5
    check_path(found.prior, lams.max(), 0)
    check_path(found.posterior, lams.max(), 1)


@pytest.mark.slow
def test_the_evidence_of_strengths_by_nuts():
    found = strength_evidence(translation, (X, y), LAMS, key=4, draws=300, warmup=200, chains=2)
    check_evidence(found, LAMS)


def test_the_strength_of_an_action():
    """Under the prior the mean action is K/(2 lam + 1/4)."""
    target = 0.9
    found = strength_for_action(
        translation, (X, None), target, key=5, start=100.0, draws=1000, warmup=1, chains=4,
        sampler=exactly(1.0),
    )  # fmt: skip
    closed = (K / target - 0.25) / 2
    assert found.converged and abs(found.strength / closed - 1) < 0.1
    low, high = found.bracket
    assert low <= found.strength <= high and low < closed * 1.1 and high > closed / 1.1
    assert found.lam[0] == 0 and found.lam[1] == 100 and found.lam[-1] == found.strength
    expected = K / (2 * found.lam + 0.25)
    assert (abs(found.mean - expected) < 4.5 * found.mcse).all()
    assert abs(found.mean[-1] - target) <= 2 * found.mcse[-1]


@pytest.mark.slow
def test_the_strength_zero_and_none():
    given = {"key": 6, "draws": 500, "warmup": 1, "chains": 2, "sampler": exactly(1.0)}
    found = strength_for_action(translation, (X, None), 16.0, **given)
    assert found.converged and found.strength == 0 and found.bracket == (0.0, 0.0)
    with pytest.raises(ValueError, match="target is 20, above the mean action .* at strength 0"):
        strength_for_action(translation, (X, None), 20.0, **given)
    with pytest.warns(UserWarning, match="after 2 runs no mean action is within two errors"):
        found = strength_for_action(translation, (X, None), 0.1, runs=2, **given)
    assert not found.converged and found.strength == 1 and found.bracket == (1.0, np.inf)


def by_distribution(X, y=None):
    translation(X, y, lam=dist.HalfNormal(1.0))


def by_site(X, y=None):
    translation(X, y, lam=numpyro.sample("lam", dist.HalfNormal(1.0)))


def by_function(X, y=None):
    log_lam = numpyro.sample("log_lam", dist.Normal())
    translation(X, y, lam=numpyro.deterministic("lam", jnp.exp(log_lam)))


def by_outer_model(X, y=None, **hyper):
    hyper["lam"] = numpyro.sample("lam", dist.Gamma(2.0, 1.0)) + 1.0
    return translation(X, y, **hyper)


def by_scale(X, y=None):
    with numpyro.handlers.scale(scale=numpyro.sample("lam", dist.Gamma(2.0, 1.0))):
        translation(X, y)


SUM = {"sum": lambda sites, y, key: sites["b"].sum()}
CALLS = {
    "fit": lambda model, **hyper: fit(model, (X, y), key=0, progress=False, **hyper),
    "sbc": lambda model, **hyper: sbc(model, X, SUM, key=0, **hyper),
    "path": lambda model, **hyper: path_evidence(
        model, (X, None), key=0, tempered=["action"], **hyper),
    "grid": lambda model, **hyper: grid_posterior(model, (X, y), {}, **hyper),
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (by_distribution, "it is a HalfNormal"),
        (by_site, "that of the factor 'action' depends on the latent site 'lam'"),
        (by_function, "depends on the latent site 'log_lam'"),
        (by_outer_model, "depends on the latent site 'lam'"),
        (by_scale, "depends on the latent site 'lam'"),
    ],
)
def test_a_prior_of_the_strength_is_refused(model, words):
    for call in CALLS.values():
        with pytest.raises(
            ValueError, match="^lam has a prior but the action factor is unnorm"
        ) as e:
            call(model)
        message = str(e.value)
        assert words in message and "Give a fixed lam" in message
        assert "strength_evidence" in message and "strength_for_action" in message


def test_a_strength_that_no_site_changes_is_allowed():
    """A hyper-argument in an array, observed, or computed beside the sites in one jitted call."""

    @jax.jit
    def together(lam, scale):
        return 2 * lam, jnp.exp(scale)

    def model(X, y=None, *, lam=1.0):
        fixed = numpyro.sample("lam", dist.Normal(), obs=lam)
        log_noise = numpyro.sample("log_noise", dist.Normal())
        lam, _ = together(fixed, log_noise)
        translation(X, y, lam=lam)

    layout = layout_of(bind(model, {"lam": jnp.array(3.0)}), X, y)
    assert {name: float(v) for name, v in layout.strengths().items()} == {"action": 6.0}
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="lam of the factor 'action' must be a finite number"):
            CALLS["fit"](model, lam=jnp.array(wrong))

    def loop(X, y=None):  # any output of a loop that a site enters may depend on the site
        scale = numpyro.sample("scale", dist.Normal())
        both = jax.lax.fori_loop(0, 2, lambda i, v: (v[0] + 1, v[1] * 2), (1.0, scale))
        translation(X, y, lam=both[0])

    with pytest.raises(ValueError, match="depends on the latent site 'scale'"):
        layout_of(bind(loop, {}), X, y)


def test_sites_that_no_factor_depends_on():
    def model(X, y=None):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        b = numpyro.sample("b", dist.Normal(0.0, scale).expand([K]).to_event(1))
        action_factor("action", paths(b, X), 1.0)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        with numpyro.plate("point", len(X)):
            f = numpyro.sample("f", dist.Normal(b.sum(), noise))
            numpyro.sample("y", dist.Bernoulli(logits=f), obs=y)

    assert idle_sites(bind(model, {}), X) == {"noise", "f", "y"}

    def strict(X, y=None):
        translation(X, y.T)

    with pytest.raises(ValueError, match="the model fails with y=None .AttributeError"):
        CALLS["path"](strict)
    with pytest.raises(ValueError, match="y must hold|y must be"):
        path_evidence(translation, (X, None), key=0)


P = paths(np.ones(K), X)
FACTOR = {"name": "action", "paths": P, "lam": 1.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lam": -1.0}, "lam must be a finite number of at least 0, got -1.0"),
        ({"lam": np.nan}, "lam must be a finite number of at least 0, got nan"),
        ({"lam": jnp.inf}, "lam must be a finite number of at least 0, got inf"),
        ({"lam": np.ones(2)}, "lam must be an array of 0 dimension"),
        ({"kind": "kinetics"}, "kind must be one of 'kinetic', 'transport', got 'kinetics'; did"),
        ({"kind": "Transport"}, "got 'Transport'; did you mean 'transport'?"),
        ({"kind": "energy"}, "kind must be one of 'kinetic', 'transport', got 'energy'$"),
        ({"paths": jax.tree.map(lambda v: v[None], P)}, "increments of shape .1, 4, 25, 1.; give"),
    ],
)
def test_bad_factors(change, words):
    with pytest.raises(ValueError, match=words):
        action_factor(**FACTOR | change)


def in_plate(X, y=None):
    b = numpyro.sample("b", dist.Normal())
    with numpyro.plate("point", len(X)):
        action_factor("action", paths(b[None], X), 1.0)


def squared(X, y=None, *, lam):
    translation(X, y, lam=lam**2)


def prior_too(X, y=None, *, lam):
    translation(X, y, lam=lam, sd=1.0 + lam)


def two(X, y=None, *, lam):
    translation(X, y, lam=lam)
    action_factor("second", paths(jnp.ones(2), X), 3 * lam)


def evidence(*lams, model=translation, **given):
    return lambda: strength_evidence(model, (X, y), lams, key=0, **given)


def search(target=1.0, model=translation, **given):
    return lambda: strength_for_action(model, (X, y), target, key=0, **given)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: CALLS["fit"](in_plate), "'action' stands in plate 'point', .* count it 25 times"),
        (lambda: CALLS["sbc"](translation), "prior without the action factor 'action', .* truth="),
        (
            lambda: CALLS["path"](in_plate, y=1),
            "the model takes 'y'|no hyper-argument 'y'|multiple",
        ),
        (evidence(), "lams must have an entry above 0"),
        (evidence(0.0), "lams must have an entry above 0"),
        (evidence(-1.0, 2.0), "lams must be non-negative, got -1.0"),
        (
            lambda: jax.jit(lambda lam: evidence(lam)())(1.0),
            "strength_evidence runs on the host and cannot be traced",
        ),
        (evidence(1.0, strength="lamb"), "no hyper-argument 'lamb'; did you mean 'lam'?"),
        (evidence(1.0, lam=2.0), "strength_evidence sets the hyper-argument 'lam' itself"),
        (evidence(1.0, strength="sd"), "no action_factor of the model has a strength that depends"),
        (
            evidence(3.0, model=squared),
            "is 9 at lam=3 and 2.25 at half of it; make it proportional",
        ),
        (
            evidence(1.0, model=prior_too),
            "the model depends on 'lam' also beside its action factors",
        ),
        (search(0.0), "target must be a number above 0.0, got 0.0"),
        (search(1.0, start=0.0), "start must be a number above 0.0"),
        (search(1.0, runs=1), "runs must be an integer of at least 2"),
        (search(1.0, model=two), "the strengths of 'action', 'second' depend on 'lam'"),
    ],
)
def test_bad_questions(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("tempered", "words"),
    [
        (
            ["acton"],
            "tempered must name observed sites or factors .* 'acton'; did you mean 'action'",
        ),
        (["b"], "got 'b'; it has 'action', 'y'"),
        ("action", "tempered must be a list of names of observed sites or factors"),
        ([], "no site is raised to powers: tempered is empty, or"),
    ],
)
def test_bad_names(tempered, words):
    with pytest.raises(ValueError, match=words):
        path_evidence(translation, (X, y), key=0, tempered=tempered)


def gibbs(X, y=None, *, lam, sd):
    """Draw from the prior with the factor, which is normal."""
    b = numpyro.sample("b", dist.Normal(0.0, (2 * lam + sd**-2) ** -0.5).expand([K]).to_event(1))
    numpyro.sample("y", dist.Normal(X[:, 0] + b.sum(), NOISE), obs=y)


def wrong_sign(X, y=None, *, lam, sd):
    b = numpyro.sample("b", dist.Normal(0.0, sd).expand([K]).to_event(1))
    numpyro.factor("action", lam * (b**2).sum())
    numpyro.sample("y", dist.Normal(X[:, 0] + b.sum(), NOISE), obs=y)


@pytest.mark.slow
def test_calibration_finds_wrong_factors():
    """A factor of the wrong sign, and one multiplied by the number of points, fail."""
    hyper = {"lam": 1.0, "sd": 0.5}
    run = {"key": 7, "simulations": 60, "draws": 19, "warmup": 80, "thin": 25, "truth": gibbs}
    run["sampler"] = two_steps
    quantities = SUM | {"cost": lambda sites, y, key: (sites["b"] ** 2).sum()}
    p_values = {}
    for name, model, more in (
        ("right", translation, {}),
        ("sign", wrong_sign, {}),
        ("scale", translation, {"scale_by_n": True}),
    ):
        found = sbc(model, X[:6], quantities, truth_hyper=hyper, **run, **hyper, **more)["sbc"]
        p_values[name] = dict(zip(quantities, found["p_value"].to_numpy(), strict=True))
        assert abs(found["autocorrelation"]).max() < 0.2
    assert min(p_values["right"].values()) > 1e-3, p_values
    assert p_values["sign"]["cost"] < 1e-6 and p_values["scale"]["cost"] < 1e-6, p_values
