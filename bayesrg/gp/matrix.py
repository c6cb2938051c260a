# SPDX-License-Identifier: Apache-2.0
"""The marginal likelihood of several outputs that are correlated by an order parameter."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import Blocks, Kronecker, Prior, log_density
from .._linalg import quad_logdet, safe_sqrt, square_root
from .law_checks import (
    at_points,
    check_eigen,
    check_sample_shape,
    judge_pairs,
    refuse_order,
    refuse_stale,
)
from .marginal import eigenpairs

_RULES = ("exact", "local", "universal", "truncate")


class MatrixMercerNormal(dist.Distribution):
    r"""Observations (n, c) of several functions that are correlated alike at every point.

    The covariance of entries (i, a) and (j, b) is ``K_ij Q_ab + ridge I``, with the kernel matrix
    ``K = features diag(values) features^T + residual`` and the order parameter Q:

    .. math:: \ln p(Y|Q) = -\tfrac12\sum_i\left[\ln|2\pi M_i| + \tilde y_i^T M_i^{-1}\tilde y_i
              \right],\qquad M_i = \kappa_i Q + \sigma^2 I,\quad \tilde Y = U^T Y,

    where :math:`K = U\,\mathrm{diag}(\kappa)\,U^T`: one block of size c an eigenvalue.

    Parameters
    ----------
    features : (n, k) mode functions at the points
    values : (k,) prior variances of the modes
    ridge : (...), noise variance; zero if K and Q have full rank (see the notes)
    order : (..., c, c), order parameter Q, symmetric and positive semi-definite
    factor : (..., c, r), optional
        Any F with ``F F^T = Q``, for draws and cuts; its Cholesky factor by default, so a singular
        Q needs it. It must be smooth in what a sampler moves.
    residual : (n,) or (n, n), optional
        Prior covariance that the modes leave out.
    loc : () or (..., n, c)
    eigen : (vectors (n, r), eigenvalues (r,)), optional
        From `eigenpairs`, made once outside the sampler. Without it they are computed at every
        evaluation. Eigenpairs alone are modes too:
        ``MatrixMercerNormal(*eigen, ridge, order, eigen=eigen)``.

    Raises
    ------
    ValueError
        For mismatched shapes, a negative ridge, an order parameter that is not symmetric and
        positive semi-definite, or a singular one without noise.
    RuntimeError
        With 64-bit floats off and no ``eigen``.

    Notes
    -----
    Event shape (n, c); batches of order parameters or ridges stand in front. Q is never
    diagonalised, so the density is smooth where its eigenvalues coincide; its cost is
    :math:`O(nc^3)`. Eigenvectors of K are not differentiated either: ``log_prob`` and draws have
    first derivatives in features, values and residual, also where eigenvalues meet; methods without
    them, such as ``loo``, raise. An amplitude of the whole prior belongs into Q. Without noise and
    with K of rank below n the density is that on the range of K, and zero for observations outside.

    References
    ----------
    arXiv 2406.03260 (deep linear networks, conditional on the order parameter).
    """

    support = constraints.real_matrix
    event_dims = ("point", "output")
    gram = None  # for the checks shared with MercerNormal
    pytree_data_fields = (
        "features", "values", "ridge", "order", "factor", "residual", "loc", "eigen",
    )  # fmt: skip
    pytree_aux_fields = ()

    def __init__(
        self,
        features: ArrayLike,
        values: ArrayLike,
        ridge: ArrayLike,
        order: ArrayLike,
        *,
        factor: ArrayLike | None = None,
        residual: ArrayLike | None = None,
        loc: ArrayLike = 0.0,
        eigen: tuple[ArrayLike, ArrayLike] | None = None,
        validate_args: bool | None = None,
    ):
        self.features = _checks.features("features", features)
        n, k = self.features.shape
        self.values = _checks.eigenvalues(values, falling=False)
        if self.values.shape != (k,):
            raise ValueError(
                f"values has shape {self.values.shape} but features has {k} columns; give one "
                "value per mode, shape (k,)"
            )
        self.ridge = _checks.nonnegative("ridge", ridge)
        self.order = _checks.finite("order", order)
        if self.order.ndim < 2 or self.order.shape[-1] != self.order.shape[-2]:
            raise ValueError(
                f"order has shape {self.order.shape}; give the order parameter of c outputs, "
                "(..., c, c)"
            )
        c = self.order.shape[-1]
        self.factor = None if factor is None else _checks.finite("factor", factor)
        if self.factor is not None and self.factor.shape[-2:-1] != (c,):
            raise ValueError(f"factor has shape {self.factor.shape}; give (..., {c}, r)")
        self.residual = None
        if residual is not None:
            self.residual = _checks.finite("residual", residual, ndim=(1, 2))
            if self.residual.shape not in ((n,), (n, n)):
                raise ValueError(
                    f"residual has shape {self.residual.shape}; give ({n},) or ({n}, {n})"
                )
        loc = _checks.finite("loc", loc)
        self.loc = loc[None, None] if loc.ndim == 0 else loc
        if self.loc.ndim < 2 or any(
            got not in (1, allowed)
            for got, allowed in zip(self.loc.shape[-2:], (n, c), strict=True)
        ):
            raise ValueError(f"loc has shape {self.loc.shape}; give () or (..., {n}, {c})")
        self.eigen = check_eigen(eigen)
        batch = _checks.fit(
            ridge=self.ridge.shape, order=self.order.shape[:-2], loc=self.loc.shape[:-2]
        )
        super().__init__(batch, (n, c), validate_args=validate_args)
        refuse_order(self.order, self.ridge)
        refuse_stale(self)

    @property
    def _prior(self):
        return Prior(self.features, self.values, self.residual)

    def _prior_diagonal(self):
        diagonal = self.features**2 @ self.values
        if self.residual is None:
            return diagonal
        return diagonal + (
            self.residual if self.residual.ndim == 1 else jnp.diagonal(self.residual)
        )

    @property
    def covariance_matrix(self) -> Float[Array, "*batch entry entry_bis"]:
        """The covariance of the event flattened row by row: (..., n c, n c)."""
        K, Q = self._prior.matrix(), self.order
        n, c = self.event_shape
        blocks = K[:, None, :, None] * Q[..., None, :, None, :]
        noise = self.ridge[..., None, None] * jnp.eye(n * c, dtype=K.dtype)
        return blocks.reshape(Q.shape[:-2] + (n * c, n * c)) + noise

    @property
    def mean(self) -> Float[Array, "*batch point output"]:
        """The mean, (..., n, c)."""
        return jnp.broadcast_to(self.loc, self.shape())

    @property
    def variance(self) -> Float[Array, "*batch point output"]:
        """The variance of each observation, (..., n, c)."""
        return jnp.broadcast_to(self.prior_variance() + self.ridge[..., None, None], self.shape())

    def prior_variance(self) -> Float[Array, "*batch point output"]:
        """Variance of each function at each point, noise left out."""
        outputs = jnp.diagonal(self.order, axis1=-2, axis2=-1)
        return self._prior_diagonal()[:, None] * outputs[..., None, :]

    def _algebra(self):
        n, k = self.features.shape
        if self.eigen is not None:
            if self.eigen[0].shape[0] != n:
                raise ValueError(
                    f"eigen has {self.eigen[0].shape[0]} rows but there are {n} points; compute "
                    "gp.eigenpairs on these points or leave eigen out"
                )
            vectors, kappa = self.eigen
        elif k == 0 and self.residual is None:
            vectors, kappa = self.features, self.values
        elif k == 0 and self.residual.ndim == 1:
            vectors, kappa = None, self.residual
        else:
            vectors, kappa = eigenpairs(self.features, self.values, self.residual)
        if self._dense:
            judge_pairs(kappa, self.order, self.ridge)
        return Blocks(vectors, kappa, self.order, self.ridge)

    def _columns(self):
        """Columns A (n, .) with K = A A^T, smooth in features, values and residual."""
        columns = self.features * safe_sqrt(self.values)
        if self.residual is None:
            return columns
        rest = square_root(self.residual)[0] if self._dense else jnp.diag(safe_sqrt(self.residual))
        return jnp.concatenate([columns, rest], 1)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Log density of observations (..., n, c)."""
        return log_density(self._prior, self._algebra(), self._centred(value))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw observations, ``sample_shape + batch_shape + (n, c)``."""
        key = _checks.random_key(key)
        (n, c), columns = self.event_shape, self._columns()
        rank = columns.shape[1]
        shape = check_sample_shape(sample_shape) + self.batch_shape + (rank + n, c)
        white = random.normal(key, shape, self.features.dtype)
        noise = jnp.sqrt(self.ridge)[..., None, None] * white[..., rank:, :]
        return self.loc + Kronecker(columns, self._square()) @ white[..., :rank, :] + noise

    def _square(self):
        """A square factor of Q, (..., c, c)."""
        if self.factor is None:
            return jnp.linalg.cholesky(self.order)
        missing = self.factor.shape[-2] - self.factor.shape[-1]
        if missing < 0:
            raise ValueError(
                f"factor has shape {self.factor.shape}; give at most as many columns as outputs"
            )
        return jnp.pad(self.factor, [(0, 0)] * (self.factor.ndim - 1) + [(0, missing)])

    def solve(self, value: ArrayLike) -> Float[Array, "*batch point output"]:
        """Inverse covariance times observations (..., n, c), as (..., n, c)."""
        value = at_points("observations", value, self.event_shape)
        algebra = self._algebra().held(self._prior)
        return algebra.solve(value, algebra.inverses())

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Log density of each row of observations given all the others, (..., n).

        References
        ----------
        Rasmussen and Williams (2006), equations 5.10 to 5.12, with blocks for numbers.
        """
        algebra = self._algebra().held(self._prior)
        inverses = algebra.inverses()
        weight = algebra.solve(self._centred(value), inverses)
        c = weight.shape[-1]
        blocks = jnp.broadcast_to(algebra.inverse_diag(inverses), weight.shape + (c,))
        quad, log_det = quad_logdet(blocks, weight[..., None, :])
        return 0.5 * (log_det - quad[..., 0] - c * np.log(2 * np.pi))

    def krige(self, value: ArrayLike):
        """Predict the functions at the last points from observations at the first.

        Parameters
        ----------
        value : (..., n1, c), observations at the first n1 of the n points

        Returns
        -------
        mean, variance : (..., n - n1, c) of the noiseless functions at the other points
        ridge : noise variance there, (..., 1, 1)

        References
        ----------
        arXiv 2406.03260; Rasmussen and Williams (2006), equations 2.25 and 2.26.
        """
        value = at_points("observations", value, self.event_shape, first=True)
        n = value.shape[-2]
        head, rest = self._rows(slice(None, n)), self._rows(slice(n, None))
        cross = (self.features[:n] * self.values) @ self.features[n:].T
        if self.residual is not None and self.residual.ndim == 2:
            cross = cross + self.residual[:n, n:]
        algebra = head._algebra().held(self._prior)
        inverses, Q = algebra.inverses(), self.order
        mean = rest.loc + cross.T @ algebra.solve(head._centred(value), inverses) @ Q
        inside = algebra.coordinates(cross)[0]
        if self._dense:
            known = Q[..., None, :, :] @ inverses @ Q[..., None, :, :]  # (..., r, c, c)
            variance = rest.prior_variance() - _diagonals(inside**2, known)
        else:
            variance = self._missed(head, rest, algebra, inside)
            left = self.ridge[..., None, None, None] * inverses @ Q[..., None, :, :]
            kappa = jnp.where(algebra.kappa > 0, algebra.kappa, 1.0)[:, None]
            variance = variance + _diagonals(inside**2 / kappa, left)
        variance = jnp.broadcast_to(jnp.clip(variance, 0.0), mean.shape)
        return mean, variance, self.ridge[..., None, None]

    def _missed(self, head, rest, algebra, inside):
        """Prior variance at other points outside the span of the columns at the first points."""
        k = self.values.shape[0]
        here, there = head._columns(), rest.features * safe_sqrt(self.values)
        there = jnp.pad(there, [(0, 0), (0, here.shape[1] - k)])
        if algebra.vectors is not None:
            kappa = jnp.where(algebra.kappa > 0, algebra.kappa, 1.0)[:, None]
            there = there - (inside / kappa).T @ (algebra.vectors.T @ here)
        own = 0.0 if self.residual is None else rest.residual
        missed = (there**2).sum(-1) + own
        return missed[:, None] * jnp.diagonal(self.order, axis1=-2, axis2=-1)[..., None, :]

    def _centred(self, value):
        r = at_points("observations", value, self.event_shape) - self.loc
        return jnp.broadcast_to(r, jnp.broadcast_shapes(r.shape, self.shape()))

    def _replace(self, **changes):
        fields = {name: getattr(self, name) for name in self.pytree_data_fields}
        return MatrixMercerNormal(**(fields | changes))

    def shift(self, mean: ArrayLike) -> "MatrixMercerNormal":
        """Add ``mean`` (..., n, c) to the location."""
        return self._replace(loc=self.loc + at_points("means", mean, self.event_shape))

    def _rows(self, rows):
        """Return the marginal of some points; eigenpairs stay if they are these points' own."""
        features, residual = self.features[rows], self.residual
        if residual is not None:
            residual = residual[rows] if residual.ndim == 1 else residual[rows, rows]
        loc = self.loc if self.loc.shape[-2] == 1 else self.loc[..., rows, :]
        keep = self.eigen is not None and self.eigen[0].shape[0] == features.shape[0]
        return self._replace(
            features=features, residual=residual, loc=loc, eigen=self.eigen if keep else None
        )

    def split(self, cutoff, rule="exact", *, n=None, eigen=None, max_dense=1000):
        """Separate the first modes of K from the law of the observations given them and Q.

        Parameters
        ----------
        cutoff : int, modes kept, from 0 to k
        rule : "exact", "local", "universal" (the row mean of local) or "truncate"
        n : int, training points among the rows (the first ones); all of them by default
        eigen : eigenpairs of the part that is marginalised, for the rule "exact"
        max_dense : int, most points for a dense factorisation at every evaluation

        Returns
        -------
        root : Kronecker
            Given modes ``w ~ Normal(0, 1)`` (..., cutoff, c) the observations follow
            ``rest.shift(root @ w)``.
        rest : MatrixMercerNormal
            Other rules than "exact" make of the eliminated modes a residual without correlations
            between points.

        Raises
        ------
        ValueError
            For an unknown rule, a cutoff out of range, or a dense factorisation that is too large.
        """
        points, k = self.features.shape
        cutoff = _checks.cutoff(cutoff, k)
        _checks.choice("rule of several correlated outputs", rule, _RULES)
        max_dense = _checks.whole("max_dense", max_dense, least=0)
        n = n if n is None else _checks.whole("n", n, most=points)
        root = self.features[:, :cutoff] * safe_sqrt(self.values[:cutoff])
        root = Kronecker(root, self._square())
        high = {"features": self.features[:, cutoff:], "values": self.values[cutoff:]}
        if rule != "exact":
            left = self._replace(**high, eigen=None)._prior_diagonal()
            if rule == "universal":
                left = jnp.full_like(left, left[:n].mean())
            left = jnp.zeros_like(left) if rule == "truncate" else left
            none = {"features": high["features"][:, :0], "values": high["values"][:0]}
            return root, self._replace(**none, residual=left, eigen=None)
        if eigen is None and cutoff == 0:
            eigen = self.eigen
        if eigen is None and points > max_dense and (k - cutoff >= points or self._dense):
            raise ValueError(
                f"the exact rule would diagonalise a {points} x {points} matrix at every "
                "evaluation; give eigen = gp.eigenpairs(features[:, cutoff:], values[cutoff:], "
                f'residual), choose rule="local", or raise max_dense (now {max_dense})'
            )
        return root, self._replace(**high, eigen=eigen)

    @property
    def _dense(self):
        return self.residual is not None and self.residual.ndim == 2


def _diagonals(shares, matrices):
    """Sum of the diagonals of matrices (..., r, c, c) with shares (r, m) of each: (..., m, c)."""
    return shares.T @ jnp.diagonal(matrices, axis1=-2, axis2=-1)
