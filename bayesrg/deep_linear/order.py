# SPDX-License-Identifier: Apache-2.0
"""Order parameter of a deep linear network, a product of one random factor per layer.

Under the prior Q = G_1 G_1^T is a chain of Wishart matrices: G_l = G_{l+1} B_l / sqrt(N_l), where
the Bartlett factor B_l is a lower trapezoid of independent numbers (arXiv 2406.03260).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike


class Bartlett(NamedTuple):
    """Size of the random factor of one layer: a lower trapezoid (rows, rank).

    The squares on its diagonal are chi-squared with ``dof`` (rank,) degrees of freedom. The
    ``normals`` numbers below the diagonal are standard normal. Models sample a square for each of
    the ``pivots``, and ``entries`` normal numbers.
    """

    layer: int
    width: int
    rows: int

    @property
    def rank(self) -> int:
        """Columns of the factor."""
        return min(self.rows, self.width)

    @property
    def normals(self) -> int:
        """Number of entries below the diagonal."""
        return self.rows * self.rank - self.rank * (self.rank + 1) // 2

    @property
    def dof(self) -> Float[np.ndarray, " rank"]:
        """Degrees of freedom of the squared diagonal, N - i."""
        return self.width - np.arange(self.rank, dtype=float)

    # In a layer narrower than the columns above it, the last diagonal entry has one degree of
    # freedom, and its column may have either sign without changing Q. If this entry had to be
    # positive, a chain would stop at zero on its way to the other sign. So it is sampled as a
    # normal number.

    @property
    def pivots(self) -> Float[np.ndarray, " pivot"]:
        """Degrees of freedom of the squares that models sample."""
        return self.dof[: self.rank - (self.rows > self.width)]

    @property
    def entries(self) -> int:
        """Number of normal numbers that models sample."""
        return self.normals + self.rank - self.pivots.size


class Order(NamedTuple):
    """Order parameter ``Q`` (..., c, c) and its ``chain`` of factors (G_1, ..., G_L).

    ``G_l`` is (..., c, r_l). ``G_l G_l^T`` is the order parameter of the network that takes layer
    l - 1 as its inputs; ``Q = G_1 G_1^T``.
    """

    Q: Float[Array, "*batch output output_bis"]
    chain: tuple[Array, ...]


def bartlett_sizes(widths: Sequence[int], outputs: int) -> tuple[Bartlett, ...]:
    """Return the sizes of the random factors, in the order L, ..., 1 in which they multiply.

    ``widths`` are (N_1, ..., N_L), and ``outputs`` is the number c of outputs. The factor of a
    layer is (rows, rank); the first has c rows, and each other as many as the one before has
    columns.
    """
    widths, outputs = _checks.whole_numbers("widths", widths), _checks.whole("outputs", outputs)
    return chain_sizes(widths, outputs, (1,) * len(widths))


def chain_sizes(widths, rows, masks) -> tuple[Bartlett, ...]:
    """Return the sizes of a chain whose factor of layer L has ``rows``.

    Every column of a factor becomes ``masks`` (L,) rows of the next.
    """
    sizes = []
    for layer in range(len(widths), 0, -1):
        sizes.append(Bartlett(layer, widths[layer - 1], rows))
        rows = sizes[-1].rank * masks[layer - 1]
    return tuple(sizes)


def bartlett_factor(
    size: Bartlett, squares: ArrayLike | None, normals: ArrayLike | None
) -> Float[Array, "*batch row rank"]:
    """Return the lower trapezoid B (..., rows, rank) of a layer.

    ``squares`` (..., rank) or (..., rank - 1) is the squared diagonal. ``normals`` (..., k) are the
    entries below the diagonal, and diagonal entries whose square is not given, row by row. Either
    is None if it has no number.
    """
    given = jnp.asarray(normals if squares is None else squares)
    squares = given[..., :0] if squares is None else given
    i = np.arange(squares.shape[-1])
    B = jnp.zeros(given.shape[:-1] + (size.rows, size.rank), given.dtype)
    B = B.at[..., i, i].set(jnp.sqrt(squares))
    if normals is None:
        return B

    rows, columns = np.tril_indices(size.rows, 0, size.rank)
    free = (rows > columns) | (columns >= i.size)
    return B.at[..., rows[free], columns[free]].set(jnp.asarray(normals))


def bartlett_factors(
    sizes: Sequence[Bartlett], latents: Mapping[str, ArrayLike]
) -> list[Float[Array, "*batch row rank"]]:
    """Check the ``latents`` of a chain and return the trapezoids B of its ``sizes``."""
    _checks.instance(
        "latents", latents, Mapping, "a mapping of c1, t1 and so on, as the model samples them"
    )
    given = {}
    for size in sizes:
        squares, normals = f"c{size.layer}", f"t{size.layer}"
        for name, check in ((squares, _checks.nonnegative), (normals, _checks.finite)):
            if latents.get(name) is not None:
                given[name] = jnp.atleast_1d(check(f"latents[{name!r}]", latents[name]))

        # Whole diagonals are allowed too: other densities than that of the model use them.
        c, t = (given[n].shape[-1] if n in given else 0 for n in (squares, normals))
        if not size.pivots.size <= c <= size.rank or c + t != size.rank + size.normals:
            raise ValueError(
                f"latents has {c} numbers in {squares!r} and {t} in {normals!r}; give "
                f"{size.pivots.size} and {size.entries}, as layer {size.layer} of the model has"
            )

    batch = _checks.fit(**{name: value.shape[:-1] for name, value in given.items()})
    given = {name: jnp.broadcast_to(v, batch + v.shape[-1:]) for name, v in given.items()}
    return [bartlett_factor(s, given.get(f"c{s.layer}"), given.get(f"t{s.layer}")) for s in sizes]


def order_parameter(widths: Sequence[int], outputs: int, latents: Mapping[str, ArrayLike]) -> Order:
    r"""Return the order parameter and its chain of factors.

    :math:`G_l = G_{l+1} B_l/\sqrt{N_l}` from the identity down to :math:`Q = G_1 G_1^T` (arXiv
    2406.03260).

    Parameters
    ----------
    widths : (N_1, ..., N_L)
    outputs : int, number c of outputs
    latents : mapping
        For every layer l ``c{l}`` (..., pivots) and ``t{l}`` (..., entries), the numbers that
        `bartlett_sizes` counts: sites of the model deep_linear_collapsed, or draws of them. A name
        without numbers is left out.

    Returns
    -------
    Order
        ``Q`` (..., c, c) and its ``chain`` of factors (..., c, r_l), for l = 1..L.

    Raises
    ------
    ValueError
        For latents that are missing, not finite or of another shape, or negative squares ``c{l}``.
    """
    sizes = bartlett_sizes(widths, outputs)
    factors, G, chain = bartlett_factors(sizes, latents), jnp.eye(outputs), []
    for size, B in zip(sizes, factors, strict=True):
        G = G @ B / np.sqrt(size.width)
        chain.append(G)
    Q = G @ jnp.swapaxes(G, -1, -2)
    return Order(_checks.defined("latents", Q), tuple(chain[::-1]))


def latent_excess(
    widths: Sequence[int], outputs: int, latents: Mapping[str, ArrayLike]
) -> Float[Array, "*batch layer"]:
    r"""Return the excess of every layer's factor over its prior mean, (..., L).

    Entry l is :math:`\|B_l\|^2 - N_l d_l` for the d_l rows of B_l. Its posterior mean is equal in
    all layers: it is the posterior mean of `drive`. ``widths`` are (N_1, ..., N_L), ``outputs`` is
    c, and ``latents`` maps ``c{l}`` and ``t{l}`` to the squares and normal numbers of layer l.
    """
    sizes, result = bartlett_sizes(widths, outputs), []
    for size, B in zip(sizes, bartlett_factors(sizes, latents), strict=True):
        result.append((B**2).sum((-2, -1)) - size.width * size.rows)
    return jnp.stack(result[::-1], -1)
