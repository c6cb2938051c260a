# SPDX-License-Identifier: Apache-2.0
"""Which derivative a law of eigenpairs takes: in its matrix, or in other arguments alone.

Eigenvectors have no derivative where eigenvalues meet, so they are constants. If the matrix moves,
the derivative is that of the matrix.
"""

import equinox as eqx
import jax
import jax.numpy as jnp


def matrix_moves(d_prior, d_vectors, d_values):
    """Say whether a derivative is in the matrix, by the tangents of its parts and eigenpairs.

    If eigenvalues move alone, with fixed vectors, the formula of the pairs has the derivative.
    """
    alone = d_vectors is None and d_values is not None
    return bool(jax.tree.leaves(d_prior)) and not alone


@eqx.filter_custom_jvp
def held(vectors, values, prior, message, fixed):
    """Return eigenpairs that refuse a derivative in the parts of their matrix.

    The error has the text ``message``. Eigenvalues may move alone; vectors may move with them,
    unless they are ``fixed``.
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
