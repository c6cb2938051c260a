# SPDX-License-Identifier: Apache-2.0
"""The smallest problem of each public function, in the upper layers; see `fuzz_problems`."""

import inspect
import pathlib
import tempfile

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.infer as infer
import xarray as xr
from fuzz_problems import BOTH, EVEN, FEATURES, POWER, VALUES, X, Z, rng, y
from sampling import from_prior

import bayesrg as brg

t, f, k, net = brg.theory, brg.diagnostics.feature, brg.kernels, brg.networks
W = [rng.normal(size=(3, 2)), rng.normal(size=(3, 3))]
OMEGA = np.array([[1.0, 0.2], [0.2, 1.0]])


def line(X, y=None, *, width=1.0):
    """Smallest model: one slope."""
    slope = numpyro.sample("slope", dist.LogNormal(0.0, width))
    numpyro.sample("y", dist.Normal(slope * X[:, 0], 1.0), obs=y)


def shift(X, y=None, *, lam=1.0):
    """Smallest model with an action: one layer that adds a number to every feature."""
    b = numpyro.sample("b", dist.Normal())
    moves = jnp.full((1, *X.shape), b)
    paths = brg.dynamics.Paths(jnp.concatenate([X[None], X + moves]), moves)
    brg.inference.action_factor("action", paths, lam)
    numpyro.sample("y", dist.Normal(X[:, 0] + b, 1.0), obs=y)


def theory(o):
    levels = dict(values=VALUES, n=20.0, ridge=0.1, degeneracy=np.ones(4), tail=0.1)
    curve = levels | {"power": POWER, "label_noise": 0.1}
    moments = t.moments(FEATURES, y)
    population = t.gaussian_population(VALUES, POWER)
    networks = dict(weights=W, activations="tanh", Omega0=OMEGA, mean0=np.array([0.1, 0.0]))
    annealed = dict(values=VALUES, widths=(3,), activations="tanh")
    several = dict(moments=t.moments(FEATURES, BOTH), n=20.0, ridge=0.1)
    equivalent = t.equivalent_kernel(VALUES, 20.0, 0.1)
    return {
        "Activation": (lambda **given: t.hermite(t.Activation(**given), 1.0), dict(
            function=jnp.tanh, kinks=(0.0,))),
        "Activation closed": (
            lambda closed=None: t.hermite(t.Activation(jnp.tanh, closed=closed), 1.0),
            dict(closed=lambda mean, variance: (mean, mean + 1, 0 * mean, mean + variance))),
        "annealed_curve": (t.annealed_curve, annealed | dict(n=20.0, ridge=0.1, label_noise=0.1)),
        "coarse_learning_curve": (
            t.coarse_learning_curve, curve | {"cutoff": 2, "rule": "universal"}),
        "cross_linearise": (t.cross_linearise, networks | dict(
            teacher_weights=W, teacher_activations="erf", paired=[2, 2], method="closure")),
        "equivalent_kernel": (t.equivalent_kernel, dict(values=VALUES, n=20.0, ridge=0.1)),
        "EquivalentKernel": (equivalent, dict(features=FEATURES, others=FEATURES)),
        "EquivalentKernel.error": (equivalent.error, dict(power=POWER)),
        "EquivalentKernel.coefficients": (equivalent.coefficients, dict(target=POWER)),
        "EquivalentKernel.correction": (equivalent.correction, dict(
            features=FEATURES, target=POWER, weights=EVEN)),
        "feature_population": (t.feature_population, dict(
            features=FEATURES, y=y, replace=False)),
        "finite_population": (t.finite_population, dict(
            prior=o.spectrum, X=X, y=y, cutoff=2, replace=False)),
        "gaussian_population": (t.gaussian_population, dict(
            values=VALUES, coefficients=POWER, cutoff=2)),
        "gcv": (t.gcv, dict(features=X, y=y, ridge=0.1)),
        "hermite": (t.hermite, dict(activation="tanh", variance=1.0, mean=0.1)),
        "learning_curve": (t.learning_curve, curve),
        "learning_curve_mc": (t.learning_curve_mc, dict(
            population=population, n=3, ridge=0.1, label_noise=0.1, key=0, draws=2, poisson=False,
            batch=2)),
        "linearise": (t.linearise, networks | dict(
            psi0=np.array([0.1, 0.2]), method="closure", Ey=0.1)),
        "moments": (t.moments, dict(F=FEATURES, y=y, centre=False, rank_tol=1e-9)),
        "optimal_ridge": (t.optimal_ridge, dict(
            moments=moments, n=20.0, criterion="test", bounds=(0.01, 10.0))),
        "optimal_ridge evidence": (
            lambda noise_variance=None: t.optimal_ridge(
                moments, 20.0, "evidence", (0.01, 10.0), noise_variance=noise_variance),
            dict(noise_variance=0.1)),
        "population_moments": (t.population_moments, dict(
            Omega=OMEGA, psi=np.array([0.1, 0.2]), Ey2=1.0, rank_tol=1e-9)),
        "ridge_equivalent": (t.ridge_equivalent, dict(
            moments=moments, n=20.0, ridge=0.1, label_noise=0.1, noise_variance=0.1)),
        "ridge_equivalent several": (t.ridge_equivalent, several | dict(
            label_noise=np.array([0.1, 0.2]), noise_variance=0.1)),
        "moments several": (t.moments, dict(F=FEATURES, y=BOTH)),
        "sample_curve": (t.sample_curve, dict(
            K=X @ X.T, y=y, n=3.0, ridge=0.1, local=True, block=len(X))),
        "spectral_density": (t.spectral_density, dict(values=VALUES, n=20.0, grid=VALUES)),
        "spectral_moments": (t.spectral_moments, dict(
            values=VALUES, power=POWER, label_noise=0.1, rank_tol=1e-9)),
        "target_power": (t.target_power, dict(spectrum=o.spectrum, X=X, y=y, modes=2)),
        "TargetPower.extend": (
            t.target_power(o.spectrum, X, y, 2).extend, dict(values=VALUES)),
        "surrogate_features": (t.surrogate_features, dict(
            weights=W, layers=t.linearise(W, "tanh", OMEGA), X=X, white=np.ones((2, len(X), 3)))),
    }  # fmt: skip


