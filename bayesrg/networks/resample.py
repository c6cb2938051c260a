# SPDX-License-Identifier: Apache-2.0
"""Draw new networks whose layers have the weight covariances of a trained one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._activations import activation_function, one_per_layer
from .._checks import ArrayLike
from .._linalg import svd


class Alignment(NamedTuple):
    """Result of `procrustes`.

    Attributes
    ----------
    rotation : (p, p')
        Matrix that turns features of the second network into those of the first.
    error : ()
        Mean squared difference that is left, divided by the mean square of the first's features.
    """

    rotation: Array
    error: Array


class Resampled(NamedTuple):
    """Result of `resample`.

    Attributes
    ----------
    weights : tuple of L matrices
        Weights of the new network.
    readout : (c, p_L') or None
        The turned read-out, if one was given.
    rotations : tuple of L matrices (p_l, p_l')
        Rotations from the new features of each layer to the trained ones.
    errors : (L,)
        Alignment errors on the inputs that fixed the rotations.
    held_out : (L,) or None
        Alignment errors on ``X_test``.
    """

    weights: tuple[Array, ...]
    readout: Array | None
    rotations: tuple[Array, ...]
    errors: Float[Array, " layer"]
    held_out: Float[Array, " layer"] | None


def weight_covariance(W: ArrayLike) -> Float[Array, "unit unit_bis"]:
    r"""Estimate the covariance :math:`\hat C = (N_{l-1}/N_l) W^TW` of the rows of weights.

    Return a matrix (N_{l-1}, N_{l-1}) for ``W`` (N_l, N_{l-1}). Its rank is at most N_l. Rows of W
    have covariance :math:`\hat C/N_{l-1}`, as in `Rainbow`. Average over several networks only
    after `procrustes` has aligned them (arXiv 2305.18512).
    """
    W = _checks.finite("W", W, ndim=2)
    if not W.size:
        raise ValueError(f"W has shape {W.shape}; give a matrix with entries")
    return _checks.defined("W", W.shape[1] / W.shape[0] * W.T @ W)


def procrustes(H: ArrayLike, H_new: ArrayLike) -> Alignment:
    r"""Find the rotation that brings the features of one network closest to another's.

    The rotation is :math:`A = UV^T`, from the thin singular value decomposition
    :math:`H^TH' = USV^T`, where :math:`H'` is ``H_new`` times :math:`\sqrt{p/p'}`. Its error is
    :math:`(E\|h\|^2 + E\|h'\|^2 - 2 E h^TAh')/E\|h\|^2`: 0 for equal features and about 2 for
    unrelated ones. For :math:`p' \le p` this is the relative mean of :math:`\|Ah' - h\|^2`, for
    :math:`p' \ge p` that of :math:`\|h' - A^Th\|^2`. On these inputs the error is too small, since
    they fix the rotation.

    Parameters
    ----------
    H : (n, p)
        Features of the reference network.
    H_new : (n, p')
        Features of the other network at the same inputs.

    Returns
    -------
    Alignment

    References
    ----------
    arXiv 2305.18512.
    """
    H, H_new = _checks.finite("H", H, ndim=2), _checks.finite("H_new", H_new, ndim=2)
    if len(H) != len(H_new):
        raise ValueError(
            f"H has {len(H)} rows and H_new {len(H_new)}; give the features of both networks at "
            "the same inputs"
        )
    return _align(H, H_new)


def resample(
    weights: Sequence[ArrayLike],
    X: ArrayLike,
    *,
    activations: str | Callable | Sequence[str | Callable],
    key: Array | int,
    widths: Sequence[int] | None = None,
    readout: ArrayLike | None = None,
    X_test: ArrayLike | None = None,
) -> Resampled:
    r"""Draw a network whose layers have the weight covariances of a trained one.

    The rows of layer 1 are drawn with covariance :math:`W_1^TW_1/N_1`. The rows of each further
    layer are drawn in the same way, for the features of the trained network below it. They are
    then turned to match the new features: multiplied by the rotation of `procrustes` and by
    :math:`\sqrt{N_l/N'_l}`. The read-out is turned but not drawn.

    Parameters
    ----------
    weights : sequence of (N_l, N_{l-1})
        Weights of the hidden layers of the trained network, which has no biases.
    X : (n, d)
        Inputs that fix the rotations; n should be larger than the widths.
    activations : str, callable, or a sequence of one per layer
        Activations of the trained network.
    key : JAX key, or int
    widths : (L,), optional
        Widths of the new network; by default those of the trained one.
    readout : (c, N_L), optional
        Read-out of the trained network.
    X_test : (m, d), optional
        Inputs for ``held_out``. Alignment errors on X itself are too small.

    Returns
    -------
    Resampled

    Notes
    -----
    Rows are drawn through a thin singular value decomposition; no covariance is formed.

    References
    ----------
    arXiv 2305.18512.
    """
    weights = _checks.matrices("weights", weights)
    depth = len(weights)
    if depth == 0:
        raise ValueError("weights is empty; give the matrices of the hidden layers")
    activations = one_per_layer("activations", activations, depth)
    widths = [len(W) for W in weights] if widths is None else widths
    widths = _checks.whole_numbers("widths", widths)
    if len(widths) != depth:
        raise ValueError(f"widths has {len(widths)} entries for {depth} layers; give one per layer")
    X = _checks.inputs("X", X)
    sets = [X] if X_test is None else [X, _checks.inputs("X_test", X_test)]
    _checks.columns("X_test", sets[-1], X.shape[1], "X")
    sizes = [X.shape[1], *map(len, weights)]
    for i, W in enumerate(weights):
        _checks.shaped(f"weights[{i}]", W, (len(W), sizes[i]), "(N_l, N_{l-1}) from the inputs up")
    if readout is not None:
        readout = _checks.finite("readout", readout, ndim=2)
        shape = len(readout), sizes[-1]
        readout = _checks.shaped("readout", readout, shape, "one column per unit of the last layer")
    key = _checks.random_key(key)

    old, new = sets, sets  # features of both networks, at X and at X_test
    drawn, rotations, errors = [], [], []
    for W, width, name in zip(weights, widths, activations, strict=True):
        key, part = random.split(key)
        V = _draw(part, W, width)
        if rotations:
            V = _turned(V, rotations[-1])
        f = activation_function(name)
        old, new = [f(H @ W.T) for H in old], [f(H @ V.T) for H in new]
        rotation, error = _align(old[0], new[0])
        further = [_error(H, G, rotation) for H, G in zip(old[1:], new[1:], strict=True)]
        drawn.append(V)
        rotations.append(rotation)
        errors.append([error, *further])

    errors = jnp.asarray(errors)
    held_out = None if X_test is None else errors[:, 1]
    readout = readout if readout is None else _turned(readout, rotations[-1])
    return Resampled(tuple(drawn), readout, tuple(rotations), errors[:, 0], held_out)


def _draw(key, W, rows):
    """Draw rows of covariance W^T W / N."""
    _, singular, Qt = svd(W)
    return random.normal(key, (rows, singular.size), W.dtype) * singular @ Qt / np.sqrt(len(W))


def _turned(A, rotation):
    """Return rows A (m, p) that act on trained features, for the new features (m, p')."""
    p, p_new = rotation.shape
    return A @ rotation * np.sqrt(p / p_new)


def _align(H, H_new):
    """`procrustes` without checks."""
    U, _, Vt = svd(H.T @ _scaled(H, H_new))
    return Alignment(U @ Vt, _error(H, H_new, U @ Vt))


def _scaled(H, H_new):
    """Features ``H_new`` (n, p'), scaled so that their sum of squares is comparable to H's."""
    return H_new * np.sqrt(H.shape[1] / H_new.shape[1])


def _error(H, H_new, rotation):
    """Relative mean squared difference of features H and ``H_new`` after a rotation."""
    H_new, square = _scaled(H, H_new), (H**2).sum()
    if _checks.known(square) and not square > 0:
        raise ValueError(
            "features H, of X or X_test, are zero at all inputs, and errors are in units of their "
            "mean square"
        )
    error = (square + (H_new**2).sum() - 2 * ((H @ rotation) * H_new).sum()) / square
    return _checks.defined("H or H_new", error)
