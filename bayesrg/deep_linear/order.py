# SPDX-License-Identifier: Apache-2.0
"""Order parameter of a deep linear network: its chain of Wishart factors, and its prior."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.special import psi

from .. import _checks
from .._checks import ArrayLike


class Bartlett(NamedTuple):
    """Size of the random factor of one layer: a lower trapezoid (rows, rank).

    The squares on its diagonal are chi-squared with ``dof`` (rank,) degrees of freedom. The
    ``normals`` numbers below the diagonal are standard normal. Models sample a square for each of
    the ``pivots``, and ``entries`` normal numbers. A last diagonal entry of one degree of freedom
    with rows below it is sampled as a normal number, because its column may have either sign.
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


class Moments(NamedTuple):
    """Prior moments ``E Q_aa^2``, ``E Q_aa Q_bb``, ``E Q_ab^2`` of two different outputs a, b."""

    diagonal: float
    product: float
    cross: float


def bartlett_sizes(widths: Sequence[int], outputs: int) -> tuple[Bartlett, ...]:
    """List the sizes of the random factors, in the order L, ..., 1 in which they multiply.

    Parameters
    ----------
    widths : (N_1, ..., N_L)
    outputs : int
        Number c of outputs.

    Returns
    -------
    tuple of Bartlett, (L,)
        Each factor is (rows, rank), and its rank is the number of rows of the next one.

    Raises
    ------
    ValueError
        For a width or number of outputs that is not a positive integer.

    Notes
    -----
    In a layer narrower than the columns above it, the last diagonal entry has one degree of
    freedom, and its column may have either sign without changing Q. If this entry had to be
    positive, a chain would stop at zero on its way to the other sign. With its sign, it has no
    boundary.

    References
    ----------
    arXiv 2406.03260 for the chain of Wishart laws.
    """
    widths, rows = _checks.whole_numbers("widths", widths), _checks.whole("outputs", outputs)
    sizes = []
    for layer in range(len(widths), 0, -1):
        sizes.append(Bartlett(layer, widths[layer - 1], rows))
        rows = sizes[-1].rank
    return tuple(sizes)


def bartlett_factor(
    size: Bartlett, squares: ArrayLike | None, normals: ArrayLike | None
) -> Float[Array, "*batch row rank"]:
    """Return the lower trapezoid B of a layer, made of its squares and normal numbers.

    Parameters
    ----------
    size : Bartlett
    squares : (..., rank) or (..., rank - 1), squared diagonal; None if there is none
    normals : (..., k)
        Entries below the diagonal and those diagonal entries whose squares are not given, row by
        row; None if there are none.

    Returns
    -------
    (..., rows, rank)
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
    """Check the ``latents`` of a chain and assemble the trapezoids B of its ``sizes``."""
    if not isinstance(latents, Mapping):
        raise ValueError(
            f"latents must be a mapping of c1, t1 and so on, got {_checks.shown(latents)}; give "
            "the sites of the model, or a draw of them"
        )
    given = {}
    for size in sizes:
        least, total = size.rank - (size.rows > size.width), size.rank + size.normals
        squares, normals = f"c{size.layer}", f"t{size.layer}"
        for name, check in ((squares, _checks.nonnegative), (normals, _checks.finite)):
            if latents.get(name) is not None:
                given[name] = jnp.atleast_1d(check(f"latents[{name!r}]", latents[name]))
        c, t = (given[n].shape[-1] if n in given else 0 for n in (squares, normals))
        if not least <= c <= size.rank or c + t != total:
            raise ValueError(
                f"latents has {c} numbers in {squares!r} and {t} in {normals!r}; give {least} and "
                f"{total - least}, as layer {size.layer} of the model has"
            )

    batch = _checks.fit(**{name: value.shape[:-1] for name, value in given.items()})
    given = {name: jnp.broadcast_to(v, batch + v.shape[-1:]) for name, v in given.items()}
    return [bartlett_factor(s, given.get(f"c{s.layer}"), given.get(f"t{s.layer}")) for s in sizes]


def order_parameter(widths: Sequence[int], outputs: int, latents: Mapping[str, ArrayLike]) -> Order:
    r"""Return the order parameter and its chain of factors.

    :math:`G_l = G_{l+1} B_l/\sqrt{N_l}` from the identity down to :math:`Q = G_1 G_1^T`.

    Parameters
    ----------
    widths : (N_1, ..., N_L)
    outputs : int
        Number c of outputs.
    latents : mapping
        For every layer ``c{l}`` (..., pivots) and ``t{l}`` (..., entries), the numbers that
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

    References
    ----------
    arXiv 2406.03260.
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


def order_moments(widths: Sequence[int]) -> Moments:
    """Return prior moments of the order parameter of hidden layers of ``widths`` (N_1, ..., N_L).

    The mean of the order parameter is the identity.
    """
    # A layer of width N changes the moments (a, b, c) to a (1 + 2/N), b + 2c/N, c + (b + c)/N.
    a, b, c = 1.0, 1.0, 0.0
    for width in widths[::-1]:
        a, b, c = a * (1 + 2 / width), b + 2 * c / width, c + (b + c) / width
    return Moments(a, b, c)


def order_log_det(widths: Sequence[int], outputs: int) -> float:
    r"""Return the prior mean of :math:`\log\det Q` for hidden ``widths`` and c ``outputs``.

    It is minus infinity if a width is below c, because Q is then singular.
    """
    if min(widths, default=outputs) < outputs:
        return -np.inf
    i = np.arange(outputs)
    return float(sum((psi((width - i) / 2) + np.log(2 / width)).sum() for width in widths))
