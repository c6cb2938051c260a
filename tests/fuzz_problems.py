# SPDX-License-Identifier: Apache-2.0
"""The smallest problem of each public function: its arguments by name, in the lower layers.

What kind of argument one is, its value says: an integer is a count, a float or an array is
numbers, a string a choice, a boolean a flag.
"""

import functools
import types

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

import bayesrg as brg

k, s, g, d, net, rg = brg.kernels, brg.spectrum, brg.gp, brg.dynamics, brg.networks, brg.rg
rng = np.random.default_rng(0)
X, Z, y = rng.normal(size=(6, 2)), rng.normal(size=(3, 2)), rng.normal(size=6)
W = rng.normal(size=(2,))
VALUES, POWER = np.array([1.0, 0.5, 0.25, 0.125]), np.array([0.4, 0.3, 0.2, 0.1])
REST, EVEN = np.full(6, 0.1), np.full(6, 1 / 6)
FEATURES = np.linalg.qr(rng.normal(size=(6, 4)))[0] * np.sqrt(6.0)
BOTH = np.stack([y, y[::-1]], 1)


def apply(params, X):
    """Linear network; asks nothing of its parameters but the shape."""
    return X @ params


def layered(params, h, start, stop):
    for W in params[start:stop]:
        h = jnp.tanh(h) @ W
    return h


def loss(params):
    return (params**2).sum()


def half(values):
    return 0.5 * values


def all_of(**parts):
    """Name some problems of one subpackage."""
    return parts


def common():
    """Objects that several problems take."""
    rbf = k.RBF(1.0)
    spectrum = s.nystrom(rbf, rng.normal(size=(12, 2)), rank=4)
    K = rbf(X)
    features, values = g.eigenpairs(FEATURES, VALUES)
    one = g.MercerNormal(FEATURES, VALUES, 0.1, residual=REST)
    several = g.MatrixMercerNormal(FEATURES, VALUES, 0.1, jnp.eye(2))
    return types.SimpleNamespace(**locals())


def kernels(o):
    line = dict(lengthscale=1.0, variance=1.0)
    deep = dict(depth=1, activation="relu", weight_var=2.0, bias_var=0.1, skip=0.5, slope=0.2,
                order=8, block_bytes=1 << 20, layernorm=False, readout_bias=True)  # fmt: skip
    small = k.NNGP(1)

    def gram(make):
        return lambda **given: make(**given)(X)

    found = {name: (gram(getattr(k, name)), line)
             for name in ("RBF", "Matern12", "Matern32", "Matern52")}  # fmt: skip
    found |= {
        f"{name} module": (gram(functools.partial(getattr(k, name), **depth)),
                           dict(activation=eqx.nn.PReLU(0.2)))
        for name, depth in (("NNGP", {"depth": 1}), ("NTK", {"depth": 1}), ("DEQ", {}))
    }  # fmt: skip
    found |= {
        "Constant": (gram(k.Constant), dict(variance=1.0)),
        "White": (gram(k.White), dict(variance=1.0)),
        "Periodic": (gram(k.Periodic), line | {"period": 1.0}),
        "RationalQuadratic": (gram(k.RationalQuadratic), line | {"alpha": 1.0}),
        "Linear": (gram(k.Linear), dict(variance=1.0, bias=0.1)),
        "NNGP": (gram(k.NNGP), deep),
        "NTK": (gram(k.NTK), deep | {"train": "all", "train_bias": True}),
        "DEQ": (gram(k.DEQ), dict(activation="erf", weight_var=0.5, input_var=1.0, bias_var=0.1,
                                  train="last", slope=0.2, order=8, block_bytes=1 << 20)),
        "Kernel": (o.rbf, dict(X=X, Z=Z)),
        "Kernel.diag": (o.rbf.diag, dict(X=X)),
        "Kernel.at": (lambda X: o.rbf.at(X).dense(), dict(X=X)),
        "Kernel.__mul__": (lambda other: (o.rbf * other)(X), dict(other=2.0)),
        "Kernel.__add__": (lambda other: (o.rbf + other)(X), dict(other=2.0)),
        "Kernel.__pow__": (lambda exponent: (o.rbf**exponent)(X), dict(exponent=2)),
        "Kernel.on": (lambda columns: o.rbf.on(columns)(X), dict(columns=1)),
        "Kernel.warp": (lambda function: o.rbf.warp(function)(X), dict(function=half)),
        "NTK.both": (k.NTK(1).both, dict(X=X, Z=Z)),
        "NNGP.series_error": (small.series_error, dict(X=X)),
        "adapt": (lambda **given: k.adapt(**given)(X), dict(kernel=o.rbf.gram)),
        "critical_point": (k.critical_point, dict(activation="erf", bias_var=0.1,
                                                  bracket=(0.01, 100.0), slope=0.2, order=8)),
        "empirical_nngp": (k.empirical_nngp, dict(apply=apply, params=W, X=X, Z=Z)),
        "empirical_ntk": (k.empirical_ntk, dict(apply=apply, params=W, X=X, Z=Z, outputs="full",
                                               block_bytes=999)),
        "empirical_apjn": (k.empirical_apjn, dict(apply=layered, params=[jnp.eye(2)] * 2, X=X,
                                                  start=0, stop=2, key=0, probes=2)),
        "jacobian_flow": (k.jacobian_flow, dict(network=small, K0=1.0, depth=2)),
        "random_features": (k.random_features, dict(kernel=small, columns=2, units=3, key=0)),
        "RandomFeatures.features": (k.random_features(small, 2, 3, key=0).features, dict(X=X)),
        "relative_distance": (k.relative_distance, dict(K=o.K, reference=o.K)),
    }  # fmt: skip
    return found


