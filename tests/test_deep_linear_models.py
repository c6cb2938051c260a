# SPDX-License-Identifier: Apache-2.0
"""Raw weights, order parameters and importance sampling: three routes to one posterior."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer import NUTS
from numpyro.infer.util import log_density
from oracles import log_normal, within
from scipy.stats import chi2, norm
from test_order_parameter import latents_of_the_prior, order_moments

import bayesrg as brg
from bayesrg.deep_linear.features import (
    drive,
    feature_draw,
    feature_means,
    prior_features,
)
from bayesrg.deep_linear.order import latent_excess, order_parameter
from bayesrg.deep_linear.problem import prepare
from bayesrg.deep_linear.weights import weight_excess
from bayesrg.gp import MatrixMercerNormal, eigenpairs
from bayesrg.inference.sites import bind, layout_of
from bayesrg.models import deep_linear, deep_linear_collapsed
from bayesrg.networks import DeepLinear


def two_outputs():
    """Data of the reference: two outputs, six points, five inputs, one test point."""
    rng = np.random.default_rng(4)
    X, X_new = rng.standard_normal((6, 5)), rng.standard_normal((1, 5))
    B = np.array([[1, 0.8], [-0.6, -0.9], [0.5, 0.1], [0, 0.4], [0.2, 0]])
    return X, X_new, X @ B + np.sqrt(0.15) * rng.standard_normal((6, 2))


X, X_new, Y = two_outputs()
NET = DeepLinear((4, 3), ridge=0.15, outputs=2)
HYPER = {"widths": (4, 3), "ridge": 0.15, "outputs": 2}
FULL = np.concatenate([X, X_new])
# Reference values and their standard errors, by importance sampling with 4e6 draws.
REFERENCE = {
    "log evidence": (-17.2564, 0.0024), "Q_11": (1.9252, 0.0021), "Q_12": (1.2522, 0.0015),
    "Q_22": (1.0907, 0.0011), "log det Q": (-1.7439, 0.0036), "trace 1": (9.4435, 0.0033),
    "trace 2": (12.938, 0.011), "gain 1": (232.88, 0.13), "gain 2": (426.36, 0.40),
    "f_1": (-1.0333, 0.001), "f_2": (-0.6108, 0.001),
}  # fmt: skip


@pytest.fixture(scope="module")
def rotated():
    """Make the problem in the kernel's own coordinates a constant of the compiled programs."""
    global ROTATED
    ROTATED = prepare(NET, X, Y).as_jax()


@jax.jit
def quantities(latents):
    """Log-likelihood and what is averaged over the posterior, for draws of the latents."""

    def at(latents):
        Q, chain = order_parameter((4, 3), 2, latents)
        law = MatrixMercerNormal(FULL, jnp.full(5, 0.2), 0.15, Q)
        head = law._rows(slice(None, 6))._replace(eigen=(ROTATED.vectors, ROTATED.values))
        Phi = feature_means(ROTATED, chain)
        mean = law._replace(eigen=(ROTATED.vectors, ROTATED.values)).krige(Y)[0][0]
        gain = jnp.einsum("lij,ij->l", Phi, Y @ Y.T)
        trace = jnp.trace(Phi, axis1=1, axis2=2)
        return {
            "log likelihood": head.log_prob(Y), "Q_11": Q[0, 0], "Q_12": Q[0, 1], "Q_22": Q[1, 1],
            "log det Q": jnp.linalg.slogdet(Q)[1], "trace 1": trace[0], "trace 2": trace[1],
            "gain 1": gain[0], "gain 2": gain[1], "f_1": mean[0], "f_2": mean[1],
            "drive": drive(ROTATED, Q), "excess": latent_excess((4, 3), 2, latents),
        }  # fmt: skip

    return jax.lax.map(at, latents, batch_size=4096)


