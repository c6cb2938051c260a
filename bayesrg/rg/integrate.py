# SPDX-License-Identifier: Apache-2.0
"""The low modes of a coarse model integrated in closed form."""

import jax
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
    r"""Posterior and evidence of the low modes w of a coarse model, in closed form.

    The model is ``y ~ rest.shift(root @ w)`` with standard-normal w. With R the covariance of
    ``rest`` and B the root, the posterior precision of w is :math:`M = I + B^T R^{-1} B`. The
    evidence is the density of ``rest`` with w at its mean m, minus :math:`|m|^2/2 + \ln|M|/2`.

    Parameters
    ----------
    root, rest : (n, k), and MercerNormal or EffectiveNormal without batch
        What ``MercerNormal.split(cutoff, rule)`` returns.
    y : (n,) target

    Returns
    -------
    LinearPosterior
        Of w (k,), with the log evidence of ``y``.

    References
    ----------
    arXiv 2405.06008; the conjugate posterior is Rasmussen and Williams (2006), equation 2.8.
    """
    what = "a law without batch, which the split of a gp.MercerNormal gives"
    _checks.instance("rest", rest, MercerNormal | EffectiveNormal, what)
    root = _checks.features("root", root)
    y = _checks.shaped("y", y, root.shape[:1], "one target per row of root")
    if rest.shape() != y.shape:
        raise ValueError(f"rest has shape {rest.shape()}; give {y.shape}, both of one split")
    white = rest.solve(root)
    L = factor(_precision(root, white))
    mean, spread, explained, own = _regress(L, root, white, y - rest.loc)

    # Take the density at y minus what the modes explain: there it has no large terms that cancel.
    return LinearPosterior(mean, spread, rest.shift(explained).log_prob(y) + own)


@jax.jit
def _precision(root, white):
    inner = jnp.eye(root.shape[1], dtype=root.dtype) + root.T @ white
    return 0.5 * (inner + inner.T)


@jax.jit
def _regress(L, root, white, y):
    """Mean of the modes, root of their covariance, root @ mean, and their part of the evidence."""
    spread = solve_triangular(L, jnp.eye(len(L), dtype=root.dtype), lower=True).T
    cov = spread @ spread.T
    mean = cov @ (white.T @ y)
    # add what the mean leaves of its equation, which loses digits where M is ill-conditioned
    mean = mean + cov @ (white.T @ (y - root @ mean) - mean)
    return mean, spread, root @ mean, -0.5 * (mean @ mean + log_det(L))
