# SPDX-License-Identifier: Apache-2.0
"""Preconditioning as a loss, as a gradient on a batch, and as a transformation for optax."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Float, PyTree

from .. import _checks
from .._checks import ArrayLike
from .preconditioner import Preconditioner

Weighting = Preconditioner | Float[Array, "point point_bis"] | None


def weighting(S: Weighting, *, symmetric: bool = False) -> Weighting:
    """Return S, after a check if it is a matrix."""
    if S is None or isinstance(S, Preconditioner):
        return S
    return _checks.symmetric("S", S) if symmetric else _checks.finite("S", S, ndim=2)


def apply_weighting(S: Weighting, r: Array) -> Array:
    """Return S r for residuals r (n,) or (n, c); without S, r itself."""
    if S is None:
        return r
    S = weighting(S)
    if not isinstance(S, Preconditioner) and jnp.shape(S) != 2 * jnp.shape(r)[:1]:
        raise ValueError(
            f"S has shape {jnp.shape(S)} for residuals of shape {jnp.shape(r)}; make it (n, n)"
        )
    return S @ r


def pgd_loss(outputs: ArrayLike, y: ArrayLike, S: Weighting) -> Float[Array, ""]:
    r"""Return :math:`\tfrac12 r^T S r`, whose gradient is that of preconditioned descent.

    The gradient is :math:`J^T S r` at any width, by ordinary differentiation: no Jacobian is made.

    Parameters
    ----------
    outputs : (n,) or (n, c)
        Of the network at all training inputs.
    y : the same shape
    S : Preconditioner, (n, n) symmetric, or None
        Constant under differentiation.

    Returns
    -------
    ()

    Notes
    -----
    For another loss L of the outputs, the sum of ``outputs * stop_gradient(S @ slope)``, with the
    slope :math:`\partial L/\partial f`, has the gradient :math:`J^T S\,\partial L/\partial f`.
    `preconditioned` with ``slope=`` descends along it.

    References
    ----------
    arXiv 2307.14531; arXiv 2410.13271.
    """
    outputs = _checks.finite("outputs", outputs, ndim=(1, 2))
    r = outputs - _checks.shaped("y", y, outputs.shape, "the shape of the outputs")
    return 0.5 * (r * apply_weighting(lax.stop_gradient(weighting(S)), r)).sum()


def batch_gradient(
    apply: Callable,
    params: PyTree,
    X: ArrayLike,
    slope: ArrayLike,
    rows: ArrayLike,
    S: Weighting = None,
    *,
    biased: bool = False,
) -> PyTree:
    r"""Estimate the preconditioned gradient by differentiating at a batch of points only.

    .. math:: \frac nb\, J_B^T (S r)_B

    is unbiased, with the residual r of all points. The block form, :math:`(n/b) J_B^T S_{BB} r_B`,
    needs the batch's alone, but its mean over batches is

    .. math:: J^T[\tfrac{b-1}{n-1} S + \tfrac{n-b}{n-1}\,\mathrm{diag}(S)] r

    through whose diagonal the modes that S suppresses come back.

    Parameters
    ----------
    apply : callable
        From ``params`` and inputs (b, d) to outputs (b,) or (b, c).
    params : pytree
    X : (n, d)
    slope : (n,) or (n, c)
        Derivative of the loss in the outputs at all points, r for least squares; it may be one of
        an earlier step.
    rows : (b,)
        Indices of the batch.
    S : as in `pgd_loss`
    biased : bool
        Whether to take the block form.

    Returns
    -------
    pytree like ``params``

    References
    ----------
    arXiv 2307.14531.
    """
    X, slope = _checks.inputs("X", X), _checks.targets("slope", slope, len(X))
    _checks.function("apply", apply)
    biased = _checks.flag("biased", biased)
    params = _checks.parameters("params", params)
    rows = _checks.rows("rows", rows, len(X))
    S = weighting(S)
    _, pull = jax.vjp(lambda p: _checks.returned("apply", apply(p, X[rows])), params)
    if biased and S is not None:
        block = S.block(rows) if isinstance(S, Preconditioner) else S[rows][:, rows]
        force = block @ slope[rows]
    else:
        force = apply_weighting(S, slope)[rows]
    return pull(X.shape[0] / rows.shape[0] * force)[0]


def scale_by_output_preconditioner(S: Weighting) -> optax.GradientTransformationExtraArgs:
    r"""Replace gradients by the preconditioned one, inside a chain of optax.

    ``update(updates, state, params, residual=r, vjp=pull)`` returns ``pull(S @ r)[0]``; ``r`` and
    ``pull`` are those of ``outputs, pull = jax.vjp(lambda params: apply(params, X), params)``.

    Parameters
    ----------
    S : as in `pgd_loss`

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its updates raise a ValueError without ``residual`` and ``vjp``: the gradient
        :math:`J^T r` no longer knows r.

    References
    ----------
    arXiv 2307.14531.
    """
    S = weighting(S, symmetric=True)

    def update(updates, state, params=None, *, residual=None, vjp=None, **extra):
        if residual is None or vjp is None:
            raise ValueError(
                "scale_by_output_preconditioner needs residual (outputs minus targets) and vjp; "
                "pass both to update as keywords"
            )
        return vjp(apply_weighting(S, residual))[0], state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
