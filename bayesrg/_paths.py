# SPDX-License-Identifier: Apache-2.0
"""Paths of points through the layers of a residual network."""

import equinox as eqx
from jax import Array
from jaxtyping import Float


class Paths(eqx.Module):
    r"""Paths of n points through K layers, :math:`x_{k+1} = x_k + \Delta_k`.

    Increments are kept beside the states, because differences of states would lose digits of small
    increments.

    Attributes
    ----------
    states : (K + 1, n, d)
        :math:`x_0, ..., x_K`.
    increments : (K, n, d)
        :math:`\Delta_0, ..., \Delta_{K-1}`.
    """

    states: Float[Array, "*draw state point feature"]
    increments: Float[Array, "*draw layer point feature"]