def importance(draws, seed):
    """Means of `quantities` by weighted prior draws, with standard errors, and the evidence."""
    latents = latents_of_the_prior((4, 3), 2, draws, seed)
    values = {k: np.asarray(v) for k, v in quantities(latents).items()}
    log = values.pop("log likelihood")
    weight = np.exp(log - log.max())
    evidence = np.log(weight.mean()) + log.max()
    result = {"log evidence": (evidence, weight.std() / weight.mean() / np.sqrt(draws))}
    weight = weight / weight.sum()
    for name, v in values.items():
        mean = np.tensordot(weight, v, 1)
        shares = weight.reshape((-1,) + (1,) * (v.ndim - 1)) * (v - mean)
        result[name] = mean, np.sqrt((shares**2).sum(0))
    assert 1 / (weight**2).sum() > draws / 40  # effective draws
    return result


def check_importance(draws, seed):
    result = importance(draws, seed)
    for name, (expected, error) in REFERENCE.items():
        mean, own = result[name]
        assert within(mean, expected, np.hypot(own, error)), (name, mean, own, expected)
    layers, one = result["excess"], result["drive"]
    assert within(layers[0], one[0], np.hypot(layers[1], one[1])), (layers, one)
    assert within(one[0], 1.312, np.hypot(one[1], 0.008))


@pytest.mark.slow
@pytest.mark.parametrize("draws, seed", [(100_000, 0), (2_000_000, 1)])
@pytest.mark.usefixtures("rotated")
def test_two_outputs_by_importance_sampling(draws, seed):
    check_importance(draws, seed)


def collapsed_density(latents, Y=Y, **hyper):
    return log_density(deep_linear_collapsed.model, (X, Y), HYPER | hyper, latents)[0]


def test_the_collapsed_density_against_the_whole_matrix():
    """Sites, priors and likelihood, by SciPy; a bottleneck and mean field too."""
    for widths in ((4, 3), (3, 1), ()):
        latents = {k: v[0] for k, v in latents_of_the_prior(widths, 2, 1, seed=3).items()}
        latents = {k: v for k, v in latents.items() if v.size}
        scales = (0.7,) + (1.0,) * len(widths)

        @jax.jit
        def density(latents, widths=widths, scales=scales):
            got = collapsed_density(latents, widths=widths, weight_scales=scales)
            return got, order_parameter(widths, 2, latents).Q

        got, Q = density(latents)
        C = np.kron(X @ X.T / 5 * 0.49, np.asarray(Q)) + 0.15 * np.eye(12)
        expected = log_normal(Y.ravel(), np.zeros(12), C)
        rows = 2
        for layer in range(len(widths), 0, -1):
            rank = min(rows, widths[layer - 1])
            dof = (widths[layer - 1] - np.arange(rank))[: rank - (rows > rank)]
            expected += chi2.logpdf(latents.get(f"c{layer}", np.zeros(0)), dof).sum()
            expected += norm.logpdf(latents.get(f"t{layer}", np.zeros(0))).sum()
            rows = rank
        np.testing.assert_allclose(got, expected, rtol=1e-11)

    @jax.jit
    def mean_field(latents):
        got = collapsed_density(latents, parametrisation="mean_field", richness=1.3)
        return got, collapsed_density(latents, 1.3 * np.sqrt(3) * Y, ridge=0.15 * 1.69)

    latents = {k: v[0] for k, v in latents_of_the_prior((4, 3), 2, 1, seed=3).items()}
    got, mapped = mean_field(latents)
    np.testing.assert_allclose(got, mapped + 12 * np.log(1.3 * np.sqrt(3)), rtol=1e-12)


