# SPDX-License-Identifier: Apache-2.0
"""The low modes of a coarse model integrated in closed form."""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from .. import _checks
from .._checks import ArrayLike
from .._linalg import factor, log_det
from .._posterior import LinearPosterior
from ..gp import EffectiveNormal, MercerNormal


def integrate_modes(
    root: ArrayLike, rest: MercerNormal | EffectiveNormal, y: ArrayLike
) -> LinearPosterior:
    r"""Integrate standard-normal modes w out of ``y ~ rest.shift(root @ w)``.

    With R the covariance of ``rest`` and B the root, their posterior precision is
    :math:`M = I + B^T R^{-1} B`; the evidence is the density of ``rest`` at their mean m, minus
    :math:`|m|^2/2 + \ln|M|/2`.

    Parameters
    ----------
    root : (n, k), from ``split``
    rest : MercerNormal or EffectiveNormal without batch, from ``split``
    y : (n,)

    Returns
    -------
    LinearPosterior
        Of w, with the evidence of all of ``y``.

    References
    ----------
    arXiv 2405.06008; the conjugate posterior is Rasmussen and Williams (2006), equation 2.8.
    """
    what = "a law without batch, which the split of a gp.MercerNormal gives"
    _checks.instance("rest", rest, MercerNormal | EffectiveNormal, what)
    root = _checks.features("root", root)
    y = _checks.finite("y", _checks.targets("y", y, root.shape[0]), ndim=1)
    if rest.shape() != y.shape:
        raise ValueError(
            f"rest has shape {rest.shape()} and root {root.shape[0]} rows; give both of one split"
        )
    white, k = rest.solve(root), root.shape[1]
    inner = jnp.eye(k, dtype=root.dtype) + root.T @ white
    L = factor(0.5 * (inner + inner.T))
    spread = solve_triangular(L, jnp.eye(k, dtype=root.dtype), lower=True).T
    cov = spread @ spread.T
    mean = cov @ (white.T @ (y - rest.loc))
    mean = mean + cov @ (white.T @ (y - rest.loc - root @ mean) - mean)  # refined once
    # Take the density at y minus what the modes explain: there it has no large terms that cancel.
    evidence = rest.shift(root @ mean).log_prob(y) - 0.5 * (mean @ mean + log_det(L))
    return LinearPosterior(mean, spread, evidence)
