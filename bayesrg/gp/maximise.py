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

    missed = partial(_missed, mean=mean, X=X, y=y)
    kernel = make_kernel(space.theta(space.start))
    _checks.instance("what make_kernel returned", kernel, Kernel, _checks.KERNEL)
    # Functions of the user may have captured traced values; then their results are traced.
    _checks.on_host(what, missed(space.theta(space.start)), kernel)
    space = space.fit_mean(missed, y)
    variance = float((missed(space.theta(space.start)) ** 2).mean()) or 1.0

    held, held_mean = hold(make_kernel), hold(mean)

    def gram(t, rows):
        return np.asarray(_gram(t, rows, space, held))

    logs = np.asarray(space.start[: space.size])
    kernel_units = units_of(gram, logs, np.asarray(X), variance)
    anchor, tried = _spread(kernel_units, space, variance, _TRIED * restarts, key)
    box = space.box(bounds, np.stack([logs, anchor]))

    def objective(x):
        value, gradient = _loss(x, space, held, held_mean, X, y, ridge)
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            return 1e300, np.zeros_like(x)
        return float(value), np.asarray(gradient)

    # Start from theta0 and from the best of the points tried.
    tried = np.clip(tried, *box)
    best = np.argsort([objective(x)[0] for x in tried], stable=True)[:restarts]
    starts = [np.clip(np.asarray(space.start), *box), *tried[best]]
    limits = np.stack(box, 1)
    results = [minimize(objective, x, jac=True, method="L-BFGS-B", bounds=limits) for x in starts]
    x, converged = _finish(objective, min(results, key=lambda found: found.fun).x, box)
    theta = space.theta(jnp.asarray(x))
    noise = theta["ridge"] if ridge is None else ridge
    prior_mean = partial(mean, theta)
    posterior = condition(make_kernel(theta), X, y, noise, mean=prior_mean)
    return Maximum(theta, posterior, converged)


def _missed(theta, mean, X, y):
    """Return the targets minus the prior mean, (n, c)."""
    return (y - _shaped(mean(theta, X), y)).reshape(X.shape[0], -1)


@jax.jit
@jax.value_and_grad
def _loss(x, space, make_kernel, mean, X, y, ridge):
    """Return minus the log evidence at x (p,), and its derivative there."""
    theta, n = space.theta(x), X.shape[0]
    noise = theta["ridge"] if ridge is None else ridge
    rows = _missed(theta, mean, X, y).T
    quad, log_det = quad_logdet(make_kernel(theta)(X) + noise * jnp.eye(n, dtype=X.dtype), rows)
    return 0.5 * (quad.sum() + rows.shape[0] * (log_det + n * np.log(2 * np.pi)))


@jax.jit
def _gram(t, rows, space, make_kernel):
    return make_kernel(space.theta(jnp.concatenate([t, space.start[space.size :]])))(rows)


def _constant(value):
    return lambda theta, X: jnp.full(X.shape[0], value, X.dtype)