def deep_linear(o):
    deep, lin = t.deep_linear, net.DeepLinear((3,), ridge=0.1)
    two = net.DeepLinear((3,), ridge=0.1, outputs=2)
    conv = deep.ConvLinear((2,), (2,), ridge=0.1)
    images = rng.normal(size=(4, 1, 3))
    given = dict(net=lin, X=X, y=y, kernel=k.Linear(0.5))
    exact = deep.exact(lin, X, y)
    squares, normals = np.array([3.0, 2.0]), np.array([0.3])  # of two outputs in layer 1
    latents = {"c1": np.array([1.0, 2.0]), "t1": np.array([0.3])}
    factor = deep.conv_factor(conv, 3, latents)
    order = lambda c1, t1=None: deep.order_parameter((3,), 2, {"c1": c1, "t1": t1})  # noqa: E731
    return {
        "bartlett_sizes": (deep.bartlett_sizes, dict(widths=(3,), outputs=2)),
        "check_observed": (deep.check_observed, dict(
            net=two, X=X, y=BOTH, weights=True, force=False)),
        "conv_covariance": (deep.conv_covariance, dict(net=conv, X=images, factor=factor)),
        "conv_factor": (deep.conv_factor, dict(net=conv, inputs=3, latents=latents)),
        "conv_sizes": (deep.conv_sizes, dict(net=conv, inputs=3)),
        "noiseless": (deep.noiseless, dict(ridge=0.1)),
        "order_of_weights": (deep.order_of_weights, dict(net=two, weights=two.init(0, 2))),
        "order_parameter": (deep.order_parameter, dict(
            widths=(3,), outputs=2, latents=dict(c1=squares, t1=normals))),
        "order_parameter latents": (order, dict(c1=squares, t1=normals)),
        "ConvLinear": (deep.ConvLinear, dict(
            channels=(2,), masks=(2,), strides=(1,), ridge=0.1, outputs=1, weight_scales=1.0)),
        "ConvLinear.init": (conv.init, dict(key=0, inputs=(1, 3))),
        "ConvLinear.white_shapes": (conv.white_shapes, dict(inputs=(1, 3))),
        "ConvLinear.weights": (conv.weights, dict(
            white=[np.ones(shape) for shape in conv.white_shapes((1, 3))], inputs=(1, 3))),
        "ConvLinear.apply": (conv.apply, dict(weights=conv.init(0, (1, 3)), X=images)),
        "ConvLinear.local_kernels": (conv.local_kernels, dict(X=images, Z=images[:2])),
        "evidence": (deep.evidence, dict(net=two, X=X, y=BOTH, method="importance_laplace", key=0,
                                         draws=100)),
        "exact": (deep.exact, given),
        "Exact.predict": (exact.predict, dict(X_new=Z)),
        "saddle": (deep.saddle, given | {"occam": True}),
        "infinite_depth": (deep.infinite_depth, dict(width=3.0, points=5.0, energy=1.0)),
        "leading_log_evidence": (deep.leading_log_evidence, dict(
            energy=1.0, effective_depth=0.5, points=5.0)),
        "perturbative_kernel": (deep.perturbative_kernel, dict(net=lin, X=X, y=y, level=1)),
        "prior_density": (deep.prior_density, dict(widths=np.array([3.0, 4.0]), log_q=0.5)),
        "wide_and_deep": (deep.wide_and_deep, dict(energy=1.0, effective_depth=0.5)),
    }  # fmt: skip