def test_one_output_has_the_same_density_in_both_laws():
    hyper = {"widths": (4, 3), "ridge": 0.15, "weight_scales": 0.8}

    @jax.jit
    def densities(latents):
        model = handlers.seed(handlers.substitute(deep_linear_collapsed.model, latents), 0)
        law = handlers.trace(model).get_trace(X, Y[:, 0], **hyper)["y"]["fn"]
        eigen = eigenpairs(X, jnp.full(5, 0.8**6 / 5))
        q = latents["c1"] * latents["c2"] / 12
        matrix = MatrixMercerNormal(*eigen, 0.15, q[None], eigen=eigen)
        return law.log_prob(Y[:, 0]), matrix.log_prob(Y[:, :1])

    got, matrix = densities({"c1": np.array([3.2]), "c2": np.array([2.1])})
    np.testing.assert_allclose(got, matrix, rtol=1e-11)
    C = 3.2 * 2.1 / 12 * 0.8**6 * X @ X.T / 5 + 0.15 * np.eye(6)
    np.testing.assert_allclose(got, log_normal(Y[:, 0], np.zeros(6), C), rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(4, 3), (1, 3), (3, 1)])
def test_prior_predictive_of_both_models_agrees(widths):
    """Second and fourth moments against the exact ones; weights without a bottleneck."""
    draws = 40_000
    net = DeepLinear(widths, ridge=0.15, outputs=2)
    x = X[:1]
    keys = jax.random.split(jax.random.key(5), draws)
    latents = {k: v for k, v in latents_of_the_prior(widths, 2, draws, 6).items() if v.size}

    @jax.jit
    def sampled(keys, latents):
        factor = order_parameter(widths, 2, latents).chain[0]
        if widths != (4, 3):
            return (factor,)
        return factor, jax.vmap(lambda k: net.apply(net.init(k, 5), x)[0])(keys), net.kernel(x)

    factor, *raw = (np.asarray(v) for v in sampled(keys, latents))
    scale = float(x[0] @ x[0] / 5)
    np.testing.assert_allclose(raw[1:], [[[scale]]] * len(raw[1:]), rtol=1e-13)
    noise = np.random.default_rng(7).standard_normal((draws, factor.shape[-1], 1))
    collapsed = np.sqrt(scale) * (factor @ noise)[..., 0]
    a, b, c = order_moments(widths)
    exact = np.array([scale, 3 * a * scale**2, (b + 2 * c) * scale**2])
    for f in (*raw[:1], collapsed):
        moments = np.stack([(f**2).mean(1), (f**4).mean(1), f[:, 0] ** 2 * f[:, 1] ** 2], 1)
        assert within(moments.mean(0), exact, moments.std(0) / np.sqrt(draws))
    np.testing.assert_allclose(a, np.prod([1 + 2 / w for w in widths]), rtol=1e-14)


@pytest.mark.parametrize(
    "widths, scales",
    [pytest.param((4, 3), (0.8, 1.3, 1.1), marks=pytest.mark.slow), ((3, 1, 4), 1.0)],
    ids=["wide", "bottleneck"],
)
def test_feature_means_are_the_means_of_draws(widths, scales):
    """Recursion and Rao-Blackwell mean at one chain."""
    n = 5_000
    data = prepare(DeepLinear(widths, ridge=0.15, outputs=2, weight_scales=scales), X, Y).as_jax()
    latents = {k: v[0] for k, v in latents_of_the_prior(widths, 2, 1, 2).items()}

    @jax.jit
    def both(latents):
        chain = order_parameter(widths, 2, latents).chain
        keys = jax.random.split(jax.random.key(0), n)
        draws = jax.vmap(lambda key: feature_draw(key, data, chain))(keys)
        return draws.kernels, feature_means(data, chain), prior_features(data)

    kernels, mean, prior = (np.asarray(v) for v in both(latents))
    factors = np.cumprod(np.broadcast_to(scales, len(widths) + 1)[:-1] ** 2.0)
    np.testing.assert_allclose(prior, factors[:, None, None] * X @ X.T / 5, rtol=0, atol=1e-12)
    assert mean.shape == (len(widths), 6, 6)
    assert within(kernels.mean(0), mean, kernels.std(0) / np.sqrt(n) + 1e-12)
    eigenvalues = np.linalg.eigvalsh(kernels[:50])
    assert (eigenvalues > -1e-10).all()
    for layer, width in enumerate(widths):
        assert ((eigenvalues[:, layer] > 1e-8).sum(-1) <= width).all()


