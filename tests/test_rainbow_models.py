# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from oracles import log_normal
from scipy.stats import norm

import bayesrg as brg
from bayesrg.diagnostics import feature, layers
from bayesrg.models import rainbow, rainbow_collapsed, rainbow_surrogate

ALPHA, NOISE = 1.3, 0.3


def inverse_of_first(weights):
    W = weights[0]
    return jnp.linalg.inv(W @ W.T + 0.5 * jnp.eye(W.shape[0]))


@pytest.fixture(scope="module", autouse=True)
def problem():
    """Compile when the tests run: every worker collects all files."""
    global DATA, X, y, NET, HYPER, WHITE, PRIOR, reference, LOW, WITH_LOW
    DATA = jax.jit(rainbow.demo)(jax.random.key(0))
    X, y = (np.asarray(v) for v in DATA[:2])
    NET = brg.networks.Rainbow((6, 5), (None, inverse_of_first))
    HYPER = {"net": NET, "alpha": ALPHA, "noise": NOISE}
    WHITE = {
        f"z{i}": np.random.default_rng(i).standard_normal(shape)
        for i, shape in enumerate(NET.white_shapes(3), 1)
    }
    PRIOR = sum(norm.logpdf(z).sum() for z in WHITE.values())
    reference = brg.spectrum.nystrom(brg.kernels.NNGP(1, "erf", 1.0, 0.1), DATA.X_test)
    LOW = brg.spectrum.functionals(reference, 4)
    WITH_LOW = HYPER | {"functionals": LOW}


features_at = jax.jit(lambda x: NET.apply(NET.weights(list(WHITE.values()), 3), x))


def features(at=None):
    return np.asarray(features_at(X if at is None else at)) / np.sqrt(5)


@jax.jit
def collapsed_density(white):
    return log_density(rainbow_collapsed.model, (X, y), HYPER, white)[0]


@jax.jit
def raw_density(w):
    return log_density(rainbow.model, (X, y), HYPER, WHITE | {"w": w})[0]


def test_the_densities_are_those_of_the_docstrings():
    F = features()
    C = ALPHA * F @ F.T + NOISE**2 * np.eye(25)
    expected = PRIOR + log_normal(y, np.zeros(25), C)
    np.testing.assert_allclose(collapsed_density(WHITE), expected, rtol=1e-12)
    w = np.random.default_rng(9).standard_normal(5)
    expected = PRIOR + norm.logpdf(w, 0, np.sqrt(ALPHA)).sum() + norm.logpdf(y, F @ w, NOISE).sum()
    np.testing.assert_allclose(raw_density(w), expected, rtol=1e-12)


def test_the_readout_is_recovered_given_the_weights():
    """The collapsed density and the conditional of w make up the raw one, at any w."""
    F, w = features(), np.random.default_rng(9).standard_normal(5)
    readout = brg.gp.readout_posterior(F, y, NOISE**2, scale=ALPHA)
    conditional = log_normal(w, np.asarray(readout.mean), np.asarray(readout.cov))
    collapsed = collapsed_density(WHITE)
    np.testing.assert_allclose(collapsed + conditional, raw_density(w), rtol=1e-11)
    np.testing.assert_allclose(readout.log_evidence, float(collapsed) - PRIOR, rtol=1e-12)


def test_gradients_are_finite_and_right():
    slopes = jax.jit(jax.grad(collapsed_density))(WHITE)
    for name, z in WHITE.items():
        step = np.zeros_like(z)
        step[1, 2] = 1e-6
        up, down = (collapsed_density(WHITE | {name: z + s * step}) for s in (1, -1))
        np.testing.assert_allclose(np.asarray(slopes[name])[1, 2], (up - down) / 2e-6, rtol=1e-6)


columns_of = jax.jit(lambda low, F, F_ref: low.columns(F, F_ref))