class _Space(eqx.Module):
    """Search variables x (p,): logarithms of positive numbers, then scaled parameters of the mean.

    ``size`` counts the logarithms. A parameter of the mean is ``centre + unit * x``.
    """

    positive: Any
    start: Array
    centre: Array
    unit: Array
    unravel: Callable = eqx.field(static=True)
    unravel_mean: Callable | None = eqx.field(static=True)
    size: int = eqx.field(static=True)
    free: bool = eqx.field(static=True)

    def __init__(self, theta0, has_mean):
        self.free = has_mean and isinstance(theta0, Mapping) and "mean" in theta0
        positive = {k: v for k, v in theta0.items() if k != "mean"} if self.free else theta0
        self.positive = jax.tree.map(lambda v: _checks.positive("theta0", v), positive)
        logs, self.unravel = ravel_pytree(
            jax.tree.map(lambda v: jnp.log(v.astype(float)), self.positive)
        )
        centre, self.unravel_mean = jnp.zeros(0), None
        if self.free:
            entries = jax.tree.map(
                lambda v: _checks.finite('theta0["mean"]', v).astype(float), theta0["mean"]
            )
            centre, self.unravel_mean = ravel_pytree(entries)
        self.size, self.centre, self.unit = logs.size, centre, jnp.ones_like(centre)
        self.start = jnp.concatenate([logs, jnp.zeros_like(centre)])

    def theta(self, x):
        """Return the hyper-parameters at x (p,), a pytree like theta0."""
        theta = jax.tree.map(jnp.exp, self.unravel(x[: self.size]))
        if not self.free:
            return theta
        return {**theta, "mean": self.unravel_mean(self.centre + self.unit * x[self.size :])}

    def fit_mean(self, missed, y):
        """Set the centre of the mean's parameters to their least squares fit, and their units.

        ``missed`` takes hyper-parameters and returns targets minus mean.
        """
        if not self.centre.size:
            return self
        head = self.start[: self.size]

        def residual(z):
            return missed(self.theta(jnp.concatenate([head, z]))).ravel()

        # One least squares step is exact if the mean is linear in its parameters. Scale columns to
        # equal size first. Keep the step only if it lowers the sum of squares.
        zero = jnp.zeros_like(self.centre)
        J, r = np.asarray(jax.jacfwd(residual)(zero)), np.asarray(residual(zero))
        size = np.sqrt((J**2).mean(0))
        step = -np.linalg.lstsq(J / np.where(size > 0, size, 1.0), r)[0]
        step = jnp.asarray(step / np.where(size > 0, size, 1.0))
        centre, fitted = self.centre, np.asarray(residual(step))
        if (fitted**2).sum() < (r**2).sum():
            centre, r = centre + step, fitted

        # One unit of a parameter changes the mean by the standard deviation of the residuals.
        spread = float(np.sqrt((r**2).mean())) or float(jnp.abs(y).max()) or 1.0
        unit = jnp.asarray(np.where(size > 0, spread / np.where(size > 0, size, 1.0), 1.0))
        return eqx.tree_at(lambda space: (space.centre, space.unit), self, (centre, unit))

    def ridge_index(self):
        """Return a mask (p,) of the search variables that belong to the ridge."""
        if not (isinstance(self.positive, Mapping) and "ridge" in self.positive):
            return np.zeros(self.start.size, bool)
        marked = {k: jax.tree.map(jnp.zeros_like, v) for k, v in self.positive.items()}
        marked["ridge"] = jnp.ones_like(marked["ridge"])
        marked = jax.tree.unflatten(jax.tree.structure(self.positive), jax.tree.leaves(marked))
        return np.r_[np.asarray(ravel_pytree(marked)[0]) > 0, np.zeros(self.centre.size, bool)]

    def box(self, bounds, centres):
        """Return the least and the largest search variables, (p,) each.

        Without ``bounds`` they are ten decades from the ``centres`` (m, size).
        """
        if bounds is None:
            low, high = centres.min(0) - _RANGE, centres.max(0) + _RANGE
        else:
            bounds = _checks.several("bounds", bounds, "low, high")
            low, high = (self._logs(bound) for bound in bounds)
            if not (low < high).all():
                raise ValueError(
                    f"bounds must have low < high, got {bounds[0]} and {bounds[1]}; exchange them"
                )
        endless = np.full(self.centre.size, np.inf)
        return np.r_[low, -endless], np.r_[high, endless]

    def _logs(self, bound):
        if jax.tree.structure(bound) != jax.tree.structure(self.positive):
            bound = _checks.positive("bounds", bound, ndim=0)
            bound = jax.tree.map(lambda _: bound, self.positive)

        def log(b, v):
            return jnp.broadcast_to(jnp.log(_checks.positive("bounds", b)), v.shape)

        return np.asarray(ravel_pytree(jax.tree.map(log, bound, self.positive))[0], float)


def _spread(units, space, variance, count, key):
    """Return logarithms that suit the scales of the data, and random points (count, p) around them.

    Parameters that follow a unit vary by a factor of 30 on either side together, and by 3 on
    either side on their own. Other parameters vary by a factor of 100 on either side. Ridges vary
    from the variance of the targets down to 1e-5 of it.
    """
    ridge = space.ridge_index()
    logs = ridge[: space.size]
    anchor = np.where(logs, np.log(variance), units.anchor)
    m, p = units.directions.shape[0], space.start.size
    draws = jax.random.uniform(_checks.random_key(key), (count, m + p), minval=-1.0)
    along, alone = np.split(np.asarray(draws), [m], 1)
    follows = (np.abs(units.directions) > 0).any(0)
    width = np.where(follows, 0.5, 2.0) * np.log(10.0)
    move = np.where(logs, 6.0 * (alone[:, : space.size] - 1.0), width * alone[:, : space.size])
    move += (1.5 * np.log(10.0) * along) @ units.directions
    return anchor, np.concatenate([anchor + move, alone[:, space.size :]], 1)


def _finish(objective, x, box):
    """Take Newton steps from the result x of L-BFGS; return x and whether it is a strict maximum.

    ``objective`` is minus the log evidence. A maximum at a bound of the box does not count.
    """
    value, gradient = objective(x)
    for _ in range(8):
        curvature, V = np.linalg.eigh(hessian(objective, x))
        # Divide by the absolute curvature, at least _CURVED: then the step decreases the objective
        # at a saddle too, and its length is bounded.
        step = -V @ (V.T @ gradient / np.maximum(np.abs(curvature), _CURVED))
        new = np.clip(x + step / max(1.0, np.abs(step).max()), *box)
        after, slope = objective(new)
        if after > value + 1e-9 * (1 + abs(value)) or np.abs(slope).max() >= np.abs(gradient).max():
            break
        x, value, gradient = new, after, slope

    # A strict maximum is not at a bound, is curved in all directions, and the last step was small.
    inside = ((x > box[0] + 1e-6) & (x < box[1] - 1e-6)).all()
    settled = curvature[0] > _CURVED and np.abs(step).max() < 1e-4
    return x, bool(inside and settled and value < 1e300)