@pytest.mark.slow
def test_without_data_to_speak_of_features_stay_at_the_prior():
    """A huge noise: prior means, and the law of raw weights in second moments."""
    net = DeepLinear((4, 3), ridge=1e9, outputs=2, weight_scales=(0.8, 1.3, 1.1))
    data, n = prepare(net, X, Y).as_jax(), 5_000

    @jax.jit
    def sampled(latents):
        chain = order_parameter((4, 3), 2, latents).chain
        keys = jax.random.split(jax.random.key(1), n)
        got = jax.vmap(lambda k, c: feature_draw(k, data, c).kernels)(keys, chain)
        return got, jax.vmap(lambda k: net.layers(net.init(k, 5), X))(keys), prior_features(data)

    kernels, layers, prior = jax.device_get(sampled(latents_of_the_prior((4, 3), 2, n, 4)))
    for layer, width in ((1, 4), (2, 3)):
        raw = layers[layer] @ np.swapaxes(layers[layer], 1, 2) / width
        mine = kernels[:, layer - 1]
        for power in (1, 2):
            a, b = raw**power, mine**power
            errors = np.sqrt((a.var(0) + b.var(0)) / n)
            assert within(a.mean(0), b.mean(0), errors, 5)
        assert within(mine.mean(0), prior[layer - 1], mine.std(0) / np.sqrt(n), 5)


@pytest.mark.parametrize("ridge", [pytest.param(0.15, marks=pytest.mark.slow), 0.0])
def test_one_output_against_the_exact_solver(ridge):
    """Feature kernels averaged over a fine grid of the order parameter, one hidden layer."""
    inputs, y, n = X[:4], Y[:4, 0], 4
    net = DeepLinear((4,), ridge=ridge, weight_scales=(0.8, 1.2))
    data, exact = prepare(net, inputs, y).as_jax(), brg.deep_linear.exact(net, inputs, y)
    c = np.geomspace(1e-6, 400, 4001)
    K = 0.9216 * inputs @ inputs.T / 5
    log = np.array([log_normal(y, np.zeros(n), q * K + ridge * np.eye(n)) for q in c / 4])
    weight = np.exp(log - log.max() + np.log(c) * 2 - c / 2)  # chi-square of 4, in log c
    weight /= weight.sum()
    both = jax.jit(jax.vmap(lambda G: (feature_means(data, (G,)), drive(data, G**2))))
    means, drives = (np.asarray(v) for v in both(np.sqrt(c / 4)[:, None, None]))
    mean = np.tensordot(weight, means, 1)
    np.testing.assert_allclose(mean[0], exact.feature_kernel(1), rtol=0, atol=1e-8)
    np.testing.assert_allclose(weight @ drives, exact.layer_excess, rtol=0, atol=1e-8)
    np.testing.assert_allclose(weight @ c - 4, exact.layer_excess, rtol=0, atol=1e-8)


def test_the_collapsed_model_can_be_cut():
    """Two outputs: three of five input modes explicit, the evidence at given Q unmoved."""
    reference = np.random.default_rng(9).standard_normal((40, 5))
    hyper = HYPER | {"spectrum": brg.spectrum.nystrom(NET.input_kernel(5), reference)}
    latents = {k: v[0] for k, v in latents_of_the_prior((4, 3), 2, 1, 3).items()}
    coarse = brg.rg.coarsen(deep_linear_collapsed.model, y=brg.rg.Coarse(3))

    def law(model, latents, **hyper):
        given = handlers.seed(handlers.substitute(model, latents), 0)
        return handlers.trace(given).get_trace(X, Y, **hyper)["y"]["fn"]

    @jax.jit
    def laws(w):
        rest = law(coarse, latents | {"y_modes": w.reshape(3, 2)}, **hyper)
        whole = law(deep_linear_collapsed.model, latents, **HYPER)
        return rest.mean, rest.covariance_matrix, whole.log_prob(Y)

    mean, covariance, whole = laws(np.zeros(6))
    B = np.stack([np.asarray(laws(w)[0] - mean).ravel() for w in np.eye(6)], 1)
    evidence = log_normal(Y.ravel(), np.zeros(12), B @ B.T + covariance)
    np.testing.assert_allclose(evidence, whole, rtol=0, atol=1e-10)
    dims = layout_of(bind(coarse, hyper), X, Y).dims
    assert dims["y_modes"] == ("mode", "output") and dims["y"] == ("point", "output")
    assert dims["Q"] == ("output", "output_bis")


