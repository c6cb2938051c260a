# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from oracles import fourier_problem
from scipy.stats import norm

import bayesrg as brg
from bayesrg import rg
from bayesrg.gp import LaplaceMarginal, MercerNormal, eigenpairs
from bayesrg.models import gp_classification

SLOW = pytest.mark.slow
p = fourier_problem()
JITTER = 1e-6
RESIDUAL = np.linspace(0.01, 0.2, 24)


def prior(k=61, residual=None, **kwargs):
    return MercerNormal(p.Phi[:, :k], p.values[:k], JITTER, residual=residual, scale=1.3, **kwargs)


def latent(y=None, fn=None):
    f = numpyro.sample("f", prior() if fn is None else fn)
    numpyro.sample("y", dist.Bernoulli(logits=f).to_event(1), obs=y)
    return f


def whitened(cutoff=5, rule="exact", **kwargs):
    return rg.coarsen(latent, f=rg.Coarse(cutoff, rule, centered=False, **kwargs))


def traced(model, *args, **kwargs):
    return handlers.trace(handlers.seed(model, 0)).get_trace(*args, **kwargs)


def shapes(model, *args, **kwargs):
    """The trace with shapes for values: nothing is compiled."""
    trace = {}
    jax.eval_shape(lambda: trace.update(traced(model, *args, **kwargs)))
    return trace


CASES = [  # name, modes, residual, modes that are explicit
    ("dense", 61, None, (0, 5)),
    ("low", 9, None, (0, 5, 9)),
    ("diagonal", 9, RESIDUAL, (5, 9)),
    ("full", 9, np.diag(RESIDUAL) + 0.01, (5, 9)),
]


# the algebra of another case, other sizes
RARE = {("dense", 0), ("low", 0), ("diagonal", 9), ("full", 5), ("full", 9)}


@pytest.mark.parametrize(
    "k, residual, cutoff",
    [
        pytest.param(
            k,
            residual,
            cutoff,
            id=f"{name}-{cutoff}",
            marks=[SLOW] if (name, cutoff) in RARE else [],
        )
        for name, k, residual, cutoffs in CASES
        for cutoff in cutoffs
    ],
)
def test_the_law_of_the_function_is_that_of_the_prior(k, residual, cutoff):
    """The map from white numbers to f is affine; its matrix times its transpose is the prior's."""
    B = p.Phi[:, :k] * np.sqrt(1.3 * p.values[:k])
    rest = np.zeros(24) if residual is None else np.asarray(residual)
    C = B @ B.T + JITTER * np.eye(24) + 1.3 * (np.diag(rest) if rest.ndim == 1 else rest)

    @jax.jit
    def both(w, z):
        """The function and its matrix, by either algebra."""

        def f(v, eigen):
            given = {"f_modes": v[:cutoff], "f_white": v[cutoff:]}
            model = handlers.substitute(whitened(cutoff, eigen=eigen), given)
            return handlers.seed(model, 0)(fn=prior(k, residual, loc=0.2))

        eigen = eigenpairs(p.Phi[:, cutoff:k], p.values[cutoff:k], residual)
        v = jnp.concatenate([w, z])
        return [(f(v, e), jax.jacfwd(f)(v, e)) for e in (None, eigen)]

    w, z = np.linspace(-1, 1, cutoff), np.linspace(-2, 1, 24)
    middle, moved = both(0 * w, 0 * z), both(w, z)
    for (mean, A), (f, _) in zip(middle, moved, strict=True):
        A = np.asarray(A)
        np.testing.assert_allclose(mean, np.full(24, 0.2), rtol=0, atol=1e-15)
        np.testing.assert_allclose(A @ A.T, C, rtol=0, atol=1e-13)
        np.testing.assert_allclose(f, 0.2 + A @ np.r_[w, z], rtol=0, atol=1e-12)