def tree():
    """Draws of a deep linear network of one hidden layer, and of others, made up."""
    draws = {"amplitude": np.exp(rng.normal(size=(2, 5))), "noise": np.exp(rng.normal(size=(2, 5))),
             "slope": np.exp(rng.normal(size=(2, 5))), "Q": np.ones((2, 5, 1, 1)),
             "w1": rng.normal(size=(2, 5, 3, 2)), "w2": rng.normal(size=(2, 5, 1, 3)),
             "z1": rng.normal(size=(2, 5, 3, 2)), "z2": rng.normal(size=(2, 5, 1, 3))}  # fmt: skip
    half = rng.normal(size=(2, 5, 1, 6, 6))
    draws["feature_kernel"] = half @ half.swapaxes(-1, -2)
    dims = {"Q": ("output", "output_bis"), "feature_kernel": ("layer", "point", "point_bis"),
            "y": ("point",), "X": ("point", "feature")}  # fmt: skip
    groups = {"posterior": draws, "prior": draws, "observed_data": {"y": y},
              "constant_data": {"X": X}}  # fmt: skip
    return brg.io.to_datatree(groups, dims, attrs={"hyper": '{"width": 1.0}'})


def diagnostics(o):
    dt, deep, bow = tree(), net.DeepLinear((3,), ridge=0.1), net.Rainbow((3,))
    measured = f.measure_deep_linear(dt, deep, modes=3)
    return {
        "posterior_flow": (brg.diagnostics.posterior_flow, dict(
            dt=dt, spectrum=VALUES, scale="amplitude", noise="noise", n=20.0,
            rule="running", threshold=0.5, cutoffs=np.array([1, 2]))),
        "posterior_flow values_fn": (
            lambda values_fn=None: brg.diagnostics.posterior_flow(
                dt, VALUES, values_fn=values_fn, n=20.0),
            dict(values_fn=lambda draw: (draw["amplitude"] * VALUES, 0.1))),
        "feature.compare": (f.compare, dict(dt=measured)),
        "feature.diagnose": (f.diagnose, dict(dt=dt, var_names=["amplitude"], allow_weights=False)),
        "feature.kernels": (f.kernels, dict(
            apply=lambda params, X: [X @ params], params=np.eye(2), X=X, lead=(),
            max_bytes=1 << 20)),
        "feature.layer_identity": (f.layer_identity, dict(dt=measured, group="feature_learning")),
        "feature.measure": (f.measure, dict(
            dt=dt, Y=y, ridge=0.1, estimator="draw", prior="prior", modes=3)),
        "feature.measure_deep_linear": (f.measure_deep_linear, dict(
            dt=dt, net=deep, kernel="draw", key=0, X=X, Y=y, ridge=0.1, prior="prior", modes=3,
            keep_kernels=False, max_bytes=1 << 20)),
        "layers.add_kernels": (brg.diagnostics.layers.add_kernels, dict(
            dt=dt, net=bow, X=X, max_bytes=1 << 20)),
    }  # fmt: skip