def fitted(model, **hyper):
    strict = lambda m: NUTS(m, target_accept_prob=0.9)  # noqa: E731
    return brg.fit(
        model, (X, Y), key=3, draws=3000, warmup=1000, chains=4, sampler=strict, progress=False,
        **HYPER, **hyper,
    )  # fmt: skip


def against(draws, expected, error, factor=4):
    """Compare posterior draws (chain, draw) with a number and its standard error."""
    dataset = az.from_dict({"posterior": {"v": np.asarray(draws)}})["posterior"].to_dataset()
    own = dataset["v"].std() / np.sqrt(az.ess(dataset, method="mean")["v"])
    z = (dataset["v"].mean() - expected) / np.hypot(own, error)
    assert abs(float(z)) < factor, (float(dataset["v"].mean()), float(own), expected)
    return float(own)


@pytest.mark.slow
@pytest.mark.usefixtures("rotated")
def test_both_samplers_meet_importance_sampling_and_the_layer_identity():
    raw = fitted(deep_linear.model)["posterior"].to_dataset()
    eigen = eigenpairs(X, jnp.full(5, 0.2))
    collapsed = fitted(deep_linear_collapsed.model, eigen=eigen)["posterior"].to_dataset()
    for posterior in (raw, collapsed):
        Q = posterior["Q"].to_numpy()
        for name, (i, j) in {"Q_11": (0, 0), "Q_12": (0, 1), "Q_22": (1, 1)}.items():
            against(Q[..., i, j], *REFERENCE[name])
        against(np.linalg.slogdet(Q)[1], *REFERENCE["log det Q"])
        drives = jax.jit(jax.vmap(jax.vmap(lambda q: drive(ROTATED, q))))(Q)
        against(drives, 1.312, 0.008)
    white = [jnp.asarray(raw[f"z{i}"].to_numpy()) for i in (1, 2, 3)]
    for excess in np.moveaxis(np.asarray(weight_excess(white)), -1, 0):
        against(excess, 1.312, 0.008)
    f = np.swapaxes(raw["f"].to_numpy(), -1, -2)
    against(((Y - f) * f).sum((-2, -1)) / 0.15, 1.312, 0.008)
    W = jax.vmap(jax.vmap(lambda *z: NET.weights(z, X.shape[1])))(*white)
    H1 = np.einsum("ni,cdji->cdnj", X, W[0])
    H2 = np.einsum("cdnj,cdkj->cdnk", H1, W[1])
    against((H1**2).sum((-2, -1)) / 4, *REFERENCE["trace 1"])
    against((H2**2).sum((-2, -1)) / 3, *REFERENCE["trace 2"])
    against(((np.swapaxes(H2, -1, -2) @ Y) ** 2).sum((-2, -1)) / 3, *REFERENCE["gain 2"])
    latents = {k: jnp.asarray(v.to_numpy()) for k, v in collapsed.items() if k != "Q"}
    for excess in np.moveaxis(np.asarray(latent_excess((4, 3), 2, latents)), -1, 0):
        against(excess, 1.312, 0.008)
    chain = order_parameter((4, 3), 2, latents).chain
    means = jax.jit(jax.vmap(jax.vmap(lambda G: feature_means(ROTATED, G))))(chain)
    keys = jax.random.split(jax.random.key(0), chain[0].shape[:2])
    drawn = jax.jit(jax.vmap(jax.vmap(lambda k, G: feature_draw(k, ROTATED, G))))(keys, chain)
    for kernels in (means, drawn.kernels):
        trace = np.trace(np.asarray(kernels), axis1=-2, axis2=-1)
        against(trace[..., 0], *REFERENCE["trace 1"])
        against(trace[..., 1], *REFERENCE["trace 2"])
    spread = trace.std((0, 1))  # of the recursion's draws; reference 3.16, 6.43, raw 3.15, 6.63
    np.testing.assert_allclose(spread, (3.16, 6.43), rtol=0.06)
    np.testing.assert_allclose(((H1**2).sum((-2, -1)) / 4).std(), spread[0], rtol=0.06)


