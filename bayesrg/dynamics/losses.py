# SPDX-License-Identifier: Apache-2.0
"""Preconditioned descent for other optimisers: as a loss, and as a transformation of optax."""

import optax
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .preconditioner import Weighting, weighting


def pgd_loss(outputs: ArrayLike, y: ArrayLike, S: Weighting) -> Float[Array, ""]:
    r"""Return :math:`\tfrac12 r^T S r` with :math:`r = f - y`, for preconditioned descent.

    Its gradient in the parameters is :math:`J^T S r`, for networks of any width. It is found by
    ordinary differentiation, so that the Jacobian J is never formed.

    Parameters
    ----------
    outputs : (n,) or (n, c)
        Outputs f of the network at all training inputs.
    y : array of the shape of ``outputs``
    S : Preconditioner, (n, n) symmetric, or None
        Constant under differentiation.

    Returns
    -------
    ()

    Notes
    -----
    For another loss L use the sum of ``outputs * stop_gradient(S @ slope)``, with the slope
    :math:`\partial L/\partial f`. Its gradient is :math:`J^T S\,\partial L/\partial f`, along which
    `preconditioned` with ``slope=`` descends.

    References
    ----------
    arXiv 2307.14531; arXiv 2410.13271.
    """
    outputs = _checks.finite("outputs", outputs, ndim=(1, 2))
    r = outputs - _checks.shaped("y", y, outputs.shape, "the shape of the outputs")
    S = S if S is None else lax.stop_gradient(weighting(S, len(r)))
    return 0.5 * (r * _weighted(S, r)).sum()


def scale_by_output_preconditioner(S: Weighting) -> optax.GradientTransformationExtraArgs:
    r"""Return a transformation for a chain of optax that replaces gradients by :math:`J^T S r`.

    ``update(updates, state, params, residual=r, vjp=pull)`` returns ``pull(S @ r)[0]``. Here
    ``outputs, pull = jax.vjp(lambda params: apply(params, X), params)`` and r is the outputs minus
    the targets.

    Parameters
    ----------
    S : Preconditioner, (n, n) symmetric, or None

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its ``update`` raises a ValueError without ``residual`` and ``vjp``, because r cannot be
        found from the gradient :math:`J^T r`.

    References
    ----------
    arXiv 2307.14531.
    """
    S = weighting(S)

    def update(updates, state, params=None, *, residual=None, vjp=None, **extra):
        if residual is None or vjp is None:
            raise ValueError(
                "scale_by_output_preconditioner needs residual (outputs minus targets) and vjp; "
                "pass both to update as keywords"
            )
        return vjp(_weighted(S, residual))[0], state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _weighted(S, r):
    """Return S r for residuals r (n,) or (n, c); without S, r itself."""
    return r if S is None else weighting(S, len(r)) @ r
