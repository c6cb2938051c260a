# SPDX-License-Identifier: Apache-2.0
"""Functions of users: what they captured is data, at every door that takes one."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from scipy.stats import norm

from bayesrg import dynamics, gp, kernels, networks, spectrum, theory
from bayesrg._callables import hold
from bayesrg.dynamics.preconditioner import Preconditioner

RNG = np.random.default_rng(0)
X, P = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
Y = np.sin(X[:, 0])
x = np.linspace(0, 1, 12, endpoint=False)
C = np.stack([np.cos(2 * np.pi * x), np.sin(2 * np.pi * x)], 1)
Y12 = np.sin(2 * np.pi * x) + 0.3 * np.cos(8 * x)
W = [np.array([[0.3, 0.2, -0.5], [0.1, 0.4, 0.2]])]


def elementwise(get):
    return lambda u: jnp.tanh(get() * u)


def power(get):
    return lambda values: values ** get()


def network(get):
    return lambda p, X: jnp.tanh(get() * X @ p)


def one_output(get):
    return lambda p, X: jnp.tanh(get() * X @ p)[:, 0]


def step(p, h, start, stop, get):
    return h if start == stop else jnp.tanh(get() * h @ p)


def loss(get):
    return lambda p: ((jnp.tanh(get() * X @ p)[:, 0] - Y) ** 2).sum()


@pytest.fixture(scope="module", autouse=True)
def weighting():
    """Compile when the tests run: every worker collects all files."""
    global S
    rates, gains = jnp.asarray([[0.5, 2.0], [1.0, 1.0]])
    S = Preconditioner(jnp.asarray(np.eye(4)[:, :2]), rates, gains, rates)


def trained(apply, optimizer):
    return networks.train(apply, P, X, Y, optimizer=optimizer, epochs=3, key=0).loss[-1]


def resampled(f):
    return networks.resample(W, X, activations=f, key=0).errors.sum()


def rainbow(rule):
    return networks.Rainbow((4, 3), (None, rule)).init(0, 3)[1].sum()


def laplace(likelihood):
    return gp.LaplaceMarginal(gp.marginal(kernels.RBF(1.0), C, 1e-2), likelihood).log_prob(Y12)


def decay(j):
    return (1.0 + j) ** -2.0


def prior_mean(mean):
    return gp.condition(kernels.RBF(1.0), X, Y, 0.1, mean=mean).mean(X + 1.0).sum()


def curve(f):
    return theory.annealed_curve(jnp.arange(4.0, 0.0, -1.0), (4,), f, 6.0, 0.1).test


# name: (callable from a function that gives the parameter, number from the callable)
DOORS = {
    "NNGP": (elementwise, lambda f: kernels.NNGP(1, f)(X).sum()),
    "NTK": (elementwise, lambda f: kernels.NTK(1, f)(X).sum()),
    "DEQ": (elementwise, lambda f: kernels.DEQ(f)(X).sum()),
    "jacobian_flow": (
        elementwise,
        lambda f: kernels.jacobian_flow(kernels.NNGP(1, f), 1.0, 2).J.sum(),
    ),
    "random_features": (
        elementwise,
        lambda f: kernels.random_features(kernels.NTK(1, f), 3, 5, key=0)(X).sum(),
    ),
    "hermite": (elementwise, lambda f: theory.hermite(f, 1.3, 0.2).ks2),
    "linearise": (elementwise, lambda f: theory.linearise(W, f, jnp.eye(3))[0].Omega.sum()),
    "cross_linearise": (
        elementwise,
        lambda f: theory.cross_linearise(W, f, W, "erf", jnp.eye(3))[0].sum(),
    ),
    "annealed_curve": (elementwise, curve),
    "resample": (elementwise, resampled),
    "Rainbow": (
        elementwise,
        lambda f: networks.Rainbow((4,), None, f).apply([jnp.ones((4, 3))], X).sum(),
    ),
    "Rainbow cov": (lambda get: lambda below: jnp.eye(4) * get() + below[0] @ below[0].T, rainbow),
    "modify": (
        power,
        lambda g: spectrum.modify(spectrum.fourier(decay, 5), g)(x**2).sum(),
    ),
    "modify_kernel": (power, lambda g: spectrum.modify_kernel(kernels.RBF(1.0), C, g)(C).sum()),
    "preconditioner": (
        power,
        lambda g: dynamics.preconditioner(kernels.RBF(1.0)(X), g, 2).gains.sum(),
    ),
    "adapt": (
        lambda get: lambda X, Z: jnp.exp(-get() * ((X[:, None] - Z[None]) ** 2).sum(-1)),
        lambda f: jax.jit(lambda kernel: kernel(X))(kernels.adapt(f)).sum(),
    ),
    "warp": (
        lambda get: lambda X: get() * X,
        lambda f: jax.jit(lambda kernel: kernel(X))(kernels.RBF(1.0).warp(f)).sum(),
    ),
    "condition": (lambda get: lambda X: get() * X[:, 0], prior_mean),
    "LaplaceMarginal": (lambda get: lambda f: dist.StudentT(30.0, f, get()), laplace),
    "empirical_ntk": (network, lambda f: kernels.empirical_ntk(f, P, X).sum()),
    "empirical_ntk full": (
        network,
        lambda f: kernels.empirical_ntk(f, P, X, outputs="full")[..., 1, 1].sum(),
    ),
    "empirical_nngp": (network, lambda f: kernels.empirical_nngp(f, P, X).sum()),
    "empirical_apjn": (
        lambda get: functools.partial(step, get=get),
        lambda f: kernels.empirical_apjn(f, P, X, 0, 1, key=0).sum(),
    ),
    "train": (one_output, lambda f: trained(f, optax.sgd(0.1))),
    "train optimizer": (
        lambda get: optax.GradientTransformation(
            lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda v: -get() * v, g), s)
        ),
        lambda o: trained(lambda p, X: (X @ p)[:, 0], o),
    ),
    "run": (
        loss,
        lambda f: dynamics.run(dynamics.gradient_descent(f, 0.05), P, 3, 0).observables["loss"][-1],
    ),
    "preconditioned": (
        one_output,
        lambda f: dynamics.run(
            dynamics.preconditioned(f, X, Y, S, step_size=0.05), P, 3, 0
        ).observables["loss"][-1],
    ),
    "power_iteration": (
        lambda get: lambda v: get() ** 2 * v,
        lambda K: dynamics.power_iteration(K, S, iterations=3, key=0).value,
    ),
}  # fmt: skip
QUICK = "hermite", "empirical_ntk", "power_iteration", "Rainbow", "adapt", "warp"
T, STEP = 0.7, 1e-4


@pytest.mark.parametrize(
    "door", [pytest.param(d, marks=() if d in QUICK else pytest.mark.slow) for d in DOORS]
)
def test_what_a_callable_captured_is_data(door):
    """Under jit, vmap and grad at once, and with numbers that change between calls."""
    make, use = DOORS[door]
    t = np.asarray([T - STEP, T, T + STEP, 0.9])
    mapped = jax.jit(jax.vmap(jax.value_and_grad(lambda t: use(make(lambda: t)))))
    values, slopes = (np.asarray(v) for v in mapped(t))
    finite_difference = (values[2] - values[0]) / (2 * STEP)
    assert abs(slopes[1]) > 1e-3
    np.testing.assert_allclose(slopes[1], finite_difference, rtol=1e-6)
    box = [T]
    function = make(lambda: box[0])
    np.testing.assert_allclose(use(function), values[1], rtol=1e-10)
    box[0] = 0.9
    np.testing.assert_allclose(use(function), values[3], rtol=1e-10)


# name: (what holds a callable with a parameter, a number of it)
HOLDERS = {
    "adapt": (lambda t: kernels.adapt(lambda X, Z: t * X @ Z.T), lambda k: k(X)),
    "warp": (lambda t: kernels.RBF(1.0).warp(lambda X: t * X), lambda k: k(X)),
    "Rainbow": (
        lambda t: networks.Rainbow((2,), None, lambda u: t * u), lambda net: net.apply(W, X)
    ),
    "NNGP": (lambda t: kernels.NNGP(1, lambda u: jnp.tanh(t * u)), lambda k: k(X)),
    "slope": (lambda t: kernels.NTK(1, "leaky_relu", slope=t), lambda k: k(X)),
    "condition": (
        lambda t: gp.condition(kernels.RBF(1.0), X, Y, 0.1, mean=lambda X: t * X[:, 0]),
        lambda posterior: posterior.mean(X + 1.0),
    ),
    "LaplaceMarginal": (
        lambda t: gp.LaplaceMarginal(
            gp.marginal(kernels.RBF(1.0), C, 1e-2), lambda f: dist.Normal(f, t)
        ),
        lambda law: law.log_prob(Y12),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(h, marks=() if h in QUICK else pytest.mark.slow) for h in HOLDERS],
)
def test_what_holds_a_callable_leaves_a_jit(name):
    build, number = HOLDERS[name]
    with jax.checking_leaks():
        built = jax.jit(build)(T)
    np.testing.assert_allclose(number(built), number(build(T)), rtol=1e-12)


@pytest.mark.parametrize(
    "kernel", [kernels.NNGP, pytest.param(kernels.NTK, marks=pytest.mark.slow)]
)
def test_a_slope_below_zero_may_be_traced(kernel):
    def total(slope):
        return kernel(1, "leaky_relu", slope=slope)(X, np.asarray(X)[:2] + 0.1).sum()

    slopes = np.asarray([0.3, -0.4])
    around = np.asarray([slopes - STEP, slopes, slopes + STEP])
    values, changes = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(total))))(around)
    np.testing.assert_allclose(changes[1], (values[2] - values[0]) / (2 * STEP), rtol=1e-6)
    np.testing.assert_allclose(values[1, 1], total(-0.4), rtol=1e-13)
    with pytest.raises(ValueError, match="slope must be an array of 0"):
        kernel(1, "leaky_relu", slope=[0.1, 0.2])


def test_a_number_in_a_list_is_read_at_every_call():
    """The covariance of tanh(s u) by Gauss and Hermite's rule in two dimensions."""
    z, w = np.polynomial.hermite_e.hermegauss(60)
    pair = np.asarray(X)[:2]
    L = np.linalg.cholesky(2 * pair @ pair.T / 3)
    u, v = L[0, 0] * z[:, None], L[1, 0] * z[:, None] + L[1, 1] * z
    box = [0.5]
    function = elementwise(lambda: box[0])
    box[0] = 0.6
    expected = 2 * w @ (np.tanh(0.6 * u) * np.tanh(0.6 * v)) @ w / (2 * np.pi)
    found = np.asarray(kernels.NNGP(1, function)(pair))[0, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_modules_of_equinox_are_activations_and_networks():
    found, named = (theory.hermite(f, 1.3, 0.4) for f in (eqx.nn.PReLU(0.2), "leaky_relu"))
    np.testing.assert_allclose(jax.tree.leaves(found), jax.tree.leaves(named), rtol=1e-10)
    assert kernels.NNGP(1, eqx.nn.PReLU(0.2)).activation.function.arrays == [0.2]
    assert kernels.NNGP(1, jax.nn.relu).activation == "relu"

    class Scaled(eqx.Module):
        scale: jax.Array
        function: object = jax.nn.relu

        def __call__(self, p, X):
            return self.function(self.scale * X @ p)

    half, whole = (kernels.empirical_ntk(Scaled(jnp.asarray(s)), P, X) for s in (0.5, 1.0))
    np.testing.assert_allclose(half, whole / 4, rtol=1e-12)


def test_a_gradient_alone_in_what_a_map_captured():
    """On equal distances the constant vector is an eigenvector at every map."""

    @jax.jit
    @jax.value_and_grad
    def total(t):
        return spectrum.modify_kernel(kernels.RBF(1.0), C, lambda values: values**t)(C).sum()

    top = np.exp(-((np.asarray(C) - np.asarray(C)[0]) ** 2).sum(1) / 2).mean()
    value, slope = total(1.2)
    np.testing.assert_allclose(value, 144 * top**1.2, rtol=1e-10)
    np.testing.assert_allclose(slope, 144 * top**1.2 * np.log(top), rtol=1e-8)


def test_a_kink_and_a_closed_form_may_move():
    """The mean of max(x - t, 0) falls by the probability that x is above t."""

    def mean(t):
        rectified = theory.Activation(lambda u: jnp.maximum(u - t, 0.0), kinks=(t,))
        return theory.hermite(rectified, 1.3, 0.2).a0

    def line(t):
        def closed(h, r):
            return t * h, t + 0 * r, 0 * r, t**2 * (h**2 + r)

        return theory.hermite(theory.Activation(lambda u: t * u, closed=closed), 1.3, 0.2).k1

    of_line, of_mean = jax.jit(lambda t: (jax.grad(line)(t), jax.grad(mean)(t)))(0.5)
    np.testing.assert_allclose(of_line, 1.0, rtol=1e-14)
    np.testing.assert_allclose(of_mean, -norm.sf(0.3 / np.sqrt(1.3)), rtol=1e-12)


class Net:
    """A network as plain Python has it."""

    factor = 1.0

    def __init__(self):
        self.scale, self.me = 2.0, self

    def apply(self, p, X):
        return self.factor * self.me.scale * X @ p


def test_attributes_of_objects_are_seen_to_change():
    net, base = Net(), np.asarray(X @ P)
    np.testing.assert_allclose(hold(net.apply)(P, X), 2 * base, rtol=1e-14)
    net.scale = 3.0
    np.testing.assert_allclose(hold(net.apply)(P, X), 3 * base, rtol=1e-14)
    net.factor = 2.0  # hides that of the class
    np.testing.assert_allclose(hold(net.apply)(P, X), 6 * base, rtol=1e-14)


def test_a_new_lambda_with_other_arrays_finds_the_program():
    traces = itertools.count()  # what is compared by identity is not copied

    def trained(t):
        def apply(p, X):
            next(traces)
            return jnp.tanh(t * X @ p)[:, 0]

        return networks.train(apply, P, X, Y, optimizer=optax.sgd(0.1), epochs=3, key=0).loss

    first, before = trained(jnp.asarray(0.5)), next(traces)
    second, after = trained(jnp.asarray(0.6)), next(traces)
    assert (np.asarray(first) != np.asarray(second)).any()
    assert after == before + 2 and before > 2  # only the shape of the outputs is traced again
