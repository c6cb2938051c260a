# SPDX-License-Identifier: Apache-2.0
r"""Linear training dynamics in closed form: residuals and outputs at any time.

Loss :math:`\tfrac12\sum_i r_i^2`, with :math:`r = f(X) - y`, and parameters that move by
:math:`-\eta J^T S r`. All formulas are functions of the symmetric matrix :math:`S^{1/2}KS^{1/2}`,
so neither K nor S need be invertible, and S need not commute with K. First derivatives are right
where eigenvalues meet, those in K and S included; second ones in K and S raise.
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
from .preconditioner import Preconditioner
from .relaxation import eigenvalues, factors, floor_of, learn


class LinearDynamics(eqx.Module):
    r"""Descent on a fixed tangent kernel; see `linear_dynamics`.

    Times t, () or (s,), are numbers of steps, whole ones, or with a flow the time itself;
    ``jnp.inf`` is the limit. Results begin with the axes of t.

    Attributes
    ----------
    K : (n, n)
    basis : (n, n)
        Columns :math:`W = S^{1/2}U`, eigenvectors U of :math:`S^{1/2}(K + \rho)S^{1/2}`;
        those of K where there is no S.
    rates : (n,)
        Its eigenvalues plus the weight decay, falling: mode i decays by :math:`1 - \eta g_i`.
    step_size : () or None
        Step :math:`\eta`; None for the flow.
    turned : (n, n)
        :math:`S^{1/2}(K + \rho)S^{1/2}`, by which derivatives know K and S.
    vectors : (n, n)
        U.
    """

    K: Float[Array, "point point_bis"]
    basis: Float[Array, "point mode"]
    rates: Float[Array, " mode"]
    step_size: Float[Array, ""] | None
    turned: Float[Array, "point point_bis"]
    vectors: Float[Array, "point mode"]

    def modes(self, r0: ArrayLike) -> Array:
        """Coordinates (n,) or (n, c) of a residual ``r0`` of this shape in the basis."""
        return _modes(self.basis, self._fits(r0))

    def _fits(self, r0):
        r0, n = _checks.finite("r0", r0), self.rates.size
        if r0.ndim not in (1, 2) or r0.shape[0] != n:
            raise ValueError(f"r0 has shape {r0.shape} for {n} points; give ({n},) or ({n}, c)")
        return r0

    def remaining(self, t: ArrayLike) -> Float[Array, "*time mode"]:
        r"""Factor of every mode's distance from its limit, :math:`(1 - \eta g)^t`."""
        return _factors(self.rates, self.step_size, self._times(t))[0]

    def change(self, r0: ArrayLike, t: ArrayLike, K_new: ArrayLike | None = None) -> Array:
        r"""Change of the outputs since the start.

        .. math:: f_t(x) - f_0(x) = -k(x, X)\, W \frac{1 - (1 - \eta g)^t}{g} W^T r_0

        Parameters
        ----------
        r0 : (n,) or (n, c)
            Residual at the start, :math:`f_0(X) - y`.
        t : () or (s,)
        K_new : (m, n), optional
            k(x, X) at other inputs; by default K.

        Returns
        -------
        (..., m) or (..., m, c)
        """
        self._fits(r0)
        return _change(self, _checks.finite("r0", r0), self._times(t), self._new(K_new))

    def residual(self, r0: ArrayLike, t: ArrayLike) -> Array:
        """Residual (..., n) or (..., n, c) at times t, from that at the start, ``r0``."""
        return _checks.finite("r0", r0) + self.change(r0, t)

    def smoother(self, t: ArrayLike, K_new: ArrayLike | None = None) -> Array:
        r"""Matrices A (..., m, n) that send :math:`-r_0` to the change of the outputs.

        ``K_new`` (m, n) as in `change`.
        """
        return _smoother(self, self._times(t), self._new(K_new))

    def count(self, r0: ArrayLike, tol: ArrayLike, most: int = 100_000) -> Float[Array, ""]:
        """Count steps until the residual's norm is ``tol`` () of that of ``r0`` (n,) or (n, c).

        The smallest such number, or inf if it is above ``most``. O(n^2) per step.
        """
        if self.step_size is None:
            raise ValueError("a flow has no steps; give linear_dynamics a step_size")
        most = _checks.whole("most", most)
        return _count(self, self._fits(r0), fraction("tol", tol), most)

    def _times(self, t):
        given = _checks.numbers("t", t)
        if np.ndim(given) > 1:
            raise ValueError(f"t has shape {np.shape(given)}; give one time, or (s,) of them")
        t = jnp.asarray(given, self.rates.dtype)
        if _checks.known(given):
            host = np.asarray(given)
            whole = True if self.step_size is None else (host == np.floor(host))
            if not (whole & (host >= 0)).all():
                kind = "times" if self.step_size is None else "whole numbers of steps"
                raise ValueError(
                    f"t must hold {kind}, zero or more, got {host}; jnp.inf is the limit"
                )
        return t

    def _new(self, K_new):
        K = self.K if K_new is None else _checks.finite("K_new", K_new)
        if K.ndim != 2 or K.shape[1] != self.rates.size:
            raise ValueError(
                f"K_new has shape {K.shape} for {self.rates.size} points; give k(X_new, X), "
                f"(m, {self.rates.size})"
            )
        return K

    def _learn(self, t, c):
        return learn(self.turned, self.vectors, self.rates, self.step_size, t, c)


