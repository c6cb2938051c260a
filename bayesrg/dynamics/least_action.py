# SPDX-License-Identifier: Apache-2.0
"""Training of residual networks that move points as little as possible."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, random
from jaxtyping import Float, Int, PyTree

from .. import _checks
from .._checks import ArrayLike
from .._paths import Paths
from .._trajectory import DIVERGED, GO, REACHED, Algorithm, Info, State
from .._warnings import warn
from .action import layer_action

_WINDOW, _CHANGE = 50, 0.01  # T has settled if its mean over so many updates changes by so little
_FLAT, _WEAKER = 0.99, 1.5  # a loss that stays above this part; growth of a multiplier that counts
_GROWN = 2.0  # factor of the norm of the head from which on there is a warning


def least_action(
    net,
    loss: Callable,
    optimizer: optax.GradientTransformation,
    X: ArrayLike,
    y: ArrayLike,
    *,
    lambda0: ArrayLike = 1.0,
    tau: ArrayLike = 1.0,
    every: int = 5,
    eps: ArrayLike = 0.0,
    lambda_min: ArrayLike | None = None,
    lambda_max: ArrayLike = np.inf,
    batch: int | None = None,
    modules: Sequence | None = None,
) -> Algorithm:
    r"""Return the training of a residual network with least transport, for `run`.

    An update of the weights lowers :math:`L + T/\lambda`, the mean loss plus the transport cost
    (see `transport_cost`) over a multiplier. Every few updates the multiplier grows,
    :math:`\lambda \leftarrow \lambda + \tau(L - \epsilon)`, with the loss before the update.

    Parameters
    ----------
    net : networks.Residual
        Or any object with ``paths(params, X) -> Paths`` and ``read_out(params, x)``, which returns
        outputs (n, c) at states x (n, d). If it has ``head_norm(params)``, that is observed, and
        if it has ``apply(params, X)``, plain training uses that, which needs less memory.
    loss : callable
        From outputs (b, c) and targets of b points to their mean loss ().
    optimizer : optax.GradientTransformation
        Such as ``optax.adamw(5e-3)``.
    X : (n, p)
    y : (n,) or (n, c)
        Integers (n,) are classes, from 0 to c - 1, or two classes 0 and 1, or -1 and 1, if there is
        one output; ``loss`` gets them as integers. All else is a target in floats.
    lambda0 : ()
        :math:`\lambda` at the start. With infinity training is plain: the transport is not
        computed, and neither it nor the multiplier is observed.
    tau : ()
        Rate :math:`\tau` of the multiplier. With zero it stays at ``lambda0``.
    every : int
        Number of updates between steps of the multiplier; unused if ``tau`` is zero.
    eps : ()
        Loss :math:`\epsilon` at which the task is solved. The run stops, with status `REACHED`, at
        the end of 50 updates whose mean loss is below ``eps``, if their mean transport is within
        1 % of that of the 50 updates before.
    lambda_min, lambda_max : ()
        Bounds of the multiplier; ``lambda_min`` is ``lambda0`` by default, so that the multiplier
        never falls below its start.
    batch : int, optional
        Number of rows that are drawn, with replacement, for each update; by default, and for n, all
        rows are used without drawing.
    modules : sequence of (layers, tau_m), optional
        Modules m, each a tuple of layers, counted from 0, and a number. T in the penalty is then
        replaced by :math:`\sum_m T_m/(2\tau_m)` with the transport of each module. Every layer
        belongs to one module. ``lambda0=1, tau=0`` gives these penalties alone.

    Returns
    -------
    Algorithm
        One step is one update and takes time 1. It observes, at the weights from which the update
        starts and the rows that it uses, ``loss``, ``transport``, the multiplier ``lambda``,
        ``accuracy`` if y are classes, and ``head_norm`` if the net has that. It diverges where loss
        or transport are not finite; ``last.memory.before`` has the weights before the last update.

    Raises
    ------
    ValueError
        For numbers out of range, and when a run starts, for targets that do not fit the outputs,
        for one class only, and for modules that do not cover the layers.

    Warns
    -----
    UserWarning
        At the end of a run: if the loss did not fall in its second half and ends above half of its
        start, unless the multiplier grew by half in that time and the transport did not; if the
        norm of the head grew by more than a factor 2, because a larger head needs less transport;
        and if there is one layer.

    References
    ----------
    arXiv 2009.08372; for ``modules`` arXiv 2210.00949.
    """
    for method in ("paths", "read_out"):
        if not callable(getattr(net, method, None)):
            raise ValueError(
                f"net has no method {method}; give a networks.Residual, or an object with "
                "paths(params, X) and read_out(params, x)"
            )
    _checks.function("loss", loss, "a function of outputs and targets")
    _checks.optimizer("optimizer", optimizer)
    X = _checks.inputs("X", X)
    n = len(X)
    y, classes = _targets(y, n)
    lambda_min = lambda0 if lambda_min is None else lambda_min
    plain, start = _number("lambda0", lambda0) == np.inf, _positive("lambda0", lambda0)
    bounds = _positive("lambda_min", lambda_min), _positive("lambda_max", lambda_max)
    if not plain:
        _ordered(lambda_min, lambda0, lambda_max)
    fixed = plain or _number("tau", tau) == 0
    tau = _checks.nonnegative("tau", tau, ndim=0)
    every = max(1, _checks.whole("every", every, least=0 if fixed else 1))
    eps = _checks.nonnegative("eps", eps, ndim=0)
    batch = _checks.whole("batch", n if batch is None else batch, most=n)
    factors = None if modules is None else _factors(modules)
    rule = _LeastAction(
        net=net,
        loss=loss,
        optimizer=optimizer,
        X=X,
        y=y,
        lambda0=start,
        bounds=bounds,
        tau=tau,
        eps=eps,
        factors=factors,
        every=every,
        batch=batch,
        plain=plain,
        classes=classes,
    )
    return Algorithm(rule.init, rule.step, report=rule.report)


def _number(name, value):
    """Return one number as it is given, or nan if it is traced or not one number."""
    value = _checks.numbers(name, value)
    return float(value) if _checks.known(value) and not np.ndim(value) else np.nan


def _positive(name, value):
    """Return a positive number, which may be infinite, as an array."""
    infinite = _number(name, value) == np.inf
    return jnp.asarray(np.inf) if infinite else _checks.positive(name, value, ndim=0)


def _ordered(low, start, high):
    """Raise if the multiplier starts outside its bounds."""
    low, start, high = (_number("a bound of lambda", v) for v in (low, start, high))
    if low > start or start > high or low > high:
        raise ValueError(
            f"lambda_min, lambda0, lambda_max are {low}, {start}, {high}; give them in rising order"
        )


def _targets(y, n):
    """Return targets, and classes if these are integers (n,): the lowest, the highest, whether two.

    Two classes are 0 and 1, or -1 and 1. The lowest and highest of traced classes are unknown.
    """
    y = _checks.numbers("y", y)
    targets = _checks.targets("y", y, n)
    if np.ndim(y) != 1 or np.dtype(y.dtype).kind not in "biu":
        return targets, None
    if not _checks.known(y):
        return y.astype(int), _Classes(None, None, True)
    host = np.asarray(y).astype(int)
    found = set(np.unique(host).tolist())
    two = found <= {0, 1} or found <= {-1, 1}
    return _checks.on_device(host), _Classes(min(found), max(found), two)


def _factors(modules):
    """Return the factor 1/(2 tau_m) of the action of each layer, (K,)."""
    factors = {}
    entries = _checks.sequence("modules", modules, "pairs (layers, tau_m), one per module")
    for m, entry in enumerate(entries):
        layers, tau = _checks.several(f"modules[{m}]", entry, "layers, tau_m")
        tau = _checks.positive(f"tau_m of modules[{m}]", tau, ndim=0)
        for k in _checks.indices(f"the layers of modules[{m}]", layers):
            if k in factors:
                raise ValueError(f"modules have layer {k} twice; give each layer to one module")
            factors[k] = 0.5 / tau
    if sorted(factors) != list(range(len(factors))) or not factors:
        raise ValueError(
            f"modules have the layers {sorted(factors)}; give each layer from 0 on to one module"
        )
    return jnp.stack([factors[k] for k in range(len(factors))])


class _Classes(NamedTuple):
    low: int | None
    high: int | None
    two: bool


class _Memory(eqx.Module):
    """What training remembers beside the weights.

    ``before`` are the weights before the last update, ``loss`` and ``transport`` are sums over the
    updates of the present window, and ``settled`` is the mean transport of the window before.
    """

    optimizer: PyTree
    before: PyTree
    update: Int[Array, ""]
    multiplier: Float[Array, ""]
    loss: Float[Array, ""]
    transport: Float[Array, ""]
    settled: Float[Array, ""]


class _LeastAction(eqx.Module):
    net: object
    loss: Callable
    optimizer: optax.GradientTransformation
    X: Array
    y: Array
    lambda0: Array
    bounds: tuple[Array, Array]
    tau: Array
    eps: Array
    factors: Array | None
    every: int = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    plain: bool = eqx.field(static=True)
    classes: _Classes | None = eqx.field(static=True)

    def init(self, x0):
        paths, f = jax.eval_shape(self._forward, x0, self.X)
        self._check(paths, f)
        if self.plain and (given := jax.eval_shape(self._outputs, x0, self.X)).shape != f.shape:
            raise ValueError(f"net.apply returned shape {given.shape}; give {f.shape}, as read_out")
        if hasattr(self.net, "head_norm"):
            norm = jax.eval_shape(self.net.head_norm, x0)
            if jnp.shape(norm):
                raise ValueError(
                    f"net.head_norm returned shape {jnp.shape(norm)}; return one number"
                )
        L = jax.eval_shape(self._loss, f, self.y)
        if L.shape:
            raise ValueError(f"loss returns shape {L.shape}; return one number")
        start = jnp.zeros((), L.dtype)
        multiplier = self.lambda0.astype(L.dtype)
        unseen = start + jnp.nan
        return State(
            x0,
            _Memory(self.optimizer.init(x0), x0, jnp.asarray(0), multiplier, start, start, unseen),
        )

    def step(self, state, key):
        x, memory, X, y = state.x, state.memory, self.X, self.y
        if self.batch < len(X):
            rows = random.randint(key, (self.batch,), 0, len(X))
            X, y = X[rows], y[rows]

        def objective(x):
            if self.plain:
                f = self._outputs(x, X)
                L = self._loss(f, y)
                return L, (L, jnp.zeros_like(L), memory.multiplier, f)
            paths, f = self._forward(x, X)
            L = self._loss(f, y)
            T, penalty = self._transport(paths, L.dtype)
            multiplier = self._ascended(memory, jax.lax.stop_gradient(L))
            return L + penalty / multiplier, (L, T, multiplier, f)

        slope, (L, T, multiplier, f) = jax.grad(objective, has_aux=True)(x)
        change, inner = self.optimizer.update(slope, memory.optimizer, x)
        new = optax.apply_updates(x, change)

        window, reached = self._windowed(memory, L, T)
        sound = jnp.isfinite(L) & jnp.isfinite(T)
        stop = jnp.where(sound, jnp.where(reached, REACHED, GO), DIVERGED)
        seen = {"loss": L} | ({} if self.plain else {"transport": T, "lambda": memory.multiplier})
        if self.classes and (self.classes.two or _columns(f) > 1):
            seen["accuracy"] = _accuracy(f, y)
        if hasattr(self.net, "head_norm"):
            seen["head_norm"] = self.net.head_norm(x)
        memory = _Memory(inner, x, memory.update + 1, multiplier, *window)
        return State(new, memory), Info(seen, stop)

    def report(self, found):
        """Warn of what makes the transport of a run, or of several chains, hard to compare."""
        chains = np.ndim(found.status) == 1
        seen = {k: np.asarray(v) for k, v in found.observables.items()}
        seen = seen if chains else {k: v[None] for k, v in seen.items()}
        steps, status = np.atleast_1d(found.steps), np.atleast_1d(found.status)
        sound = [(i, int(s)) for i, s in enumerate(steps) if status[i] != DIVERGED]

        if not self.plain:
            record = zip(
                seen["loss"], seen["transport"], seen["lambda"], steps, status, strict=True
            )
            flat = [s // 2 for *curves, s, end in record if end == GO and _flat(*curves, int(s))]
            if flat:
                warn(f"action dominates: L did not decrease for {max(flat)} updates; raise lambda0")
        norms = [seen["head_norm"][i, [0, s]] for i, s in sound] if "head_norm" in seen else []
        grown = max((last / first for first, last in norms if first > 0), default=0.0)
        if grown > _GROWN:
            warn(f"head norm grew x{grown:.2g}: T is not comparable between runs")
        x = jax.tree.map(lambda v: v[0], found.last.x) if chains else found.last.x
        if len(jax.eval_shape(self._forward, x, self.X)[0].increments) == 1:
            warn("K=1: straightness is 1 by construction")

    def _forward(self, x, X):
        """Return the paths of points X and the outputs at their ends."""
        paths = self.net.paths(x, X)
        if not isinstance(paths, Paths):
            raise ValueError(f"net.paths returned {type(paths).__name__}; return dynamics.Paths")
        return paths, _checks.returned("net.read_out", self.net.read_out(x, paths.states[-1]))

    def _outputs(self, x, X):
        """Return the outputs; where the net can do so, without paths, which need memory."""
        if hasattr(self.net, "apply"):
            return _checks.returned("net.apply", self.net.apply(x, X))
        return self._forward(x, X)[1]

    def _loss(self, f, y):
        return _checks.returned("loss", self.loss(f, y))

    def _transport(self, paths, dtype):
        """Return the transport cost, and what of it the penalty has."""
        actions = layer_action(paths).astype(dtype)
        T = actions.sum()
        return T, T if self.factors is None else (self.factors.astype(dtype) * actions).sum()

    def _ascended(self, memory, L):
        """Return the multiplier of an update whose loss is L."""
        tau, eps, low, high = (v.astype(L.dtype) for v in (self.tau, self.eps, *self.bounds))
        grown = jnp.clip(memory.multiplier + tau * (L - eps), low, high)
        due = (memory.update + 1) % self.every == 0
        return jnp.where(due, grown, memory.multiplier)

    def _windowed(self, memory, L, T):
        """Return the sums of the window, and whether it is the last that training needs."""
        loss, transport = memory.loss + L, memory.transport + T
        full = (memory.update + 1) % _WINDOW == 0
        mean = transport / _WINDOW
        settled = self.plain | (jnp.abs(mean - memory.settled) <= _CHANGE * mean)
        reached = full & (loss / _WINDOW < self.eps) & settled
        zero = jnp.zeros_like(L)
        sums = jnp.where(full, zero, loss), jnp.where(full, zero, transport)
        return (*sums, jnp.where(full, mean, memory.settled)), reached

    def _check(self, paths, f):
        """Raise unless targets and modules fit the outputs and layers."""
        n, c, depth = len(self.X), _columns(f), len(paths.increments)
        if f.ndim not in (1, 2) or len(f) != n:
            raise ValueError(f"net.read_out returned shape {f.shape} for {n} points; give ({n}, c)")
        if self.factors is not None and len(self.factors) != depth:
            raise ValueError(
                f"modules have {len(self.factors)} layers and the net {depth}; give each layer to "
                "one module"
            )
        if self.classes:
            self._check_classes(c)
        elif self.y.shape != f.shape and (self.y.ndim == 2 or c > 1):
            raise ValueError(
                f"y has shape {self.y.shape} for {c} outputs; give targets ({n}, {c}), or classes "
                f"({n},) as integers: y.astype(int)"
            )

    def _check_classes(self, c):
        """Raise unless classes fit the number c of outputs."""
        low, high, two = self.classes
        if low is None:
            return
        if c > 1 and (low < 0 or high >= c):
            signs = "; write (y + 1) // 2 for classes -1 and 1" if low == -1 else ""
            raise ValueError(
                f"y has classes from {low} to {high} for {c} outputs; give 0 to {c - 1}{signs}"
            )
        if (c > 1 or two) and low == high:
            raise ValueError(
                f"y has one class only, {low}; give points of two classes, or floats if y are no "
                "classes"
            )


def _columns(f):
    return f.shape[1] if f.ndim == 2 else 1


def _accuracy(f, y):
    """Return the part of points whose class the outputs f (n, c) give."""
    right = f.argmax(1) == y if _columns(f) > 1 else (f.ravel() > 0) == (y > 0)
    return right.mean(dtype=f.dtype)


def _flat(loss, transport, multiplier, steps):
    """Return whether the penalty seems to keep a loss high in the second half of a run.

    It does not if the multiplier grew and the points did not move further: then the loss is flat
    for another reason.
    """
    quarter = steps // 4
    if quarter < 5:
        return False
    start = steps - 2 * quarter
    early, late = loss[start : start + quarter].mean(), loss[start + quarter : steps].mean()
    weaker = multiplier[steps] > _WEAKER * multiplier[start]
    farther = transport[steps] > _WEAKER * transport[start]
    return bool(late >= _FLAT * early and late > 0.5 * loss[0] and (farther or not weaker))
