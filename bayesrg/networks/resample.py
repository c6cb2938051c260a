# SPDX-License-Identifier: Apache-2.0
"""Draw new networks whose layers have the weight covariances of a trained one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._activations import activation_function, one_a_layer
from .._checks import ArrayLike
from .._linalg import svd


class Alignment(NamedTuple):
    """Rotation (p, p_new) from features of one network to another's, and its relative error ()."""

    rotation: Array
    error: Array


class Resampled(NamedTuple):
    """Result of `resample`.

    ``weights`` are L matrices, ``readout`` (c, p_new) or None, ``rotations`` L matrices
    (p_l, p_new_l), ``errors`` (L,) the alignment errors on the inputs that fixed the rotations
    and ``held_out`` (L,) those on other inputs, or None.
    """

    weights: tuple[Array, ...]
    readout: Array | None
    rotations: tuple[Array, ...]
    errors: Float[Array, " layer"]
    held_out: Float[Array, " layer"] | None


def weight_covariance(W: ArrayLike) -> Float[Array, "unit unit_bis"]:
    r"""Estimate the covariance :math:`\hat C = (N_{l-1}/N_l) W^TW` of the rows of weights.

    Returned is (N_{l-1}, N_{l-1}), for ``W`` (N_l, N_{l-1}).

    Rows of W have covariance :math:`\hat C/N_{l-1}`, as in `Rainbow`; its rank is at most N_l.
    Average over several networks only after `procrustes` has aligned them (arXiv 2305.18512).
    """
    W = _checks.finite("W", W, ndim=2)
    if not W.size:
        raise ValueError(f"W has shape {W.shape}; give a matrix with entries")
    return _checks.defined("W", W.shape[1] / W.shape[0] * W.T @ W)


def _pair(H, H_new):
    H, H_new = _checks.finite("H", H, ndim=2), _checks.finite("H_new", H_new, ndim=2)
    if H.shape[0] != H_new.shape[0]:
        raise ValueError(
            f"H has {H.shape[0]} rows and H_new {H_new.shape[0]}; give the features of both "
            "networks at the same inputs"
        )
    return H, H_new * np.sqrt(H.shape[1] / H_new.shape[1])


def procrustes(H: ArrayLike, H_new: ArrayLike) -> Alignment:
    r"""Find the rotation that brings the features of one network closest to another's.

    With :math:`M = H^TH'/n = USV^T` it is :math:`A = UV^T`, of thin singular vectors. Its error
    on these inputs is :math:`(\mathrm{tr}\,E hh^T + \mathrm{tr}\,E h'h'^T - 2\|M\|_*)
    /\mathrm{tr}\,E hh^T`, with :math:`H'` scaled by :math:`\sqrt{p/p'}` first.

    Parameters
    ----------
    H : (n, p) features of the reference network
    H_new : (n, p') features of the other, at the same inputs

    Returns
    -------
    Alignment

    Raises
    ------
    ValueError
        For different numbers of rows.

    References
    ----------
    arXiv 2305.18512.
    """
    H, scaled = _pair(H, H_new)
    U, _, Vt = svd(H.T @ scaled)
    return Alignment(U @ Vt, alignment_error(H, H_new, U @ Vt))