def test_sites_axes_and_density():
    y = np.asarray(p.y > 0, float)
    trace = shapes(whitened(), y)
    assert [(s["name"], s["type"]) for s in trace.values()] == [
        ("f_modes", "sample"), ("f_white", "sample"), ("f", "deterministic"), ("y", "sample")
    ]  # fmt: skip
    assert trace["f_white"]["value"].shape == (24,) and trace["y"]["is_observed"]
    assert trace["f_white"]["infer"] == {"event_dims": ["white"]}
    assert trace["f"]["infer"] == {"event_dims": ["point"]}
    rng = np.random.default_rng(0)
    values = {"f_modes": rng.standard_normal(5), "f_white": rng.standard_normal(24)}

    @jax.jit
    def densities(values):
        given = handlers.substitute(whitened(), values)
        plain = handlers.reparam(latent, config={"f": rg.Coarse(5, centered=False)})
        return (
            traced(given, y)["f"]["value"],
            log_density(whitened(), (y,), {}, values)[0],
            log_density(handlers.condition(plain, values), (y,), {}, {})[0],
        )

    f, *found = jax.device_get(densities(values))
    expected = sum(norm.logpdf(v).sum() for v in values.values())
    expected -= np.logaddexp(0, np.where(p.y > 0, -f, f)).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert "f_modes" not in shapes(whitened(0)) and "f_white" in shapes(whitened(0))
    assert "f_white" not in shapes(rg.coarsen(latent, f=rg.Coarse(5)))


@pytest.mark.parametrize(
    "rule", ["dressed", *(pytest.param(r, marks=SLOW) for r in ("local", "universal", "truncate"))]
)
def test_other_rules_leave_independent_points(rule):

    @jax.jit
    def found():
        trace, (root, rest) = traced(whitened(5, rule)), prior().split(5, rule)
        return (
            [trace[name]["value"] for name in ("f_modes", "f_white", "f")],
            root,
            rest.noise_variance,
        )

    (w, z, f), root, noise = jax.device_get(found())
    np.testing.assert_allclose(f, root @ w + np.sqrt(noise) * z, rtol=1e-12)


@pytest.mark.slow
def test_centred_and_white_draws_have_one_law():
    C = np.asarray(prior().covariance_matrix)
    error = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / 20_000)
    for centered in (True, False):
        coarse = rg.coarsen(latent, f=rg.Coarse(5, centered=centered))
        draws = Predictive(coarse, num_samples=20_000)(jax.random.key(0), fn=prior())
        assert (np.abs(np.cov(draws["f"].T) - C) < 5 * error).all()
        assert (np.abs(draws["f"].mean(0)) < 5 * np.sqrt(np.diag(C) / 20_000)).all()


@pytest.mark.parametrize(
    "kind", ["plate", "to_event", *(pytest.param(k, marks=SLOW) for k in ("batched", "expand"))]
)
def test_each_function_has_its_own_white_numbers(kind):
    def model():
        if kind == "plate":
            with numpyro.plate("group", 3):
                numpyro.sample("f", prior())
        if kind == "expand":
            numpyro.sample("f", prior().expand((3,)))
        if kind == "to_event":
            numpyro.sample("f", prior().expand((3,)).to_event(1))
        if kind == "batched":
            scale = jnp.array([1.0, 2.0, 3.0])
            numpyro.sample("f", MercerNormal(p.Phi[:, :9], p.values[:9], JITTER, scale=scale))

    @jax.jit
    def found():
        trace = traced(rg.coarsen(model, f=rg.Coarse(4, centered=False)))
        w, z, f = (trace[name]["value"] for name in ("f_modes", "f_white", "f"))

        def one(scale, w, z):
            fn = prior()
            if kind == "batched":
                fn = MercerNormal(p.Phi[:, :9], p.values[:9], JITTER, scale=scale)
            root, rest = fn.split(4)
            return rest.shift(root @ w).colour(z)

        return w, z, f, jax.vmap(one)(jnp.array([1.0, 2.0, 3.0]), w, z)

    w, z, f, expected = jax.device_get(found())
    assert w.shape == (3, 4) and z.shape == (3, 24)
    assert len(np.unique(w)) == 12 and len(np.unique(z)) == 72
    np.testing.assert_allclose(f, expected, rtol=1e-11)
    axes = brg.inference.sites.layout_of(
        brg.inference.sites.bind(lambda X, y=None: rg.coarsen(
            model, f=rg.Coarse(4, centered=False))(), {}), None, None).dims  # fmt: skip
    outer = "group" if kind == "plate" else "output"
    assert axes["f"] == (outer, "point") and axes["f_white"] == (outer, "white")