def test_functionals_split_the_kernel_of_the_features():
    """As functionals of the function with that kernel: what the general split says."""
    F, F_ref, V = features(), features(at=LOW.X_ref), np.asarray(LOW.V)
    columns = np.asarray(columns_of(LOW, F, F_ref))
    assert columns.shape == (25, 4 + 5)
    np.testing.assert_allclose(columns @ columns.T, F @ F.T, rtol=0, atol=1e-12)
    K, cross = F_ref @ F_ref.T, F @ F_ref.T @ V
    L = np.linalg.cholesky(V.T @ K @ V)
    np.testing.assert_allclose(columns[:, :4], np.linalg.solve(L, cross.T).T, rtol=0, atol=1e-11)
    with pytest.raises(ValueError, match="there are 6 functionals and 5 features"):
        brg.spectrum.functionals(reference, 6).columns(F, F_ref)
    with pytest.raises(ValueError, match="F_ref has shape"):
        LOW.columns(F, F[:7])


@pytest.mark.slow
def test_a_dead_unit_does_not_spoil_gradients():
    """With as many functionals as features, one that is zero at all reference points."""
    low = brg.spectrum.functionals(reference, 5)
    F, F_ref = features(), features(at=LOW.X_ref)
    F_ref[:, 2] = 0.0

    def loss(F_ref):
        columns = low.columns(F, F_ref)
        law = brg.gp.MercerNormal(columns, jnp.ones(10), NOISE**2, orthonormal=False)
        return law.log_prob(y)

    value, slope = jax.jit(jax.value_and_grad(loss))(F_ref)
    np.testing.assert_allclose(
        value, log_normal(y, np.zeros(25), F @ F.T + NOISE**2 * np.eye(25)), rtol=1e-10
    )
    np.testing.assert_allclose(slope, 0.0, rtol=0, atol=1e-4)  # the split moves no density


@jax.jit
def density_with_functionals(white):
    return log_density(rainbow_collapsed.model, (X, y), WITH_LOW, white)[0]


@pytest.mark.parametrize("cutoff", [2, *(pytest.param(c, marks=pytest.mark.slow) for c in (0, 9))])
def test_modes_of_a_network_posterior_can_be_cut(cutoff):
    """Low modes given the weights are sampled, the rest marginalised; evidence is unchanged."""
    full = collapsed_density(WHITE)
    cut = brg.rg.coarsen(rainbow_collapsed.model, y=brg.rg.Coarse(cutoff))

    @jax.jit
    def densities(white):
        seeded = handlers.substitute(handlers.seed(cut, 0), data=white)
        trace = handlers.trace(seeded).get_trace(X, y, **WITH_LOW)
        modes = {k: trace[k]["value"] for k in trace if k == "y_modes"}
        return modes, log_density(cut, (X, y), WITH_LOW, white | modes)[0]

    modes, joint = densities(WHITE)
    np.testing.assert_allclose(density_with_functionals(WHITE), full, rtol=1e-12)
    if cutoff:
        w = np.asarray(modes["y_modes"])
        assert w.shape == (cutoff,)
        F_ref = features(at=LOW.X_ref)
        root = np.asarray(columns_of(LOW, features(), F_ref)) * np.sqrt(ALPHA)
        B, R = root[:, :cutoff], root[:, cutoff:]
        C = R @ R.T + NOISE**2 * np.eye(25)
        A = B.T @ np.linalg.solve(C, B) + np.eye(cutoff)
        mean = np.linalg.solve(A, B.T @ np.linalg.solve(C, y))
        joint = joint - log_normal(w, mean, np.linalg.inv(A))
    np.testing.assert_allclose(joint, full, rtol=0, atol=1e-10)


def test_hyper_parameters_may_be_sampled():
    hyper = {"net": NET, "alpha": dist.LogNormal(0.0, 1.0), "noise": dist.HalfNormal(1.0)}
    for model in (rainbow.model, rainbow_collapsed.model):
        trace = {}
        jax.eval_shape(lambda model=model, trace=trace: trace.update(
            handlers.trace(handlers.seed(model, 0)).get_trace(X, y, **hyper)
        ))  # fmt: skip
        assert {"alpha", "noise"} <= set(trace)
    with pytest.raises(ValueError, match=r"y has shape \(25, 2\); the model has one output"):
        rainbow.model(X, np.stack([y, y], 1))