def inference(o):
    dt = tree()
    dt["posterior"] = xr.DataTree(dt["posterior"].to_dataset()[["slope"]])
    dt.attrs = {"hyper": "{}"}
    steps = dict(model=line, data=(X, y), key=0, draws=4, warmup=2, chains=1)
    grid = brg.inference.grid_posterior(line, (X, y), {"slope": np.array([0.1, 1.0, 2.0])})
    net = brg.networks.Residual(2, 2, outputs=1)
    paths = net.paths(net.init(0, X.shape[1]), X)
    acting = steps | dict(model=shift, chains=2, strength="lam", sampler=infer.NUTS)
    return {
        "fit": (brg.fit, steps | dict(
            block=3, thin=2, store=("slope",), log_likelihood=True, max_bytes=10**6,
            sampler=infer.NUTS, prior=2, progress=False, devices=1, keep_blocks=False,
            accept=("versions",), after_block=lambda facts: None)),
        "coarse_grain": (brg.inference.coarse_grain, steps | dict(
            thin=2, max_bytes=10**6, threshold=0.5, prepare=lambda data: {}, progress=False,
            say=str, devices=1,
            accept=("versions",), origin={}, after_block=lambda facts: None)),
        "estimate": (brg.inference.estimate, dict(
            model=line, data=(X, y), draws=4, warmup=2, chains=1, block=3, thin=2,
            store=("slope",), log_likelihood=True, prior=2, devices=1)),
        "fit path": (lambda path: brg.fit(**steps, path=path, progress=False),
                     dict(path="run")),
        "GridPosterior.expect": (grid.expect, dict(function=lambda theta: theta["slope"])),
        "predict": (brg.predict, dict(dt=dt, model=line, X_new=Z, key=0, site="y")),
        "path_evidence": (brg.inference.path_evidence, steps | dict(
            chains=2, crowding=3.0, sampler=infer.NUTS)),
        "path_evidence tempered": (
            lambda tempered=None: brg.inference.path_evidence(**steps, tempered=tempered),
            dict(tempered=["y"])),
        "action_factor": (brg.inference.action_factor, dict(
            name="action", paths=paths, lam=1.0, kind="kinetic", scale_by_n=False)),
        "strength_evidence": (brg.inference.strength_evidence, acting | dict(
            lams=np.array([0.5, 1.0]), crowding=3.0)),
        "strength_for_action": (brg.inference.strength_for_action, acting | dict(
            target=0.5, start=1.0, runs=2)),
        "sbc": (brg.inference.sbc, dict(
            model=line, X=X, quantities={"slope": lambda sites, y, key: sites["slope"]}, key=0,
            simulations=2, draws=2, warmup=1, thin=1, truth=line,
            truth_hyper={"width": 1.0}, observed="y", sampler=infer.NUTS)),
        "normal_start": (brg.inference.normal_start, dict(
            model=line, data=(X, y), key=0, steps=3, learning_rate=0.1)),
        "output_law": (brg.inference.output_law, dict(
            outputs=Z[:, :1], y=np.arange(len(Z)) % 2.0, likelihood="bernoulli", noise=0.1)),
        "output_law normal": (
            lambda **given: brg.inference.output_law(**given, likelihood="normal"),
            dict(outputs=Z, y=Z, noise=0.1)),
        "sample_weights": (
            lambda **given: numpyro.handlers.seed(brg.inference.sample_weights, 0)(**given),
            dict(net=brg.networks.Residual(3, 2, outputs=1), inputs=2, scales={"A": 0.5})),
        "grid_posterior": (brg.inference.grid_posterior, dict(
            model=line, data=(X, y), grid={"slope": np.array([0.1, 1.0, 2.0])})),
    }  # fmt: skip