def test_what_cannot_be_white_says_so():
    def seen():
        numpyro.sample("f", prior(), obs=p.y)

    def integrated():
        numpyro.sample("f", LaplaceMarginal(prior(), lambda f: dist.Bernoulli(logits=f)))

    with pytest.raises(ValueError, match="site 'f' is observed or has a value"):
        traced(rg.coarsen(seen, f=rg.Coarse(5, centered=False)))
    with pytest.raises(ValueError, match="site 'f' is a LaplaceMarginal"):
        traced(rg.coarsen(integrated, f=rg.Coarse(5, centered=False)))


@pytest.fixture(scope="module")
def fits():
    """Posterior with all, some, no modes explicit, white by each algebra, and by Laplace."""
    data = gp_classification.demo(jax.random.key(0))
    spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 31)
    pairs = spectrum.at(data.X).eigenpairs(5)
    exact, laplace = gp_classification.model, gp_classification.laplace
    cases = {
        "none": (exact, {"cutoff": 0}),
        "some": (exact, {"cutoff": 5}),
        "all": (exact, {"cutoff": 31}),
        "eigen": (exact, {"cutoff": 5, "eigen": pairs}),
        "Laplace, some": (laplace, {"cutoff": 5}),
        "Laplace, all": (laplace, {"cutoff": 31}),
    }
    how = {"draws": 1500, "warmup": 500, "chains": 2, "progress": False, "spectrum": spectrum}
    return data, spectrum, {
        name: brg.fit(model, data, key=i, **hyper, **how)
        for i, (name, (model, hyper)) in enumerate(cases.items())
    }  # fmt: skip


def moments(dt, *names):
    """Means and their errors; of the amplitude's logarithm."""
    draws = dt["posterior"].to_dataset()[[*names]]
    draws["amplitude"] = np.log(draws["amplitude"])
    return draws.mean(("chain", "draw")), az.mcse(draws)


@pytest.mark.slow
def test_a_fit_names_every_axis_and_prediction_says_what_it_lacks(fits):
    data, spectrum, found = fits
    dt = found["some"]
    axes = {name: v.dims[2:] for name, v in dt["posterior"].data_vars.items()}
    assert axes == {
        "amplitude": (), "f_modes": ("mode",), "f_white": ("white",), "f": ("point",)
    }  # fmt: skip
    assert dt["log_likelihood"]["y"].dims == ("chain", "draw", "point")
    with pytest.raises(ValueError, match="'f_white' holds a function at the training points"):
        brg.predict(dt, gp_classification.model, data.X_test, key=0, cutoff=5, spectrum=spectrum)


@pytest.mark.slow
def test_nuts_agrees_whatever_is_explicit(fits):
    """All, some, no modes explicit, white by each algebra: amplitude and every f within 4 s.e."""
    first = moments(fits[2]["none"], "amplitude", "f")
    for case in ("some", "all", "eigen"):
        mean, error = moments(fits[2][case], "amplitude", "f")
        for name in ("amplitude", "f"):
            z = np.abs(mean[name] - first[0][name]) / np.hypot(error[name], first[1][name])
            assert float(z.max()) < 4, (case, name, z.values)


@pytest.mark.slow
def test_laplace_agrees_with_the_exact_model_and_predicts(fits):
    """With every mode explicit Laplace integrates a jitter alone: the latent model's posterior."""
    data, spectrum, found = fits
    mean, error = (float(v["amplitude"]) for v in moments(found["some"], "amplitude"))
    for case, allowed in (("Laplace, all", 0.0), ("Laplace, some", 0.1)):
        other, its_error = (float(v["amplitude"]) for v in moments(found[case], "amplitude"))
        assert abs(other - mean) < allowed + 4 * np.hypot(error, its_error), case
    out = brg.predict(
        found["Laplace, some"], gp_classification.laplace, data.X_test, key=0, cutoff=5,
        spectrum=spectrum,
    )  # fmt: skip
    f, y = (out["predictions"][name] for name in ("f", "y"))
    assert set(np.unique(y)) == {0.0, 1.0}
    chance = 1 / (1 + np.exp(-f))
    z = (y - chance).sum(("chain", "draw"))
    z = z / np.sqrt((chance * (1 - chance)).sum(("chain", "draw")))
    assert float(np.abs(z).max()) < 4.5
