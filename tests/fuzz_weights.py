# SPDX-License-Identifier: Apache-2.0
"""The smallest problem of each public function on what moves: weights, and points in layers."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import optax
from fuzz_problems import rng

import bayesrg as brg

d, e, n, w = brg.dynamics, brg.ensembles, brg.networks, brg.diagnostics.weights
LEVELS = np.array([[0.1, 0.4, 1.2], [0.2, 0.7, 0.9]])  # two spectra, ascending
MATRICES = np.diag([3.0, 2.0, 1.0]) + 0.1 * rng.normal(size=(2, 9, 3, 3))
RUN = {"learning_rate": 0.1, "batch": 4, "steps": [1, 2], "ratio": [1.0, 1.5], "levels": LEVELS}
OTHER = RUN | {"learning_rate": 0.2}


def ensembles(o):
    statistics = e.gas_statistics(LEVELS)
    spectra = e.IndependentSpectra(e.CoulombGas(3, 1.0), statistics)
    return {
        "CoulombGas": (lambda **a: e.CoulombGas(**a).log_prob(LEVELS), dict(
            n=3, scale=1.0, loc=0.1, beta=1.5)),
        "CoulombGas.log_prob": (
            lambda levels: e.CoulombGas(3, 1.0).log_prob(levels), dict(levels=LEVELS)),
        "LaguerreGas": (lambda **a: e.LaguerreGas(**a).log_prob(LEVELS), dict(
            n=3, dof=4.5, scale=1.0, beta=1.5)),
        "WignerSurmise": (lambda mean: e.WignerSurmise(mean).log_prob(1.0), dict(mean=1.0)),
        "Brody": (lambda q: e.Brody(q).log_prob(1.0), dict(q=0.5)),
        "Brody.log_prob": (
            lambda spacings: e.Brody(0.5).log_prob(spacings), dict(spacings=LEVELS)),
        "IndependentSpectra": (
            lambda **a: e.IndependentSpectra(**a).log_prob(LEVELS),
            dict(law=e.CoulombGas(3, 1.0), statistics=statistics)),
        "IndependentSpectra.log_prob": (
            lambda levels: spectra.log_prob(levels), dict(levels=LEVELS)),
        "gas_statistics": (e.gas_statistics, dict(levels=LEVELS)),
        "scale_posterior": (lambda **a: e.scale_posterior(**a).mean, dict(
            levels=LEVELS, loc="each", beta=1.0, shape=1.5, rate=0.1)),
        "scale_posterior loc": (
            lambda loc: e.scale_posterior(LEVELS, loc).mean, dict(loc=0.5)),
        "semicircle": (e.semicircle.pdf, dict(x=0.5, radius=2.0, loc=0.1)),
        "semicircle cdf": (e.semicircle.cdf, dict(x=0.5, radius=2.0, loc=0.1)),
        "semicircle ppf": (e.semicircle.ppf, dict(q=0.5, radius=2.0, loc=0.1)),
        "two_level_density": (e.two_level_density.pdf, dict(x=0.5, loc=0.1, scale=2.0)),
        "two_level_density cdf": (e.two_level_density.cdf, dict(x=0.5, loc=0.1, scale=2.0)),
        "two_level_density ppf": (e.two_level_density.ppf, dict(q=0.5, loc=0.1, scale=2.0)),
        "marchenko_pastur": (e.marchenko_pastur.pdf, dict(x=5.0, m=7.0, n=4.0, s=0.9)),
        "marchenko_pastur cdf": (e.marchenko_pastur.cdf, dict(x=5.0, m=7.0, n=4.0, s=0.9)),
        "marchenko_pastur ppf": (e.marchenko_pastur.ppf, dict(q=0.5, m=7.0, n=4.0, s=0.9)),
        "marchenko_pastur edges": (e.marchenko_pastur.edges, dict(m=7.0, n=4.0, s=0.9)),
        "marchenko_pastur_null": (e.marchenko_pastur_null, dict(m=4, n=3, draws=2, key=0)),
        "spacing_ratios": (e.spacing_ratios, dict(levels=LEVELS)),
        "unfold": (lambda **a: e.unfold(**a).levels, dict(levels=LEVELS, method="ensemble")),
        "unfold semicircle": (
            lambda **a: e.unfold(LEVELS, "semicircle", **a).levels, dict(loc=0.5, scale=1.0)),
        "unfold mp": (
            lambda **a: e.unfold(LEVELS, "mp", **a).levels, dict(scale=1.0, shape=(3, 4))),
        "unfold polynomial": (
            lambda degree: e.unfold(LEVELS, "polynomial", degree=degree).levels, dict(degree=2)),
    }  # fmt: skip


def motion(o):
    X, y, W = rng.normal(size=(6, 2)), rng.normal(size=6), np.ones(2)

    def loss(w, X, y):
        return 0.5 * ((X @ w - y) ** 2).mean()

    gradient = d.minibatch(loss, X, y, batch=2)

    net = brg.networks.Residual(3, 2, outputs=2)
    params, classes = net.init(0, 2), np.array([0, 1, 1, 0, 1, 0])

    def entropy(f, y):
        return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()

    def moved(found):
        return d.run(found.algorithm, found.start, 2, 0).x

    return {
        "run chains": (d.run, dict(
            algorithm=d.gradient_descent(lambda w: loss(w, X, y), 0.1), x0=W, steps=4, key=0,
            every=2, keep=lambda state: state.x, chains=2)),
        "sgld": (lambda **a: d.run(d.sgld(**a), W, 2, 0).x, dict(
            gradient=gradient, learning_rate=0.1, temperature=0.1)),
        "minibatch": (
            lambda **a: d.run(d.sgld(d.minibatch(**a), learning_rate=0.1), W, 2, 0).x,
            dict(loss=loss, X=X, y=y, batch=2)),
        "least_action": (lambda **a: d.run(d.least_action(**a), params, 2, 0).x, dict(
            net=net, loss=entropy, optimizer=optax.sgd(0.1), X=X, y=classes, lambda0=1.0, tau=0.5,
            every=1, eps=0.1, lambda_min=0.5, lambda_max=2.0, batch=3,
            modules=[((0,), 1.0), ((1,), 0.5)])),
        "dyson": (lambda **a: d.run(d.dyson(**a), np.eye(2), 2, 0).x, dict(
            noise=1.0, dt=0.1, rate=1.0, loc=0.1, method="matrix")),
        "dyson slope": (
            lambda slope: d.run(d.dyson(1.0, dt=0.1, slope=slope), np.eye(2), 2, 0).x,
            dict(slope=lambda x: x**3)),
        "dyson implicit": (
            lambda x0=LEVELS[0], **a: d.run(
                d.dyson(1.0, rate=1.0, method="implicit", **a), x0, 2, 0).x,
            dict(beta=1.5, x0=LEVELS[0], dt=0.1)),
        "teacher_student": (lambda **a: moved(d.teacher_student(**a)), dict(
            teacher=2 * np.eye(2), noise=0.1, learning_rate=0.1, batch=4, noise_in="labels")),
        "gaussian_rbm": (lambda **a: moved(d.gaussian_rbm(**a)), dict(
            kernel=d.lattice(4, 1.0), learning_rate=0.01, batch=4, key=0, hidden=3, scale=3.0,
            hidden_scale=0.9, sweeps=2, start_scale=0.1)),
        "lattice": (d.lattice, dict(sites=4, mass=1.0)),
    }  # fmt: skip


def weights(o):
    found = w.spectra(MATRICES)
    table = w.summary(found, key=0)
    net = {"a": rng.normal(size=(5, 4)), "b": rng.normal(size=3)}
    report = w.report(net, key=0, draws=9)
    levels, null = LEVELS[0], np.asarray(e.marchenko_pastur_null(4, 3, 9, 0))
    file = pathlib.Path(tempfile.mkdtemp()) / "weights.npz"
    np.savez(file, **net)
    student = d.teacher_student(np.eye(2), noise=0.1, learning_rate=0.1, batch=4)
    fit = brg.io.to_datatree(
        {"posterior": {"exponent": np.ones((1, 4)), "intercept": np.ones((1, 4))},
         "constant_data": {"X": np.ones((3, 2))}}, {})  # fmt: skip
    return {
        "weights.spectra": (w.spectra, dict(
            W=MATRICES, kind="gram", dims=["chain", "draw"], degeneracies=[1, 2],
            drop_zero=False)),
        "weights.groups": (
            lambda **a: w.groups(found["levels"].to_numpy()[:, :, 0], **a),
            dict(degeneracies=[1, 2], gap=5.5)),
        "weights.summary": (w.summary, dict(spectra=found, key=0, gap=5.5)),
        "weights.drift": (w.drift, dict(spectra=found)),
        "weights.bulk": (w.bulk, dict(levels=levels, shape=(4, 3))),
        "weights.outliers": (w.outliers, dict(
            levels=levels, shape=(4, 3), null=null, s=0.5, margin=0.05)),
        "weights.hill": (w.hill, dict(levels=levels, k=2, key=0, draws=9)),
        "weights.noise_by_width": (w.noise_by_width, dict(
            summary=table, learning_rate=0.1, relaxation=1.5, curvature=1.2)),
        "weights.noise_by_variation": (w.noise_by_variation, dict(W=MATRICES, dt=0.1)),
        "weights.effective_temperature": (w.effective_temperature, dict(
            gradients=MATRICES[0], noise_variance=0.3, learning_rate=0.1, batch=4, langevin=0.5,
            curvature=1.2)),
        "weights.spectral_temperature": (w.spectral_temperature, dict(
            W=MATRICES, posterior=0.1, group=np.array([0, 1]), at=np.diag([3.0, 2.0, 1.0]))),
        "weights.linear_scaling_report": (w.linear_scaling_report, dict(
            runs=[RUN, OTHER], quantity="ratio")),
        "weights.scaling_data": (w.scaling_data, dict(
            runs=[RUN, OTHER], amplitude=0.5, alpha_correction="ou", curvature=1.2)),
        "weights.scaling_slope": (w.scaling_slope, dict(dt=fit)),
        "weights.report": (w.report, dict(
            weights=net, key=0, initial=net, draws=9, transpose=False, convolutions=True)),
        "weights.statements": (w.statements, dict(found=report)),
        "load_weights": (brg.io.load_weights, dict(path=str(file), names=["a"])),
        "trajectory": (brg.io.trajectory, dict(
            found=d.run(student.algorithm, student.start, 4, 0), learning_rate=0.1, burn_in=2)),
    }  # fmt: skip


def transport(o):
    t, X = brg.diagnostics.transport, rng.normal(size=(5, 2))
    net = brg.networks.Residual(3, 2, outputs=1)
    draws = {"A": rng.normal(size=(1, 5, 2, 3, 2)), "B": rng.normal(size=(1, 5, 2, 2, 3)),
             "weight": rng.normal(size=(1, 5, 1, 2))}  # fmt: skip
    dt = brg.io.to_datatree({"posterior": draws, "constant_data": {"X": X}}, {})
    states = [X, X + 1.0, X + 2.0]
    measured = t.measure(dt, net)
    file = pathlib.Path(tempfile.mkdtemp()) / "states.npz"
    np.savez(file, *states)
    runs = {"accuracy": np.arange(4.0), "transport_cost": np.array([3.0, 1.0, 2.0, 0.5])}
    return {
        "transport.measure": (t.measure, dict(
            dt=dt, net=net, X=X, modes=2, trajectory=True, max_bytes=1 << 20,
            classes=np.array([0, 1, 0, 1, 1]), draws=2, max_points=4, key=0)),
        "transport.measure paths": (
            lambda dt: t.measure(dt, draws=0), dict(dt=t.paths_of(states))),
        "transport.judge": (t.judge, dict(
            runs={0.0: measured, 1.0: measured}, group="transport", tolerance=0.3)),
        "transport.accuracy_against_cost": (t.accuracy_against_cost, dict(
            runs=runs, key=0, resamples=9)),
        "transport.accuracy_against_cost arrays": (
            lambda **runs: t.accuracy_against_cost(runs, 0, resamples=9), runs),
        "transport.paths_of": (t.paths_of, dict(states=states)),
        "transport.paths_of file": (t.paths_of, dict(states=str(file))),
    }  # fmt: skip


def residual(o):
    net = n.Residual(3, 2, outputs=2)
    params, X = net.init(0, 2), rng.normal(size=(4, 2))
    paths, even = net.paths(params, X), np.ones(4)
    slopes = rng.normal(size=(2, 4, 2))
    given = dict(paths=paths, weights=even, per_feature=False)

    def made(**a):
        net = n.Residual(**a)
        return net.apply(net.init(0, 2), X)

    found = {
        "Residual": (made, dict(
            velocity=3, depth=2, outputs=2, head="fixed", dt=0.5, tied=False, activation="tanh",
            encoder=lambda X: X)),
        "Residual head": (lambda head: made(velocity=3, depth=2, outputs=2, head=head), dict(
            head=np.eye(2))),
        "Residual.init": (net.init, dict(key=0, inputs=2)),
        "Residual.read_out": (net.read_out, dict(params=params, x=X)),
        "Residual.head_norm": (net.head_norm, dict(params=params)),
        "Residual.state_gradients": (net.state_gradients, dict(
            params=params, X=X, loss=lambda f: (f**2).mean())),
        "alignment_with_descent": (  # nan without a gradient, as its docstring says
            lambda **a: np.nan_to_num(d.alignment_with_descent(**a)),
            given | {"gradients": slopes}),
        "wasserstein": (d.wasserstein, dict(x=X, z=X[::-1], max_points=3, key=0)),
        "wasserstein sinkhorn": (d.wasserstein, dict(x=X, z=X[::-1], method="assignment")),
    }  # fmt: skip
    for field, value in (("states", paths.states), ("increments", paths.increments)):
        found[f"Paths.{field}"] = (
            lambda **a: d.transport_cost(
                dataclasses.replace(paths, **a)),
            {field: np.asarray(value)})  # fmt: skip
    for name in ("paths", "layers", "apply"):
        found[f"Residual.{name}"] = (getattr(net, name), dict(params=params, X=X))
    for name in ("layer_action", "transport_cost", "kinetic_energy", "displacement",
                 "straightness", "relative_displacement"):  # fmt: skip
        found[name] = (getattr(d, name), given)
    return found


WEIGHTS = dict(ensembles=ensembles, motion=motion, weights=weights, residual=residual,
               transport=transport)  # fmt: skip