@jax.jit
def _modes(basis, r0):
    return basis.T @ r0


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
    r"""Solve gradient descent, or its flow, on a fixed tangent kernel.

    .. math:: r_t = (1 - \eta K S)^t\, r_0, \qquad \dot r = -K S\, r

    Parameters
    ----------
    K : (n, n)
        Tangent kernel at the training inputs.
    S : Preconditioner or (n, n), optional
        Symmetric, positive semi-definite; by default none.
    step_size : () or None
        Step :math:`\eta` for the summed, halved loss; None for the flow. Where the loss is a mean
        it is n (times outputs) larger.
    ridge : ()
        Of a descent in dual coordinates, which S preconditions too; its limit is kernel ridge
        regression, :math:`(K + \rho)^{-1}y`.
    weight_decay : ()
        Pull towards the first parameters that S does not precondition. Its limit is ridge
        regression with the modified kernel: :math:`k(x, X)(K + \lambda S^{-1})^{-1}y`.

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
    Without ridge and decay the limit is the ridgeless solution for every invertible S: what S
    changes is the way there. A step needs :math:`\eta < 2/\max_i g_i`.

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
    r"""Return the step size from which on a mode grows, :math:`2/\max_i g_i`, ().

    ``K`` (n, n), ``S``, ``ridge`` and ``weight_decay`` as in `linear_dynamics`.
    """
    return 2.0 / _decompose(_checks.symmetric("K", K), S, ridge, weight_decay)[1].max()


def _decompose(K, S, ridge, weight_decay):
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
    """Eigenvalues without decay, then basis, rates, matrix and eigenvectors of the dynamics."""
    B = K + ridge * jnp.eye(K.shape[0], dtype=K.dtype)
    if root is not None:
        B = root @ (root @ B).T
    B = 0.5 * (B + B.T)
    values, U = jnp.linalg.eigh(lax.stop_gradient(B))
    values, U = values[::-1], U[:, ::-1]
    basis = U if root is None else root @ U
    return values, basis, eigenvalues(B, U, values) + weight_decay, B, U


def _root(S, n):
    if S is None:
        return None
    if isinstance(S, Preconditioner):
        if S.vectors.shape[0] != n:
            raise ValueError(
                f"S acts on {S.vectors.shape[0]} points and K on {n}; make both on the same ones"
            )
        return S.root()
    S = _checks.symmetric("S", S)
    if S.shape[0] != n:
        raise ValueError(f"S has shape {S.shape} and K acts on {n} points; make S ({n}, {n})")
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
    largest = np.asarray(rates).max()
    if step_size * largest >= 2:
        raise ValueError(
            f"step_size {step_size:.6g} exceeds the stability limit {2 / largest:.6g}, two over "
            "the largest rate; lower it, see dynamics.stability_limit"
        )