def spectrum(o):
    f = s.functionals(o.spectrum, 2)
    fourier = s.fourier(lambda j: (1.0 + j) ** -2, 3)
    modified = s.modify(s.nystrom(o.rbf, X), half)
    ball = s.sphere(o.rbf, 3, 3, radius=1.0)
    unit = rng.normal(size=(6, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    neural = s.neural(o.rbf, X, 2, key=0, steps=2, batch=4)
    found = {
        "nystrom": (s.nystrom, dict(kernel=o.rbf, X_ref=X, rank=2, rtol=1e-9)),
        "fourier": (s.fourier, dict(
            values_fn=lambda j: (1.0 + j) ** -2, modes=3, period=2.0)),
        "functionals": (s.functionals, dict(spectrum=o.spectrum, k=2)),
        "Functionals.at": (f.at, dict(kernel=o.rbf)),
        "Functionals.features": (f.features, dict(kernel=o.rbf, X=X)),
        "Functionals.columns": (f.columns, dict(F=FEATURES, F_ref=rng.normal(size=(12, 4)))),
        "gaussian_rbf": (s.gaussian_rbf, dict(lengthscale=1.0, scale=1.0, modes=3)),
        "levels": (s.levels, dict(values=VALUES, degeneracy=np.ones(4), tail=0.1)),
        "levels of a spectrum": (lambda at=None: s.levels(o.spectrum, at=at), dict(at=X)),
        "Levels.__mul__": (s.levels(VALUES).__mul__, dict(scale=2.0)),
        "mode_posterior": (s.mode_posterior, dict(kernel=modified, y=y, ridge=0.1)),
        "rotated_density": (s.rotated_density, dict(kernel=modified, y=y, ridge=0.1)),
        "modify": (lambda **given: s.modify(**given)(X),
                   dict(spectrum=o.spectrum, g=half, tail=1.0)),
        "modify_kernel": (lambda **given: s.modify_kernel(**given)(X),
                          dict(kernel=o.rbf, X_ref=Z, g=half, tail=1.0)),
        "neural": (s.neural, dict(
            kernel=o.rbf, X=X, modes=2, key=0, apply=lambda params, X: jnp.tanh(X @ params),
            params=np.eye(2), optimizer=optax.sgd(0.1), steps=2, batch=4, rows=6)),
        "NeuralSpectrum.project": (neural.project, dict(X_ref=Z)),
        "sphere": (s.sphere, dict(kernel=o.rbf, dim=3, degree=3, radius=1.0, explicit=False)),
        "SphereSpectrum.residual": (ball.residual, dict(X=unit)),
        "SphereSpectrum.count": (ball.count, dict(above=0.01)),
        "SphereSpectrum.level": (ball.level, dict(X=unit, Z=unit[:2], i=1)),
        "FourierSpectrum.features": (fourier.features, dict(X=X[:, :1])),
        "FourierSpectrum.residual_cov": (fourier.residual_cov, dict(X=X[:, :1], Z=Z[:, :1])),
        "FourierSpectrum.warn_if_shared": (fourier.warn_if_shared, dict(X=X[:, :1])),
        "maps.combine": (
            lambda maps: s.maps.combine(maps)(VALUES), dict(maps=s.maps.scale(0.5))),
    }  # fmt: skip
    found["NystromSpectrum.residual_cov"] = (o.spectrum.residual_cov, dict(X=X, Z=Z))
    for name in ("features", "residual"):
        found[f"NystromSpectrum.{name}"] = (getattr(o.spectrum, name), dict(X=X))
    found["Spectrum.at"] = (lambda X: o.spectrum.at(X).variance(), dict(X=X))
    found["Spectrum.power"] = (o.spectrum.power, dict(y=y, X=X))
    given = dict(
        flatten=dict(r=2), hard_cutoff=dict(cutoff=0.3),
        lift=dict(r=2), polynomial_cutoff=dict(cutoff=0.3, p=2.0), power=dict(alpha=1.5),
        ridge=dict(s=0.1), scale=dict(c=0.5), soft_cutoff=dict(cutoff=0.3, width=0.1),
        table=dict(values=VALUES),
    )  # fmt: skip
    for name, arguments in given.items():
        make = getattr(s.maps, name)
        found[f"maps.{name}"] = (lambda make=make, **a: make(**a)(VALUES), arguments)
    return found


def gp(o):
    condition = g.condition(o.rbf, X, y, 0.1)
    readout = g.readout_posterior(FEATURES, y, 0.1)

    def bernoulli(f):
        import numpyro.distributions as dist

        return dist.Bernoulli(logits=f)

    here = o.spectrum.at(X)
    labels = (y > 0).astype(float)
    laplace = g.LaplaceMarginal(o.one, bernoulli)
    found = {
        "condition": (g.condition, dict(kernel=o.rbf, X=X, y=y, ridge=0.1, mean=lambda X: X[:, 0])),
        "Posterior.mean": (condition.mean, dict(Z=Z)),
        "Posterior.cov": (condition.cov, dict(Z=Z)),
        "Posterior.predict": (condition.predict, dict(Z=Z, noise=True)),
        "Posterior.sample": (condition.sample, dict(key=0, Z=Z, draws=2)),
        "eigenpairs": (g.eigenpairs, dict(features=FEATURES, values=VALUES, residual=REST)),
        "PriorAt": (lambda **a: g.PriorAt(**a).dense(), dict(
            features=FEATURES, values=VALUES, residual=REST, tail=0.1, orthonormal=True)),
        "PriorAt.cross": (here.cross, dict(n=2)),
        "PriorAt.eigenpairs": (here.eigenpairs, dict(cutoff=2)),
        "marginal": (lambda **a: g.marginal(**a).variance,
                     dict(prior=o.spectrum, X=X, ridge=0.1, scale=2.0,
                          eigen=here.eigenpairs())),
        "matrix_marginal": (lambda **a: g.matrix_marginal(**a).variance,
                            dict(prior=o.spectrum, X=X, ridge=0.1, order=np.eye(2),
                                 factor=np.eye(2))),
        "maximise_evidence": (g.maximise_evidence, dict(
            make_kernel=lambda theta: k.RBF(theta["l"]), theta0={"l": 1.0}, X=X, y=y, ridge=0.1,
            mean=0.5, bounds=(0.01, 100.0), restarts=1, key=0)),
        "maximise_evidence mean": (
            lambda mean, theta0, bounds: g.maximise_evidence(
                lambda theta: k.RBF(theta["l"]), theta0, X, y, mean=mean, bounds=bounds,
                restarts=0),
            dict(mean=lambda theta, X: theta["mean"] + X[:, 0],
                 theta0={"l": 1.0, "ridge": 0.1, "mean": 0.0},
                 bounds=({"l": 0.01, "ridge": 0.01}, {"l": 100.0, "ridge": 1.0}))),
        "readout_posterior": (g.readout_posterior, dict(F=FEATURES, y=y, ridge=0.1, scale=1.0)),
        "LinearPosterior.predict": (readout.predict, dict(F_new=FEATURES[:2], ridge=0.1)),
        "LinearPosterior.sample": (readout.sample, dict(key=0, draws=2)),
        "MercerNormal": (lambda **a: g.MercerNormal(**a).log_prob(y), dict(
            features=FEATURES, values=VALUES, ridge=0.1, residual=REST, loc=0.5, scale=1.0,
            orthonormal=True)),
        "MatrixMercerNormal": (lambda **a: g.MatrixMercerNormal(**a).log_prob(BOTH), dict(
            features=FEATURES, values=VALUES, ridge=0.1, order=np.eye(2), residual=REST, loc=0.5,
            factor=np.eye(2))),
        "EffectiveNormal": (lambda **a: g.EffectiveNormal(**a).log_prob(y), dict(
            loc=np.zeros(6), noise=np.full(6, 0.2), ridge=REST, eliminated=np.ones(6))),
        "LaplaceMarginal": (lambda **a: g.LaplaceMarginal(**a).log_prob(labels),
                            dict(prior=o.one, likelihood=bernoulli)),
        "LaplaceMarginal.loo": (laplace.loo, dict(value=labels, order=11)),
    }  # fmt: skip
    for name in ("log_prob", "mode", "posterior", "correction", "krige"):
        found[f"LaplaceMarginal.{name}"] = (getattr(laplace, name), dict(value=labels))
    for name in ("log_prob", "loo", "krige"):
        found[f"MercerNormal.{name}"] = (getattr(o.one, name), dict(value=y))
        found[f"MatrixMercerNormal.{name}"] = (getattr(o.several, name), dict(value=BOTH))
    found["MatrixMercerNormal.solve"] = (o.several.solve, dict(value=BOTH))
    found["MatrixMercerNormal.split"] = (
        lambda **a: o.several.split(**a)[1].mean,
        dict(cutoff=2, rule="exact", n=6, max_dense=99),
    )
    found["MercerNormal.prior_variance"] = (o.one.prior_variance, dict(start=2))
    found["MercerNormal.sample"] = (o.one.sample, dict(key=0, sample_shape=(2,)))
    found["MercerNormal.solve"] = (o.one.solve, dict(B=X))
    found["MercerNormal.colour"] = (o.one.colour, dict(white=rng.normal(size=6)))
    found["MercerNormal.shift"] = (lambda mean: o.one.shift(mean).log_prob(y), dict(mean=y))
    found["MercerNormal.split"] = (
        lambda **a: [part.mean for part in o.one.split(**a)],
        dict(cutoff=2, rule="exact", n=6, max_dense=99),
    )
    return found


def networks(o):
    deep, bow = net.DeepLinear((2,), ridge=0.1), net.Rainbow((2, 2))
    weights, hidden = deep.init(0, 2), bow.init(0, 2)
    white = [np.ones(shape) for shape in bow.white_shapes(2)]
    return {
        "DeepLinear": (net.DeepLinear, dict(
            widths=(2,), ridge=0.1, outputs=1, weight_scales=1.0, parametrisation="mean_field",
            richness=1.0)),
        "DeepLinear.kernel": (deep.kernel, dict(X=X, Z=Z)),
        "DeepLinear.input_kernel": (deep.input_kernel, dict(inputs=2)),
        "DeepLinear.init": (deep.init, dict(key=0, inputs=2)),
        "DeepLinear.white_shapes": (deep.white_shapes, dict(inputs=2)),
        "DeepLinear.weights": (deep.weights, dict(
            white=[np.ones(shape) for shape in deep.white_shapes(2)], inputs=2)),
        "DeepLinear.layers": (deep.layers, dict(weights=weights, X=X)),
        "DeepLinear.apply": (deep.apply, dict(weights=weights, X=X)),
        "Rainbow": (lambda **a: net.Rainbow(**a).init(0, 2), dict(
            widths=(2, 2), cov=[np.eye(2), np.eye(2)], activations="tanh", jitter=0.1)),
        "Rainbow.init": (bow.init, dict(key=0, inputs=2)),
        "Rainbow.white_shapes": (bow.white_shapes, dict(inputs=2)),
        "Rainbow.weights": (bow.weights, dict(white=white, inputs=2)),
        "Rainbow.apply": (bow.apply, dict(weights=hidden, X=X)),
        "Rainbow.layers": (bow.layers, dict(weights=hidden, X=X)),
        "procrustes": (net.procrustes, dict(H=X, H_new=X[::-1])),
        "resample": (net.resample, dict(
            weights=hidden, X=X, activations="tanh", key=0, widths=(3, 3), readout=np.ones((1, 2)),
            X_test=Z)),
        "train": (net.train, dict(
            apply=apply, params=W, X=X, y=y, optimizer=optax.sgd(0.01), epochs=2, key=0, batch=3,
            every=1)),
        "weight_covariance": (net.weight_covariance, dict(W=X)),
    }  # fmt: skip


def dynamics(o):
    S = d.preconditioner(o.K, half, rank=2)
    linear = d.linear_dynamics(o.K, step_size=0.1)
    step = d.gradient_descent(loss, 0.1)
    found = {
        "dual": (lambda **a: d.run(d.dual(**a), jnp.zeros(6), 2, 0), dict(
            K=o.K, y=y, S=np.eye(6), step_size=0.1, ridge=0.1, tol=0.1)),
        "ensemble": (d.ensemble, dict(
            tangent=k.NTK(1), prior=k.NNGP(1), X=X, y=y, X_new=Z, t=2.0, S=np.eye(6),
            step_size=0.01, weight_decay=0.1)),
        "gradient_descent": (lambda **a: d.run(d.gradient_descent(**a), W, 2, 0),
                             dict(loss=loss, step_size=0.1)),
        "gradient_flow": (lambda **a: d.run(d.gradient_flow(**a), W, 2, 0),
                          dict(loss=loss, dt=0.1)),
        "landmark_preconditioner": (d.landmark_preconditioner, dict(
            kernel=o.rbf, X=X, landmarks=Z, g=half, rank=2)),
        "linear_dynamics": (d.linear_dynamics, dict(
            K=o.K, S=np.eye(6), step_size=0.1, ridge=0.1, weight_decay=0.1)),
        "LinearDynamics.residual": (linear.residual, dict(r0=y, t=2.0)),
        "LinearDynamics.remaining": (linear.remaining, dict(t=2.0)),
        "LinearDynamics.change": (linear.change, dict(r0=y, t=2.0, K_new=o.K[:2])),
        "LinearDynamics.smoother": (linear.smoother, dict(t=2.0, K_new=o.K[:2])),
        "LinearDynamics.count": (linear.count, dict(r0=y, tol=0.5, most=1000)),
        "pgd_loss": (d.pgd_loss, dict(outputs=y, y=y[::-1], S=np.eye(6))),
        "power_iteration": (d.power_iteration, dict(K=o.K, S=S, iterations=3, key=0)),
        "preconditioned": (lambda **a: d.run(d.preconditioned(**a), W, 2, 0), dict(
            apply=apply, X=X, y=y, S=np.eye(6), step_size=0.01, slope=lambda f, y: f - y, batch=3,
            tol=0.1)),
        "preconditioner": (d.preconditioner, dict(K=o.K, g=half, rank=2, ridge=0.1, rtol=1e-9)),
        "Preconditioner.coverage": (S.coverage, dict(residual=y)),
        "Preconditioner.__matmul__": (S.__matmul__, dict(r=y)),
        "run": (d.run, dict(
            algorithm=step, x0=W, steps=4, key=0, every=2, allow_divergence=True)),
        "optax_descent": (lambda **a: d.run(d.optax_descent(**a), W, 2, 0), dict(
            loss=lambda params, rows=None: loss(params), optimizer=optax.sgd(0.1),
            batches=lambda key: jnp.zeros((2, 3)))),
        "scale_by_output_preconditioner": (d.scale_by_output_preconditioner, dict(S=np.eye(6))),
        "sgd": (lambda **a: d.run(d.sgd(**a), W, 2, 0), dict(
            apply=apply, X=X, y=y, step_size=0.01, batch=3, tol=0.1)),
        "stability_limit": (d.stability_limit, dict(
            K=o.K, S=np.eye(6), ridge=0.1, weight_decay=0.1)),
        "step_count": (d.step_count, dict(rates=VALUES, step_size=0.1, tol=0.01)),
    }  # fmt: skip
    return found


def coarse(o):
    whole = dict(values=VALUES, n=20.0, ridge=0.1)
    levels = whole | {"degeneracy": np.ones(4), "tail": 0.1}
    law = rg.power_law(1.0)
    found = {name: (getattr(rg, name), levels)
             for name in ("effective_ridge", "learnability", "running_learnability")}  # fmt: skip
    for name in ("dressed_ridge", "solve_ridge"):
        found[name] = (getattr(rg, name), levels | {"cutoff": 2})
    universal = {name: v for name, v in levels.items() if name != "n"} | {"cutoff": 2}
    rows = dict(features=FEATURES, values=VALUES, n=20.0, weights=EVEN)
    found |= {
        "universal_ridge": (rg.universal_ridge, universal),
        "two_stage_ridge": (rg.two_stage_ridge, levels | {"cutoff": 2, "rule": "universal"}),
        "cutoff": (rg.cutoff, levels | {"rule": "running", "threshold": 0.5, "scan": "ir"}),
        "cutoff posterior": (rg.cutoff, dict(
            values=VALUES, n=6.0, ridge=0.1, rule="posterior", features=FEATURES, residual=REST)),
        "flow": (rg.flow, dict(
            values=VALUES, n=6.0, ridge=0.1, rule="running", threshold=0.5, features=FEATURES,
            residual=REST, y=y, degeneracy=np.ones(4), tail=0.1, cutoffs=np.array([0, 2]))),
        "flow at": (
            lambda n=6.0, at=None: rg.flow(o.spectrum, n, 0.1, at=at), dict(n=6.0, at=X)),
        "conditional_ridge": (rg.conditional_ridge, dict(
            Phi=FEATURES, values=VALUES, ridge=0.1, cutoff=2, rule="regression",
            modes=np.array([0]), weights=EVEN)),
        "data_weights": (rg.data_weights, dict(noise=0.1 + y**2, weights=EVEN)),
        "dressed_local_ridge": (rg.dressed_local_ridge, rows | {"ridge": 0.1, "cutoff": 2}),
        "feature_cumulants": (rg.feature_cumulants, dict(
            Phi=FEATURES, cutoff=2, weights=EVEN)),
        "integrate_modes": (rg.integrate_modes, dict(zip(
            ("root", "rest"), o.one.split(2), strict=True)) | {"y": y}),
        "local_ridge": (rg.local_ridge, dict(spectrum=o.spectrum, X=X, ridge=0.1, cutoff=2)),
        "posterior_learnability": (rg.posterior_learnability, dict(
            features=FEATURES, values=VALUES, ridge=0.1, residual=REST)),
        "power_law": (rg.power_law, dict(alpha=1.0, first=1.0)),
        "PowerLaw": (rg.PowerLaw, dict(alpha=1.0, first=1.0)),
        "PowerLaw.tail": (law.tail, dict(cutoff=3.0)),
        "PowerLaw.values": (law.values, dict(modes=3)),
        "PowerLaw.levels": (law.levels, dict(modes=3)),
        "PowerLaw.rescaled_ridge": (law.rescaled_ridge, dict(cutoff=3.0, ridge=0.1)),
        "PowerLaw.crossover": (law.crossover, dict(ridge=0.1)),
        "PowerLaw.error": (law.error, dict(n=20.0, ridge=0.1)),
        "PowerLaw.ridge_error": (law.ridge_error, dict(n=20.0, ridge=0.1)),
        "PowerLaw.ridgeless_error": (law.ridgeless_error, dict(n=20.0)),
        "PowerLaw.stop": (law.stop, dict(n=20.0, ridge=0.1, threshold=0.5)),
        "PowerLaw.mismatched_exponent": (law.mismatched_exponent, dict(beta=1.5)),
        "reweighted_modes": (rg.reweighted_modes, rows | {"noise": 0.1, "y": y}),
        "scale_mixture_ridge": (rg.scale_mixture_ridge, dict(
            values=VALUES, n=20.0, ridge=0.1, squares=np.ones(6), cutoff=2, weights=EVEN)),
        "Coarse": (rg.Coarse, dict(cutoff=2, rule="exact", n=6, max_dense=99, centered=True)),
        "coarsen": (lambda model=None, y=None: rg.coarsen(model, y=y), dict(
            model=half, y=rg.Coarse(2))),
    }  # fmt: skip
    return found


def data(o):
    load = dict(name="digits", n=10, task="even_odd", key=0)
    return {"load": (brg.data.load, load), "one_target": (brg.data.one_target, dict(X=X, y=y))}


LOWER = dict(data=data, kernels=kernels, spectrum=spectrum, gp=gp, networks=networks,
             dynamics=dynamics, rg=coarse)  # fmt: skip