def alignment_error(H: ArrayLike, H_new: ArrayLike, rotation: ArrayLike) -> Float[Array, ""]:
    r"""Measure how far features differ after a rotation, in units of their mean square.

    It is :math:`(E\|h\|^2 + E\|h'\|^2 - 2 E h^TAh')/E\|h\|^2` with :math:`h'` scaled by
    :math:`\sqrt{p/p'}`: for :math:`p' \le p` the mean of :math:`\|Ah' - h\|^2`, for
    :math:`p' \ge p` that of :math:`\|h' - A^Th\|^2`. Give inputs that did not fix the rotation.

    Parameters
    ----------
    H, H_new : (n, p) and (n, p'), features of the two networks at the same inputs
    rotation : (p, p'), from `procrustes`

    Returns
    -------
    (), 0 for equal features, about 2 for unrelated ones

    Raises
    ------
    ValueError
        For shapes that do not fit.

    References
    ----------
    arXiv 2305.18512.
    """
    H, H_new = _pair(H, H_new)
    shape = H.shape[1], H_new.shape[1]
    rotation = _checks.shaped("rotation", rotation, shape, "the rotation of procrustes(H, H_new)")
    square = (H**2).sum()
    if _checks.known(square) and not square > 0:
        raise ValueError(
            "features H, of X or X_test, are zero at all inputs, and errors are in units of their "
            "mean square"
        )
    error = (square + (H_new**2).sum() - 2 * ((H @ rotation) * H_new).sum()) / square
    return _checks.defined("H, H_new or rotation", error)


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

    Layer 1 is drawn with rows of covariance :math:`W_1^TW_1/N_1`. Every further layer is drawn
    in the coordinates of the trained network, and turned into those of the new one by the
    rotation that aligns the features below it, times :math:`\sqrt{N_l/N'_l}`. The read-out is
    turned, not drawn.

    Parameters
    ----------
    weights : sequence of (N_l, N_{l-1})
        Of the hidden layers of the trained network, without biases.
    X : (n, d)
        Inputs that fix the rotations; more than the widths.
    activations : str, callable, or a sequence of one per layer
    key : JAX key, or int
    widths : (L,), optional
        Of the new network; by default the same.
    readout : (c, N_L), optional
    X_test : (m, d), optional
        Inputs for ``held_out``: errors on X itself are too small.

    Returns
    -------
    Resampled

    Raises
    ------
    ValueError
        For weights, widths, activations or inputs that do not fit together.

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
    activations = one_a_layer("activations", activations, depth)
    widths = [W.shape[0] for W in weights] if widths is None else widths
    widths = _checks.whole_numbers("widths", widths)
    if len(widths) != depth:
        raise ValueError(f"widths has {len(widths)} entries for {depth} layers; give one per layer")
    X = _checks.inputs("X", X)
    sets = [X] if X_test is None else [X, _checks.inputs("X_test", X_test)]
    _checks.columns("X_test", sets[-1], X.shape[1], "X")
    key = _checks.random_key(key)
    old, new = list(sets), list(sets)
    drawn, rotations, errors = [], [], []
    for l, (W, width, name) in enumerate(zip(weights, widths, activations, strict=True)):  # noqa: E741
        if W.shape[1] != old[0].shape[1]:
            raise ValueError(
                f"weights[{l}] has shape {W.shape} and gets {old[0].shape[1]} inputs; give "
                "matrices (N_l, N_{l-1}), from the inputs up"
            )
        key, part = random.split(key)
        V = _draw(part, W, width)
        if l:
            V = V @ rotations[-1] * np.sqrt(rotations[-1].shape[0] / rotations[-1].shape[1])
        activation = activation_function(name)
        old, new = [activation(H @ W.T) for H in old], [activation(H @ V.T) for H in new]
        rotation, error = procrustes(old[0], new[0])
        further = [alignment_error(H, G, rotation) for H, G in zip(old[1:], new[1:], strict=True)]
        drawn.append(V)
        rotations.append(rotation)
        errors.append([error, *further])
    if readout is not None:
        readout = _checks.finite("readout", readout, ndim=2)
        if readout.shape[1] != weights[-1].shape[0]:
            raise ValueError(
                f"readout has shape {readout.shape} and the last layer {weights[-1].shape[0]} "
                "units; give (c, N_L)"
            )
        readout = readout @ rotations[-1] * np.sqrt(weights[-1].shape[0] / widths[-1])
    errors = jnp.asarray(errors)
    held_out = None if X_test is None else errors[:, 1]
    return Resampled(tuple(drawn), readout, tuple(rotations), errors[:, 0], held_out)


def _draw(key, W, rows):
    """Draw rows of covariance W^T W / N."""
    _, singular, Qt = svd(W)
    return random.normal(key, (rows, singular.size), W.dtype) * singular @ Qt / np.sqrt(W.shape[0])