def io(o):
    dt, flow = tree(), brg.rg.flow(VALUES, 6.0, 0.1)
    file = brg.io.save(dt, pathlib.Path(tempfile.mkdtemp()) / "result.nc")
    runs = [f"{tempfile.mkdtemp()}/{key}" for key in (0, 1)]
    steps = dict(draws=4, warmup=2, chains=1, sampler=from_prior, progress=False)
    for key, path in enumerate(runs):
        brg.fit(line, (X, y), key=key, path=path, **steps)
    return {
        "export": (lambda dt: brg.io.export(dt, file.with_name("exported.nc")), dict(dt=dt)),
        "export path": (lambda path: brg.io.export(dt, path), dict(path="exported.nc")),
        "join_chains": (brg.io.join_chains, dict(paths=runs)),
        "flow_to_datatree": (brg.io.flow_to_datatree, dict(flow=flow)),
        "label": (lambda group: brg.io.label(group=group), dict(group=flow)),
        "open_run": (brg.open_run, dict(path=str(file))),
        "save": (lambda dt: brg.io.save(dt, file), dict(dt=dt)),
        "save path": (lambda path: brg.io.save(dt, path), dict(path="saved.nc")),
        "to_datatree": (brg.io.to_datatree, dict(
            groups={"posterior": {"a": np.ones((1, 2, 3))}}, dims={"a": ("point",)},
            attrs={"note": "none"})),
    }  # fmt: skip


def plots(o):
    from test_plots import SIZES, learnt, power_law_curve
    from test_plots_dynamics import dynamics_groups
    from test_plots_fit import fit_groups
    from test_plots_kernels import kernel_groups
    from test_plots_modified import modified_groups
    from test_plots_rainbow import rainbow_groups
    from test_plots_trained import trained_groups
    from test_plots_transport import training_group, transport_groups
    from test_plots_weights import weight_groups

    dt = brg.io.flow_to_datatree(brg.rg.flow(VALUES, 6.0, 0.1, features=FEATURES, y=y))
    made = brg.io.label(
        learning_curve=power_law_curve(4.0 / SIZES),
        learning_curve_run=power_law_curve(3.0 / SIZES[:3]),
        local_ridge=xr.Dataset({"ridge": ("point", 1 + y**2), "weight": ("point", 1 + y**2)}),
    )
    for more in (made, learnt(0), dynamics_groups(), kernel_groups(), modified_groups(),
                 rainbow_groups(), trained_groups(), weight_groups(),
                 transport_groups()):  # fmt: skip
        dt.update(more.children)
    dt["dynamics"] = xr.merge([dt["dynamics"].to_dataset(), training_group()])
    more = {
        "plot_learning_curve": dict(quantity="generalisation", also=["learning_curve"], rank=5.0),
        "plot_fit": dict(dt=fit_groups(columns=2), x=0, var_name="f"),
        "plot_alignment": dict(theory=np.array([0.5, 0.5])),
        "plot_kernel_change": dict(layer=1),
        "plot_order_parameter": dict(saddle=np.array([1.0])),
        "plot_paths": dict(features=(0, 1), draw=3, max_points=20, also=["straight"]),
        "plot_displacement": dict(features=(1, 0), draw=0, max_points=5, also=["straight"]),
        "plot_accuracy_against_cost": dict(also=["cheap"]),
        "plot_layer_action": dict(also=["straight"], relative=True),
        "plot_action_ladder": dict(also=["straight"]),
        "plot_action_posterior": dict(var_name="displacement", also=["straight"]),
        "plot_rescaled_ridge": dict(alpha=1.0), "plot_ridge_criteria": dict(n=50.0),
    }  # fmt: skip
    found = {}
    for name in brg.plots.__all__:
        plot = getattr(brg.plots, name)
        parameters = inspect.signature(plot).parameters
        own = {"group": parameters["group"].default}
        found[name] = (
            lambda plot=plot, **given: plot(**{"backend": "none"} | given),
            dict(dt=dt) | own | more.get(name, {}),
        )
    backed = dict(dt=dt, group="spectrum", backend="none")
    return found | {"plot_spectrum": (brg.plots.plot_spectrum, backed)}


UPPER = dict(theory=theory, deep_linear=deep_linear, diagnostics=diagnostics, inference=inference,
             io=io, plots=plots)  # fmt: skip