@pytest.mark.slow
def test_the_surrogate_has_the_moments_of_the_network():
    """Prior predictive of y at fixed weights: its covariance over draws of inputs and noise."""
    net = brg.networks.Rainbow((40, 30), None, "erf")
    inputs = np.random.default_rng(0).standard_normal((4000, 6))

    @jax.jit
    def drawn():
        weights = net.init(5, 6)
        layers_of = brg.theory.linearise(weights, "erf", np.eye(6))
        hyper = {"net": net, "weights": weights, "layers": layers_of, "alpha": 0.5, "noise": 0.1}
        draw = handlers.trace(handlers.seed(rainbow_surrogate.model, 1))
        trace = draw.get_trace(jnp.asarray(inputs), None, **hyper)
        values = {name: trace[name]["value"] for name in ("w", "f", "xi2")}
        return weights, layers_of, net.apply(weights, inputs), values

    weights, layers_of, real, values = jax.device_get(drawn())
    w, f = values["w"], values["f"]
    Omega = layers_of[-1].Omega / 30
    power = w @ Omega @ w
    assert abs((f**2).mean() - power) < 4.5 * power * np.sqrt(2 / 4000)
    real = real @ w / np.sqrt(30)
    assert abs((real**2).mean() / power - 1) < 0.15
    W1, W2 = weights  # both share the linear part, and nothing else
    linear = (layers_of[1].k1[:, None] * W2) @ (layers_of[0].k1[:, None] * W1)
    shared = ((w @ linear) ** 2).sum() / 30 / power
    assert abs(np.corrcoef(real, f)[0, 1] - shared) < 4.5 / np.sqrt(4000) + 0.03
    assert values["xi2"].shape == (4000, 30)
    plain = {}
    jax.eval_shape(lambda: plain.update(
        handlers.trace(handlers.seed(rainbow_surrogate.model, 0)).get_trace(jnp.asarray(X), y)
    ))  # fmt: skip
    assert plain["xi1"]["value"].shape == (25, 6)


@pytest.fixture(scope="module")
def fits():
    more = {"draws": 2000, "warmup": 600, "chains": 2, "prior": 2000, "progress": False}
    return {
        module.__name__: brg.fit(module.model, (X, y), key=1, **more, **HYPER)
        for module in (rainbow, rainbow_collapsed)
    }


@pytest.mark.slow
def test_both_models_give_one_posterior(fits):
    """Functions at new inputs, and the features' kernels, within 4 standard errors."""
    found = []
    for module in (rainbow, rainbow_collapsed):
        dt = fits[module.__name__]
        assert int(dt["sample_stats"]["diverging"].sum()) <= 2
        tree = layers.add_kernels(dt, NET)
        f = brg.predict(dt, module.model, DATA.X_test, key=2, **HYPER)["predictive_moments"]
        measured = feature.measure(tree)["feature_learning"].to_dataset()
        draws = measured[["kernel_scale", "target_alignment"]]
        draws["f"] = f["mean"]
        found.append((draws.mean(("chain", "draw")), feature.convergence.mcse(draws)))
    (a, da), (b, db) = found
    for name in a.data_vars:
        z = (a[name] - b[name]) / np.hypot(da[name], db[name])
        assert float(np.abs(z).max()) < 4, (name, z.values)


@pytest.mark.slow
def test_the_posterior_of_a_narrow_network_moves_its_kernels(fits):
    """Alignment with the targets grows over that of the prior, most in the last layer."""
    tree = feature.measure(layers.add_kernels(fits[rainbow_collapsed.__name__], NET))
    change = feature.compare(tree)["target_alignment"]
    grown = change.sel(statistic="difference").values
    assert (grown > 5 * change.sel(statistic="mcse").values).all() and grown[1] > grown[0]


@pytest.mark.slow
def test_sampling_the_readout_alone_meets_the_conjugate_law():
    F = features()
    frozen = handlers.condition(rainbow.model, data=WHITE)

    def model(X, y=None, *, net=NET, alpha=ALPHA, noise=NOISE):
        return frozen(X, y, net=net, alpha=alpha, noise=noise)

    dt = brg.fit(model, (X, y), key=3, draws=2000, warmup=300, chains=2, progress=False)
    exact = brg.gp.readout_posterior(F, y, NOISE**2, scale=ALPHA)
    w = dt["posterior"]["w"]
    error = az.mcse(dt["posterior"].to_dataset()[["w"]])["w"]
    assert (np.abs(w.mean(("chain", "draw")) - exact.mean) < 4 * error).all()
    spread = w.std(("chain", "draw")).values / np.sqrt(np.diagonal(exact.cov))
    np.testing.assert_allclose(spread, 1.0, rtol=0, atol=0.06)