def run(model, X=X, Y=Y, **hyper):
    return handlers.trace(handlers.seed(model, 0)).get_trace(X, Y, **(HYPER | hyper))


def low_rank():
    inputs = np.random.default_rng(0).standard_normal((6, 2))
    return inputs, inputs @ np.random.default_rng(1).standard_normal((2, 2))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: run(deep_linear.model, X[0]), r"X must be an array of 2 dim.*got shape \(5,\)"),
        (lambda: run(deep_linear.model, X, Y[:4]), r"y has shape \(4, 2\) but the inputs"),
        (lambda: run(deep_linear.model, X * np.nan), r"X contains non-finite.*\[0, 0\]"),
        (lambda: run(deep_linear.model, X, Y * np.inf), "y contains non-finite"),
        (lambda: run(deep_linear.model, X, Y[:, 0]), r"y has shape \(6,\) and the network 2"),
        (lambda: run(deep_linear.model, widths=(4, 0)), "positive integer, got 0"),
        (lambda: run(deep_linear.model, ridge=-0.1), "ridge must be non-negative, got -0.1"),
        (lambda: run(deep_linear.model, weight_scales=-1.0), "weight_scales must be positive"),
        (
            lambda: run(deep_linear.model, ridge=0.0),
            "without noise weights have no posterior density",
        ),
        (
            lambda: run(deep_linear_collapsed.model, ridge=0.0, widths=(4, 1)),
            "width 1 is below the 2 outputs: Q is singular.*below rank 2: interpolation impossible",
        ),
        (
            lambda: run(deep_linear_collapsed.model, X, 0 * Y, ridge=0.0),
            "y has rank 0 with 2 outputs, and the smallest width 3.*the evidence diverges",
        ),
        (
            lambda: run(deep_linear_collapsed.model, low_rank()[0], Y, ridge=0.0)["y"][
                "fn"
            ].log_prob(Y),
            "6 points has rank 2: targets outside its range have zero density",
        ),
        (lambda: prepare(NET, X, Y[:, 0]), r"y has shape \(6,\) and the network 2 output"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_zero_noise_on_the_range_of_the_kernel():
    inputs, targets = low_rank()

    net = DeepLinear((4, 3), ridge=0.0, outputs=2)
    with pytest.warns(UserWarning, match="the targets lie in its range, and the density is that"):
        brg.deep_linear.check_observed(net, inputs, targets, weights=False)

    @jax.jit
    def density():
        sites = run(deep_linear_collapsed.model, inputs, targets, ridge=0.0)
        return sites["y"]["fn"].log_prob(targets), sites["Q"]["value"]

    found, Q = density()
    U, s, _ = np.linalg.svd(inputs)
    rotated, C = U[:, :2].T @ targets, np.kron(np.diag(s**2) / 2, Q)
    np.testing.assert_allclose(found, log_normal(rotated.ravel(), np.zeros(4), C), rtol=1e-9)

    @jax.jit
    def sharp():
        Q = run(deep_linear_collapsed.model, X[:4], Y[:4], ridge=0.0)["Q"]["value"]
        return MatrixMercerNormal(FULL, jnp.full(5, 0.2), 0.0, Q).krige(Y[:4])[0]

    plain = FULL[4:] @ X[:4].T @ np.linalg.solve(X[:4] @ X[:4].T, Y[:4])
    np.testing.assert_allclose(sharp(), plain, rtol=0, atol=1e-10)
