# SPDX-License-Identifier: Apache-2.0
"""Derivatives of functions of eigenpairs: with respect to the matrix, or to other arguments.

Eigenvectors have no derivative where eigenvalues coincide, so that they are treated as constants.
If the matrix depends on the parameter, the derivative is computed from the matrix instead.
"""

import equinox as eqx
import jax
import jax.numpy as jnp


def matrix_moves(d_prior, d_vectors, d_values):
    """Return whether the matrix has a derivative, given the tangents of its parts and eigenpairs.

    If only the eigenvalues have a tangent and the vectors do not, the answer is no: the formula in
    terms of eigenpairs then gives the derivative.
    """
    alone = d_vectors is None and d_values is not None
    return bool(jax.tree.leaves(d_prior)) and not alone


@eqx.filter_custom_jvp
def held(vectors, values, prior, message, fixed):
    """Return the eigenpairs, marked so that a derivative in the parts of ``prior`` is an error.

    The NotImplementedError has the text ``message``. A derivative in the eigenvalues is allowed;
    one in the vectors too, unless ``fixed``.
    """
    return vectors, values


@held.def_jvp
def _held_jvp(primals, tangents):
    vectors, values, _, message, fixed = primals
    d_vectors, d_values = tangents[:2]
    none = d_vectors is None and d_values is None  # only the parts move
    if none or (fixed and (d_vectors is not None or d_values is None)):
        raise NotImplementedError(message)
    d_vectors = jnp.zeros_like(vectors) if d_vectors is None else d_vectors
    d_values = jnp.zeros_like(values) if d_values is None else d_values
    return (vectors, values), (d_vectors, d_values)
