# SPDX-License-Identifier: Apache-2.0
"""Point estimates of hyper-parameters, by maximising the evidence."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from .. import _checks
from .._callables import hold
from .._checks import ArrayLike
from .._fixedpoint import hessian
from .._linalg import quad_logdet
from ..kernels import Kernel
from .regression import Posterior, _shaped, condition
from .units import units_of

_TRIED = 16  # points tried per restart
_RANGE = 10 * np.log(10.0)  # range of a logarithm on either side, where no bounds are given
_MOVED, _SMALL = 0.1, 1e-6  # of logarithms: the Hessian is made again; Newton's method has ended
_CURVED = 1e-4  # least curvature that fixes a logarithm: a standard deviation of 100


class Maximum(NamedTuple):
    """Hyper-parameters ``theta`` of greatest evidence, and the ``posterior`` given them.

    ``converged`` is True if ``theta`` is a strict maximum.
    """

    theta: Any
    posterior: Posterior
    converged: bool


def maximise_evidence(
    make_kernel: Callable[[Any], Kernel],
    theta0: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    ridge: ArrayLike | None = None,
    mean: ArrayLike | Callable[[Any, Any], Any] = 0.0,
    bounds: tuple[Any, Any] | None = None,
    restarts: int = 4,
    key: Array | int = 0,
) -> Maximum:
    """Maximise the log evidence over positive hyper-parameters, and return the best point found.

    Parameters
    ----------
    make_kernel : callable
        Takes hyper-parameters, a pytree like ``theta0``; returns a kernel.
    theta0 : pytree of positive numbers or arrays
        First start. The search is in the logarithm of each number, except for the entry
        ``"mean"``.
    X : (n, d), inputs
    y : (n,) or (n, c)
        Targets.
    ridge : () or (n,), optional
        Noise variance, held fixed. If it is not given, the mapping ``theta0`` needs an entry
        ``"ridge"``, which is searched too.
    mean : number, or callable (theta, X) -> (n,) or (n, c)
        Prior mean. Its parameters are the entry ``"mean"`` of the mapping ``theta0``: any real
        numbers or arrays, searched without a logarithm. They start from their least squares fit.
    bounds : (low, high), optional
        Positive numbers, or pytrees like ``theta0`` without its ``"mean"``. By default ten decades
        on either side.
    restarts : int
        Number of further starts. They are the best of 16 times as many points, which are spread
        over the scales of the data.
    key : JAX key or int
        Randomness of the restarts.

    Returns
    -------
    Maximum
        ``theta``, ``posterior`` and ``converged`` of the best start. ``converged`` is True if
        theta is a strict maximum inside the bounds, where Newton's method has stopped. It is False
        if a hyper-parameter goes to zero or infinity, or if the data do not determine it.

    Raises
    ------
    ValueError
        If an entry of ``theta0`` is not positive, if there is no ridge, or under a JAX
        transformation.

    Notes
    -----
    The search runs on the host, with NumPy and SciPy. Its result does not depend on the units of
    inputs and targets, if parameters of the kernel can follow a change of units. The changes of
    parameters that undo a rescaling of the inputs, or multiply the kernel by a factor, are found
    by trial; restarts are spread along them. A kernel without a variance has no such factor.

    References
    ----------
    Rasmussen and Williams (2006), section 5.4.
    """
    what = "gp.maximise_evidence"
    _checks.on_host(what, theta0, X, y, ridge, bounds, None if callable(mean) else mean)
    _checks.require_x64(what)
    X = _checks.inputs("X", X, wide=True)
    y = _checks.targets("y", y, X.shape[0]).astype(float)
    restarts = _checks.whole("restarts", restarts, least=0)
    if ridge is None and not (isinstance(theta0, Mapping) and "ridge" in theta0):
        raise ValueError(
            'there is no ridge: give ridge= to keep it fixed, or an entry "ridge" in theta0 to '
            "search it"
        )
    _checks.function("make_kernel", make_kernel, "a function of theta that gives a kernel")
    if ridge is not None:
        ridge = _checks.nonnegative("ridge", ridge, ndim=(0, 1))
        if ridge.shape not in ((), X.shape[:1]):
            raise ValueError(f"ridge has shape {ridge.shape} for {len(X)} points; give one or all")
    space = _Space(theta0, callable(mean))
    if not callable(mean):
        mean = _constant(_checks.finite("mean", mean, ndim=0))

    # Functions of the user may have captured traced values; then their results are traced.
    theta = _theta(space.start, space)
    kernel = make_kernel(theta)
    _checks.instance("what make_kernel returned", kernel, Kernel, _checks.KERNEL)
    _checks.on_host(what, mean(theta, X), kernel)
    held, held_mean = hold(make_kernel), hold(mean)
    space, variance = _fit_mean(space, held_mean, X, y)

    def gram(x, rows):
        return np.asarray(_gram(x, rows, space, held))

    kernel_units = units_of(gram, space.start, np.asarray(X), variance)
    anchor, tried = _spread(kernel_units, space, variance, _TRIED * restarts, key)
    box = space.box(bounds, np.stack([space.start, anchor]))

    def objective(x):
        value, gradient = _loss(x, space, held, held_mean, X, y, ridge)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e300, np.zeros_like(x)
        return float(value), np.asarray(gradient)

    # Start from theta0 and from the best of the points tried.
    tried = np.clip(tried, *box)
    best = np.argsort([objective(x)[0] for x in tried], stable=True)[:restarts]
    starts = [np.clip(space.start, *box), *tried[best]]
    limits = np.stack(box, 1)
    results = [minimize(objective, x, jac=True, method="L-BFGS-B", bounds=limits) for x in starts]
    x, converged = _finish(objective, min(results, key=lambda found: found.fun).x, box)
    theta = _theta(x, space)
    ridge = theta["ridge"] if ridge is None else ridge
    posterior = condition(make_kernel(theta), X, y, ridge, mean=partial(mean, theta))
    return Maximum(theta, posterior, converged)


def _missed(theta, mean, X, y):
    """Return the targets minus the prior mean, (n, c)."""
    return (y - _shaped(mean(theta, X), y)).reshape(X.shape[0], -1)


@jax.jit
@jax.value_and_grad
def _loss(x, space, make_kernel, mean, X, y, ridge):
    """Return minus the log evidence at x (p,), and its derivative there."""
    theta, n = space.theta(x), X.shape[0]
    ridge = theta["ridge"] if ridge is None else ridge
    rows = _missed(theta, mean, X, y).T
    quad, log_det = quad_logdet(make_kernel(theta)(X) + ridge * jnp.eye(n, dtype=X.dtype), rows)
    return 0.5 * (quad.sum() + rows.shape[0] * (log_det + n * np.log(2 * np.pi)))


@jax.jit
def _theta(x, space):
    return space.theta(x)


@jax.jit
def _residuals(x, space, mean, X, y):
    """Return the targets minus the prior mean (n c,), and their derivative in x (n c, p)."""

    def residuals(x):
        return _missed(space.theta(x), mean, X, y).ravel()

    return residuals(x), jax.jacfwd(residuals)(x)


@jax.jit
def _gram(x, rows, space, make_kernel):
    return make_kernel(space.theta(x))(rows)


def _constant(value):
    return lambda theta, X: jnp.full(X.shape[0], value, X.dtype)


def _is(path, name):
    """Return whether a path in a pytree begins with the key ``name``."""
    return bool(path) and getattr(path[0], "key", None) == name


def _entry(theta, name):
    """Return a mask (p,) of the numbers in one entry of the mapping ``theta``, if it has it."""
    leaves = jax.tree.leaves_with_path(theta)
    return np.concatenate([np.zeros(0, bool), *(np.full(v.size, _is(k, name)) for k, v in leaves)])


class _Space(eqx.Module):
    """Search variables x (p,): logarithms of positive numbers, and scaled parameters of the mean.

    The latter are those where ``real`` is True; each is ``centre + unit * x``.
    """

    start: np.ndarray
    real: np.ndarray
    ridge: np.ndarray
    centre: np.ndarray
    unit: np.ndarray
    unravel: Callable = eqx.field(static=True)

    def __init__(self, theta0, has_mean):
        def number(path, v):
            if has_mean and _is(path, "mean"):
                return _checks.on_64_bits('theta0["mean"]', v)
            return _checks.on_64_bits("theta0", v, _checks.positive)

        # NumPy, because a program around the call would trace operations of JAX.
        theta0 = jax.tree.map_with_path(number, theta0)
        self.real, self.ridge = _entry(theta0, "mean") & has_mean, _entry(theta0, "ridge")
        self.centre = np.concatenate([np.zeros(0), *map(np.ravel, jax.tree.leaves(theta0))])
        self.start = np.where(self.real, 0.0, np.log(np.where(self.real, 1.0, self.centre)))
        self.unit, self.unravel = np.ones(self.start.size), ravel_pytree(theta0)[1]

    def theta(self, x):
        """Return the hyper-parameters at x (p,), a pytree like theta0."""
        positive = jnp.exp(jnp.where(self.real, 0.0, x))
        return self.unravel(jnp.where(self.real, self.centre + self.unit * x, positive))

    def box(self, bounds, centres):
        """Return the least and the largest search variables, (p,) each.

        Without ``bounds`` they are ten decades from the ``centres`` (m, p).
        """
        if bounds is None:
            low, high = centres.min(0) - _RANGE, centres.max(0) + _RANGE
        else:
            bounds = _checks.several("bounds", bounds, "low, high")
            low, high = (self._logs(bound) for bound in bounds)
            if not (low < high)[~self.real].all():
                raise ValueError(
                    f"bounds must have low < high, got {bounds[0]} and {bounds[1]}; exchange them"
                )
        return np.where(self.real, -np.inf, low), np.where(self.real, np.inf, high)

    def _logs(self, bound):
        """Return the logarithms (p,) of a bound: a number, or a pytree like theta0 without mean."""
        theta = _theta(self.start, self)
        if self.real.any():
            theta = {name: value for name, value in theta.items() if name != "mean"}
        if jax.tree.structure(bound) != jax.tree.structure(theta):
            bound = _checks.positive("bounds", bound, ndim=0)
            bound = jax.tree.map(lambda _: bound, theta)

        def log(b, v):
            return jnp.broadcast_to(jnp.log(_checks.positive("bounds", b)), v.shape)

        logs = np.zeros(self.real.size)
        logs[~self.real] = ravel_pytree(jax.tree.map(log, bound, theta))[0]
        return logs


def _fit_mean(space, mean, X, y):
    """Fit the parameters of the mean by least squares; return the space and the variance left.

    The centre of a parameter is its fit. Its unit changes the mean by the standard deviation of
    what is left of the targets.
    """
    r, J = map(np.asarray, _residuals(space.start, space, mean, X, y))
    if space.real.any():
        # One least squares step is exact if the mean is linear in its parameters. Scale columns to
        # equal size first. Keep the step only if it lowers the sum of squares.
        J = J[:, space.real]
        size = np.sqrt((J**2).mean(0))
        scale = np.where(size > 0, size, 1.0)
        step = np.zeros(space.start.size)
        step[space.real] = -np.linalg.lstsq(J / scale, r)[0] / scale
        centre = space.centre
        fitted = np.asarray(_residuals(space.start + step, space, mean, X, y)[0])
        if (fitted**2).sum() < (r**2).sum():
            centre, r = centre + step, fitted

        spread = float(np.sqrt((r**2).mean())) or float(np.abs(y).max()) or 1.0
        unit = space.unit.copy()
        unit[space.real] = np.where(size > 0, spread / scale, 1.0)
        space = eqx.tree_at(lambda space: (space.centre, space.unit), space, (centre, unit))
    return space, float((r**2).mean()) or 1.0


def _spread(units, space, variance, count, key):
    """Return logarithms that suit the scales of the data, and random points (count, p) around them.

    Parameters that follow a unit vary by a factor of 30 on either side together, and by 3 on
    either side on their own. Other parameters vary by a factor of 100 on either side. Ridges vary
    from the variance of the targets down to 1e-5 of it. Parameters of the mean vary by one unit.
    """
    anchor = np.where(space.ridge, np.log(variance), units.anchor)
    m, p = units.directions.shape
    draws = jax.random.uniform(_checks.random_key(key), (count, m + p), minval=-1.0)
    along, alone = np.split(np.asarray(draws), [m], 1)
    follows = (np.abs(units.directions) > 0).any(0)
    width = np.where(space.real, 1.0, np.where(follows, 0.5, 2.0) * np.log(10.0))
    move = np.where(space.ridge, 6.0 * (alone - 1.0), width * alone)
    return anchor, anchor + move + (1.5 * np.log(10.0) * along) @ units.directions


def _finish(objective, x, box):
    """Take Newton steps from the result x of L-BFGS; return x and whether it is a strict maximum.

    ``objective`` is minus the log evidence. A maximum at a bound of the box does not count.
    """
    value, gradient = objective(x)
    at = None  # the point of the Hessian, which costs as much as many steps
    for _ in range(20):
        if at is None or np.abs(x - at).max() > _MOVED:
            at = x
            curvature, V = np.linalg.eigh(hessian(objective, x, gradient))
        # Divide by the absolute curvature, at least _CURVED: then the step decreases the objective
        # at a saddle too, and its length is bounded.
        step = -V @ (V.T @ gradient / np.maximum(np.abs(curvature), _CURVED))
        new = np.clip(x + step / max(1.0, np.abs(step).max()), *box)
        after, slope = objective(new)
        if after > value + 1e-9 * (1 + abs(value)) or np.abs(slope).max() >= np.abs(gradient).max():
            if at is x or np.abs(step).max() < _SMALL:
                break
            at = None  # the Hessian of this point may give a better step
            continue
        x, value, gradient = new, after, slope

    # A strict maximum is not at a bound, is curved in all directions, and the last step was small.
    inside = ((x > box[0] + 1e-6) & (x < box[1] - 1e-6)).all()
    settled = curvature[0] > _CURVED and np.abs(step).max() < 1e-4
    return x, bool(inside and settled and value < 1e300)
