# SPDX-License-Identifier: Apache-2.0
"""Names that users may rely on stand where they were promised, and take the promised arguments."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import bayesrg as brg

rng = np.random.default_rng(0)
X, y, Z = rng.normal(size=(6, 2)), rng.normal(size=6), rng.normal(size=(3, 2))
VALUES = np.array([1.0, 0.3, 0.1])
FEATURES = rng.normal(size=(6, 3))


def shapes(function, *args):
    """Shapes of all that a call returns: nothing is compiled."""
    return [v.shape for v in jax.tree.leaves(jax.eval_shape(function, *args))]


def test_kernels_and_spectra():
    k = brg.kernels
    kernel = k.RBF(0.7, variance=1.5)
    both = kernel + 2.0 * k.Linear() * k.Matern32(1.0).on([0])
    assert both(X, Z).shape == (6, 3)
    assert shapes(lambda: (both.diag(X), both(X))) == [(6,), (6, 6)]
    for name in ("Matern12", "Matern52", "RationalQuadratic"):
        assert shapes(getattr(k, name)(lengthscale=0.7).diag, X) == [(6,)]
    keywords = dict(
        activation="relu", weight_var=2.0, bias_var=0.0, skip=None, layernorm=False,
        readout_bias=True, slope=0.2, order=64,
    )  # fmt: skip
    for kind, more in ((k.NNGP, {}), (k.NTK, {"train": "all", "train_bias": True})):
        inspect.signature(kind).bind(2, **keywords, **more)
    for name in ("DEQ", "jacobian_flow", "critical_point", "empirical_nngp", "empirical_ntk"):
        assert callable(getattr(k, name))

    s = brg.spectrum
    found = s.nystrom(kernel, X, rank=3)
    assert found.values.shape == found.degeneracy.shape == (3,)
    assert shapes(lambda: (found.features(Z), found.residual(Z))) == [(3, 3), (3,)]
    assert shapes(found.residual_cov, X, Z) == [(6, 3)]
    assert shapes(found.power, y) == shapes(found.power, y[:3], Z) == [(3,)]
    inspect.signature(s.sphere).bind(kernel, 3, 4, radius=None, explicit=False)
    assert shapes(lambda: s.fourier(lambda j: 1.0 / (1.0 + j) ** 2, modes=5).values) == [(5,)]
    assert shapes(lambda: s.gaussian_rbf(lengthscale=1.0, scale=1.0, modes=4).values) == [(4,)]
    fixed = s.functionals(found, 2)
    assert isinstance(fixed, s.Functionals)
    assert shapes(lambda: fixed.features(kernel, Z)) == [(3, 2)]
    maps = "identity scale power flatten lift hard_cutoff soft_cutoff polynomial_cutoff ridge table"
    assert all(callable(getattr(s.maps, name)) for name in maps.split())
    assert shapes(s.modify(found, s.maps.scale(2.0), tail=1.0), X) == [(6, 6)]


def test_gaussian_processes_and_the_renormalisation_group():
    law = brg.gp.MercerNormal(
        FEATURES, VALUES, 0.1, residual=None, loc=0.0, scale=1.0, eigen=None, gram=None
    )
    assert law.event_shape == (6,) and shapes(law.log_prob, y) == [()]
    vectors, values = shapes(lambda: brg.gp.eigenpairs(FEATURES, VALUES, None))
    assert vectors[0] == 6 and len(values) == 1
    inspect.signature(brg.gp.MatrixMercerNormal).bind(FEATURES, VALUES, 0.1, jnp.eye(2))

    def answers():
        posterior = brg.gp.condition(brg.kernels.RBF(1.0), X, y, 0.1, mean=None)
        assert isinstance(posterior, brg.gp.Posterior)
        mean, variance = posterior.predict(Z, noise=False)
        draws = posterior.sample(jax.random.key(0), Z, 2)
        more = posterior.cov(Z), posterior.log_evidence, draws, posterior.loo()
        return mean, variance, posterior.mean(Z), *more

    assert shapes(answers) == [(3,), (3,), (3,), (3, 3), (), (2, 3), (6,)]
    inspect.signature(brg.gp.maximise_evidence).bind(brg.kernels.RBF, {}, X, y, restarts=2)

    rg, rest = brg.rg, dict(degeneracy=None, tail=0.0)
    for rule in ("exact", "local", "dressed", "universal", "truncate"):
        cut = rg.Coarse(2, rule=rule, n=None, eigen=None, max_dense=1000)
        assert isinstance(cut, numpyro.infer.reparam.Reparam)
    assert shapes(lambda: rg.effective_ridge(VALUES, 6, 0.1, **rest)) == [()]
    inspect.signature(rg.dressed_ridge).bind(VALUES, 6, 0.1, 1, **rest)
    inspect.signature(rg.local_ridge).bind(None, X, 0.1, 1)
    assert shapes(lambda: rg.learnability(VALUES, 6, 0.1, **rest)) == [(3,)]
    options = dict(rule="running", threshold=0.5)
    assert isinstance(rg.cutoff(VALUES, 6, 0.1, **options, scan="ir", features=None, **rest), int)
    inspect.signature(rg.flow).bind(
        VALUES, 6, 0.1, **options, features=FEATURES, residual=None, y=y, **rest
    )
    inspect.signature(rg.feature_cumulants).bind(FEATURES, 1)
    inspect.signature(rg.coarsen).bind(lambda X: None, y=rg.Coarse(1))


def test_theory_and_networks():
    t, n = brg.theory, np.array([3.0, 6.0])

    def ask():
        curve = t.learning_curve(VALUES, np.ones(3), n, 0.1, label_noise=0.0)
        names = "test train generalisation variance log_evidence effective_ridge learnability"
        assert isinstance(curve, t.Curve) and all(hasattr(curve, name) for name in names.split())
        moments = t.moments(np.tile(FEATURES, (5, 1)), np.tile(y, 5))
        found = t.ridge_equivalent(moments, 6.0, 0.1)
        assert isinstance(found, t.Equivalent)
        assert all(hasattr(found, name) for name in ("tau", "test", "train"))
        inspect.signature(t.optimal_ridge).bind(moments, 6.0)
        h = t.hermite("relu", 1.0, mean=0.0)
        assert isinstance(h, t.Hermite) and all(hasattr(h, n) for n in ("a0", "k1", "k2", "ks2"))
        layer = t.linearise([FEATURES.T[:, :2]], "relu", np.eye(2), psi0=None, method=None)[0]
        assert isinstance(layer, t.LayerMoments)
        assert all(hasattr(layer, n) for n in ("Omega", "mean", "psi", "variance"))
        return moments.Omega, moments.psi, moments.Ey2

    assert shapes(ask) == [(3, 3), (3,), ()]
    inspect.signature(t.spectral_density).bind(VALUES, 6.0, np.ones(2))
    assert callable(t.learning_curve_mc)

    net = brg.networks.DeepLinear(
        (3,), ridge=0.1, outputs=1, weight_scales=1.0, parametrisation="standard", richness=1.0
    )
    exact, saddle = t.deep_linear.exact(net, X, y), t.deep_linear.saddle(net, X, y)
    assert t.deep_linear is brg.deep_linear
    assert isinstance(exact, t.deep_linear.Exact) and isinstance(saddle, t.deep_linear.Saddle)
    for name in "log_evidence moment mean_log_q predict feature_kernel gain layer_excess".split():
        assert hasattr(exact, name)
    for name in "q rho delta action stationary log_evidence predict".split():
        assert hasattr(saddle, name)
    assert callable(brg.networks.Rainbow) and callable(brg.networks.resample)


def test_runs_fits_and_what_is_made_of_them():
    rule = brg.dynamics.gradient_descent(lambda w: (w**2).sum(), 0.1)
    found = brg.dynamics.run(rule, np.ones(2), 4, 0, every=2)
    assert isinstance(found, brg.dynamics.Trajectory) and found.x.shape == (3, 2)
    for name in ("gradient_flow", "preconditioned", "sgd"):
        assert callable(getattr(brg.dynamics, name)) and callable(brg.dynamics.core.run)
    inspect.signature(brg.data.load).bind("digits", n=60, task=None, key=None)
    inspect.signature(brg.fit).bind(
        None, (X, y), key=0, draws=1000, warmup=1000, chains=4, block=100, sampler=None, prior=0,
        path=None, progress=True, devices=None, spectrum=None,
    )  # fmt: skip
    inspect.signature(brg.predict).bind(None, None, X, key=0, site=None, spectrum=None)
    inspect.signature(brg.open_run).bind("run")
    inspect.signature(brg.diagnostics.feature.kernels).bind(None, None, X)
    for name in brg.plots.__all__:
        parameters = list(inspect.signature(getattr(brg.plots, name)).parameters.values())
        kinds = {q.name: q.kind for q in parameters}
        assert parameters[0].name == "dt" and {"group", "backend", "pc_kwargs"} <= set(kinds), name
        assert all(q.kind != q.POSITIONAL_OR_KEYWORD for q in parameters[1:]), name
    with pytest.raises(AttributeError, match="it has Data"):
        brg.nothing  # noqa: B018
