# SPDX-License-Identifier: Apache-2.0
r"""Linear training dynamics in closed form: residuals and outputs at any time.

The loss is :math:`\tfrac12\sum_i r_i^2` with :math:`r = f(X) - y`, and a step changes the
parameters by :math:`-\eta J^T S r`. All formulas are functions of the symmetric matrix
:math:`S^{1/2}KS^{1/2}`, so K and S need not be invertible, and need not commute. First derivatives
are right even where eigenvalues are equal. Second derivatives in K and S raise.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import square_root
from .counts import fraction
from .preconditioner import Preconditioner, weighting
from .relaxation import eigenvalues, factors, floor_of, learn


class LinearDynamics(eqx.Module):
    r"""Gradient descent on a fixed tangent kernel, solved by `linear_dynamics`.

    Times t, () or (s,), are whole numbers of steps; for a flow they are any times. ``jnp.inf`` is
    the limit. If t is (s,), results have s as their first axis.

    Attributes
    ----------
    K : (n, n)
        The tangent kernel.
    basis : (n, n)
        Columns :math:`W = S^{1/2}U`; without S they are eigenvectors of K.
    rates : (n,)
        Rates g, largest first: a step multiplies mode i by :math:`1 - \eta g_i`. They are the
        eigenvalues of :math:`S^{1/2}(K + \rho)S^{1/2}` plus the weight decay.
    step_size : () or None
        Step :math:`\eta`; None for the flow.
    turned : (n, n)
        The matrix :math:`S^{1/2}(K + \rho)S^{1/2}`. Only derivatives use it.
    vectors : (n, n)
        Its eigenvectors U.
    """

    K: Float[Array, "point point_bis"]
    basis: Float[Array, "point mode"]
    rates: Float[Array, " mode"]
    step_size: Float[Array, ""] | None
    turned: Float[Array, "point point_bis"]
    vectors: Float[Array, "point mode"]

    def remaining(self, t: ArrayLike) -> Float[Array, "*time mode"]:
        r"""Return what is left of each mode's distance from its limit, :math:`(1 - \eta g)^t`.

        The result is (n,) for one time t and (s, n) for times (s,).
        """
        return _factors(self.rates, self.step_size, self._times(t))[0]

    def change(self, r0: ArrayLike, t: ArrayLike, K_new: ArrayLike | None = None) -> Array:
        r"""Return the change of the outputs since the start.

        .. math:: f_t(x) - f_0(x) = -k(x, X)\, W \frac{1 - (1 - \eta g)^t}{g} W^T r_0

        Parameters
        ----------
        r0 : (n,) or (n, c)
            Residual at the start, :math:`f_0(X) - y`.
        t : () or (s,)
            Times.
        K_new : (m, n), optional
            Kernel k(x, X) at m other inputs x; by default K, for the training inputs.

        Returns
        -------
        (..., m) or (..., m, c)
        """
        return _change(self, self._residual(r0), self._times(t), self._new(K_new))

    def residual(self, r0: ArrayLike, t: ArrayLike) -> Array:
        """Return the residual (..., n) or (..., n, c) at times t; ``r0`` is that at the start."""
        r0 = self._residual(r0)
        return r0 + _change(self, r0, self._times(t), self.K)

    def smoother(self, t: ArrayLike, K_new: ArrayLike | None = None) -> Array:
        r"""Return the matrices A (..., m, n), for which the change of the outputs is :math:`-Ar_0`.

        ``K_new`` (m, n) is the kernel k(x, X) at m other inputs x; by default K.
        """
        return _smoother(self, self._times(t), self._new(K_new))

    def count(self, r0: ArrayLike, tol: ArrayLike, most: int = 100_000) -> Float[Array, ""]:
        """Count the steps until the norm of the residual is ``tol`` times that of ``r0``.

        ``r0`` (n,) or (n, c) is the residual at the start, and ``tol`` () is between 0 and 1. The
        result is inf if more than ``most`` steps are needed. Each step costs O(n^2).
        """
        if self.step_size is None:
            raise ValueError("a flow has no steps; give linear_dynamics a step_size")
        most = _checks.whole("most", most)
        return _count(self, self._residual(r0), fraction("tol", tol), most)

    def _residual(self, r0):
        return _checks.targets("r0", r0, len(self.K))

    def _times(self, t):
        given = _checks.numbers("t", t)
        if np.ndim(given) > 1:
            raise ValueError(f"t has shape {np.shape(given)}; give one time, or (s,) of them")
        if _checks.known(given):
            host, flow = np.asarray(given), self.step_size is None
            if not ((flow | (host == np.floor(host))) & (host >= 0)).all():
                kind = "times" if flow else "whole numbers of steps"
                raise ValueError(
                    f"t must hold {kind}, zero or more, got {host}; jnp.inf is the limit"
                )
        return jnp.asarray(given, self.rates.dtype)

    def _new(self, K_new):
        if K_new is None:
            return self.K
        K_new = _checks.finite("K_new", K_new, ndim=2)
        return _checks.shaped("K_new", K_new, (len(K_new), len(self.K)), "k(X_new, X)")

    def _learn(self, t, c):
        return learn(self.turned, self.vectors, self.rates, self.step_size, t, c)


@jax.jit
def _change(dynamics, r0, t, K):
    modes = dynamics.basis.T @ r0
    done = dynamics._learn(t, modes.reshape(len(modes), -1))
    change = -(K @ dynamics.basis @ done)
    return change[..., 0] if modes.ndim == 1 else change


@jax.jit
def _smoother(dynamics, t, K):
    learnt = dynamics._learn(t, (K @ dynamics.basis).T)
    return jnp.swapaxes(dynamics.basis @ learnt, -1, -2)


@jax.jit
def _factors(g, step_size, t):
    return factors(g, step_size, t[..., None], floor_of(g))


@eqx.filter_jit
def _count(dynamics, r0, tol, most):
    goal = (tol**2) * (r0**2).sum()
    image, modes = dynamics.K @ dynamics.basis, dynamics.basis.T @ r0

    def far(t):
        done = _factors(dynamics.rates, dynamics.step_size, t.astype(r0.dtype))[1]
        done = done.reshape(-1, *[1] * (r0.ndim - 1))
        return ((r0 - image @ (done * modes)) ** 2).sum() > goal

    t = lax.while_loop(lambda t: far(t) & (t <= most), lambda t: t + 1, jnp.asarray(0))
    return jnp.where(t > most, jnp.inf, t)


def linear_dynamics(
    K: ArrayLike,
    S: Preconditioner | ArrayLike | None = None,
    *,
    step_size: ArrayLike | None = None,
    ridge: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
) -> LinearDynamics:
    r"""Solve gradient descent, or gradient flow, on a fixed tangent kernel.

    .. math:: r_t = (1 - \eta K S)^t\, r_0, \qquad \dot r = -K S\, r

    Parameters
    ----------
    K : (n, n)
        Tangent kernel at the training inputs.
    S : Preconditioner or (n, n), optional
        Symmetric and positive semi-definite; by default the identity.
    step_size : () or None
        Step :math:`\eta` for half the sum of squares; None for the flow. For half the mean of
        squares give the step divided by the number of entries of y.
    ridge : ()
        Ridge :math:`\rho` of a descent in dual coordinates, see `dual`. The limit is kernel ridge
        regression, :math:`(K + \rho)^{-1}y`.
    weight_decay : ()
        Strength :math:`\lambda` of a pull towards the first parameters, which S does not multiply.
        The limit is ridge regression with a modified kernel,
        :math:`k(x, X)(K + \lambda S^{-1})^{-1}y`.

    Returns
    -------
    LinearDynamics

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For a matrix that is not symmetric or has a negative eigenvalue, or a step size at which a
        mode grows.

    Notes
    -----
    Without ridge and weight decay the limit is the ridgeless solution for every invertible S. So S
    changes how it is reached, but not the limit. Descent needs :math:`\eta < 2/\max_i g_i`.

    References
    ----------
    arXiv 2307.14531, theorem 4.1; arXiv 1902.06720.

    Examples
    --------
    >>> import numpyro
    >>> numpyro.enable_x64()
    >>> import jax.numpy as jnp
    >>> from bayesrg import dynamics, kernels, spectrum
    >>> X = jnp.linspace(0, 1, 20)
    >>> K = kernels.Matern12(0.3)(X)
    >>> S = dynamics.preconditioner(K, spectrum.maps.flatten(5))
    >>> eta = 0.5 * dynamics.stability_limit(K, S)
    >>> faster = dynamics.linear_dynamics(K, S, step_size=eta)
    >>> left = faster.residual(-jnp.sin(6 * X), jnp.array([1, 10, 100]))
    """
    K = _checks.symmetric("K", K)
    basis, rates, B, U = _decompose(K, S, ridge, weight_decay)
    if step_size is not None:
        step_size = _checks.positive("step_size", step_size, ndim=0)
        if _checks.known(step_size) and _checks.known(rates):
            _check_step(float(step_size), rates)
    return LinearDynamics(K, basis, rates, step_size, B, U)


def stability_limit(
    K: ArrayLike,
    S: Preconditioner | ArrayLike | None = None,
    *,
    ridge: ArrayLike = 0.0,
    weight_decay: ArrayLike = 0.0,
) -> Float[Array, ""]:
    r"""Return the step size :math:`2/\max_i g_i`, (), at and above which descent diverges.

    Parameters
    ----------
    K : (n, n)
        Tangent kernel at the training inputs.
    S : Preconditioner or (n, n), optional
        Symmetric and positive semi-definite; by default the identity.
    ridge, weight_decay : ()
        See `linear_dynamics`.
    """
    return 2.0 / _decompose(_checks.symmetric("K", K), S, ridge, weight_decay)[1].max()


def _decompose(K, S, ridge, weight_decay):
    """Return basis, rates, turned matrix and eigenvectors of `LinearDynamics`, after checks."""
    _checks.require_x64("dynamics.linear_dynamics")
    ridge = _checks.nonnegative("ridge", ridge, ndim=0)
    weight_decay = _checks.nonnegative("weight_decay", weight_decay, ndim=0)
    values, *found = _eigenpairs(K, _root(S, K.shape[0]), ridge, weight_decay)
    if _checks.known(values):
        host = np.asarray(values)
        if host[-1] < -1e-10 * np.abs(host).max():
            raise ValueError(
                f"K has a negative eigenvalue, {host[-1]:.3g} with S and ridge; give a Gram "
                "matrix, which is positive semi-definite"
            )
    return found


@jax.jit
def _eigenpairs(K, root, ridge, weight_decay):
    """Return eigenvalues without decay; then basis, rates, turned matrix and its eigenvectors."""
    B = K + ridge * jnp.eye(K.shape[0], dtype=K.dtype)
    if root is not None:
        B = root @ (root @ B).T
    B = 0.5 * (B + B.T)
    values, U = jnp.linalg.eigh(lax.stop_gradient(B))
    values, U = values[::-1], U[:, ::-1]
    basis = U if root is None else root @ U
    return values, basis, eigenvalues(B, U, values) + weight_decay, B, U


def _root(S, n):
    """Return the symmetric square root of S, after a check that it exists."""
    S = weighting(S, n)
    if S is None or isinstance(S, Preconditioner):
        return None if S is None else S.root()
    root, values = _square_root(S)
    if _checks.known(values):
        host = np.asarray(values)
        if host[0] < -1e-10 * host[-1]:
            raise ValueError(
                f"S has a negative eigenvalue, {host[0]:.3g}; give one that is positive"
            )
    return root


_square_root = jax.jit(square_root)


def _check_step(step_size, rates):
    """Raise if a mode grows at this step size."""
    largest = np.asarray(rates).max()
    if step_size * largest >= 2:
        raise ValueError(
            f"step_size {step_size:.6g} exceeds the stability limit {2 / largest:.6g}, two over "
            "the largest rate; lower it, see dynamics.stability_limit"
        )
