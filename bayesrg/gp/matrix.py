# SPDX-License-Identifier: Apache-2.0
"""Distribution of observations of several outputs, which an order parameter correlates."""

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import Blocks, Kronecker, log_density
from .._linalg import quad_logdet, ratio
from .._prior import PriorAt
from .law import Law, PriorLaw
from .law_checks import (
    at_points,
    check_caches,
    check_eigen,
    check_order,
    check_sample_shape,
    warn_rounded,
)


class MatrixMercerNormal(PriorLaw):
    r"""Distribution of observations (n, c) of several functions, correlated by a matrix.

    The covariance of entries (i, a) and (j, b) is ``K_ij Q_ab + ridge I``, with the kernel matrix
    ``K = features diag(values) features^T + residual`` and the order parameter Q:

    .. math:: \ln p(Y|Q) = -\tfrac12\sum_i\left[\ln|2\pi M_i| + \tilde y_i^T M_i^{-1}\tilde y_i
              \right],\qquad M_i = \kappa_i Q + \sigma^2 I,\quad \tilde Y = U^T Y,

    where :math:`K = U\,\mathrm{diag}(\kappa)\,U^T`: one block of size c per eigenvalue.

    Parameters
    ----------
    features : (n, k), mode functions at the points
    values : (k,), prior variances of the modes
    ridge : (...)
        Noise variance. Zero needs K and Q of full rank, see the notes.
    order : (..., c, c), order parameter Q, symmetric and positive semi-definite
    factor : (..., c, r), optional
        A matrix F with ``F F^T = Q``, for draws and cuts, by default the Cholesky factor. A
        singular Q needs it. It must be smooth in what a sampler moves.
    residual : (n,) or (n, n), optional
        Prior covariance that the modes leave out; (n,) is a diagonal matrix.
    loc : () or (..., n, c)
        Mean of the observations.
    eigen : (vectors (n, r), eigenvalues (r,)), optional
        From `eigenpairs`, made once outside the sampler. Without it they are computed at every
        evaluation. Eigenpairs are modes too:
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
    The event shape is (n, c), with batches of order parameters or ridges in front. The density
    costs :math:`O(nc^3)`. Q is not diagonalised, so the density is smooth where its eigenvalues are
    equal. ``log_prob`` and draws have first derivatives in features, values and residual, also
    where eigenvalues of K are equal; other methods, such as ``loo``, raise an error instead. An
    amplitude of the whole prior belongs into Q. Without noise and with K of rank below n, the
    density is that on the range of K, and zero for observations outside.

    References
    ----------
    arXiv 2406.03260 (deep linear networks, conditional on the order parameter).
    """

    support = constraints.real_matrix
    event_dims = ("point", "output")
    pytree_data_fields = ("order", "factor")
    _by_point = ("loc",)
    _rule = "rule of several correlated outputs"
    _rules = ("exact", "local", "universal", "truncate")

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
        self.prior = PriorAt(features, values, residual)
        n = self.features.shape[0]
        if self.values.ndim != 1:
            raise ValueError(
                f"values has shape {self.values.shape}; give one value per mode, shape (k,)"
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
        check_order(self.order, self.ridge)
        check_caches(self)

    @property
    def covariance_matrix(self) -> Float[Array, "*batch entry entry_bis"]:
        """Covariance of the event flattened row by row, (..., n c, n c)."""
        K, Q = self.prior.dense(), self.order
        n, c = self.event_shape
        blocks = K[:, None, :, None] * Q[..., None, :, None, :]
        ridge = self.ridge[..., None, None] * jnp.eye(n * c, dtype=K.dtype)
        return blocks.reshape(Q.shape[:-2] + (n * c, n * c)) + ridge

    @property
    def variance(self) -> Float[Array, "*batch point output"]:
        """Variance of each observation, (..., n, c)."""
        return jnp.broadcast_to(self.prior_variance() + self.ridge[..., None, None], self.shape())

    def prior_variance(self) -> Float[Array, "*batch point output"]:
        """Return the prior variance of each function at each point, without noise, (..., n, c)."""
        outputs = jnp.diagonal(self.order, axis1=-2, axis2=-1)
        return self.prior.variance()[:, None] * outputs[..., None, :]

    def _algebra(self):
        columns, residual = self.features.shape[1], self.residual
        if self.eigen is not None:
            vectors, kappa = self._pairs()
        elif columns or self.prior.correlated:
            vectors, kappa = self.prior.eigenpairs()
        elif residual is None:
            vectors, kappa = self.features, self.values
        else:
            vectors, kappa = None, residual
        if self.prior.correlated:
            warn_rounded(kappa, self.order, self.ridge)
        return Blocks(vectors, kappa, self.order, self.ridge)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of observations ``value`` (..., n, c)."""
        return log_density(self.prior, self._algebra(), self._centred(value))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw observations, ``sample_shape + batch_shape + (n, c)``."""
        key = _checks.random_key(key)
        (n, c), columns = self.event_shape, self.prior.root()
        rank = columns.shape[1]
        shape = check_sample_shape(sample_shape) + self.batch_shape + (rank + n, c)
        white = random.normal(key, shape, self.features.dtype)
        noise = jnp.sqrt(self.ridge)[..., None, None] * white[..., rank:, :]
        return self.loc + Kronecker(columns, self._square()) @ white[..., :rank, :] + noise

    def _square(self):
        """Return a square factor of Q, (..., c, c)."""
        if self.factor is None:
            return jnp.linalg.cholesky(self.order)
        missing = self.factor.shape[-2] - self.factor.shape[-1]
        if missing < 0:
            raise ValueError(
                f"factor has shape {self.factor.shape}; give at most as many columns as outputs"
            )
        return jnp.pad(self.factor, [(0, 0)] * (self.factor.ndim - 1) + [(0, missing)])

    def solve(self, value: ArrayLike) -> Float[Array, "*batch point output"]:
        """Return the inverse covariance times observations (..., n, c), as (..., n, c)."""
        value = at_points("observations", value, self.event_shape)
        algebra = self._algebra().held(self.prior)
        return algebra.solve(value, algebra.inverses())

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Return the log density of each row of observations given all the others, (..., n).

        References
        ----------
        Rasmussen and Williams (2006), equations 5.10 to 5.12, with blocks instead of numbers.
        """
        algebra = self._algebra().held(self.prior)
        inverses = algebra.inverses()
        weight = algebra.solve(self._centred(value), inverses)
        c = weight.shape[-1]
        blocks = jnp.broadcast_to(algebra.inverse_diag(inverses), weight.shape + (c,))
        quad, log_det = quad_logdet(blocks, weight[..., None, :])
        return 0.5 * (log_det - quad[..., 0] - c * np.log(2 * np.pi))

    def krige(self, value: ArrayLike):
        """Return a prediction of the functions at the last points given observations at the first.

        Parameters
        ----------
        value : (..., n1, c), observations at the first n1 of the n points

        Returns
        -------
        mean, variance : (..., n - n1, c)
            Of the functions without noise, at the other points.
        ridge : (..., 1, 1), noise variance

        References
        ----------
        arXiv 2406.03260; Rasmussen and Williams (2006), equations 2.25 and 2.26.
        """
        value = at_points("observations", value, self.event_shape, first=True)
        head, rest, cross = self._ahead(value.shape[-2])
        algebra = head._algebra().held(self.prior)
        inverses, Q = algebra.inverses(), self.order
        mean = rest.loc + cross.T @ algebra.solve(head._centred(value), inverses) @ Q
        inside = algebra.coordinates(cross)[0]
        if self.prior.correlated:
            # The prior variance minus what the observations explain.
            known = Q[..., None, :, :] @ inverses @ Q[..., None, :, :]  # (..., r, c, c)
            variance = rest.prior_variance() - _diagonals(inside**2, known)
        else:
            # A sum of positive terms: what lies outside the span of the columns at the first
            # points, and inside it what noise leaves of each eigenvector.
            variance = self._missed(head, rest, algebra, inside)
            left = self.ridge[..., None, None, None] * inverses @ Q[..., None, :, :]
            variance = variance + _diagonals(ratio(inside**2, algebra.kappa[:, None]), left)
        variance = jnp.broadcast_to(jnp.clip(variance, 0.0), mean.shape)
        return mean, variance, self.ridge[..., None, None]

    def _missed(self, head, rest, algebra, inside):
        """Return the prior variance at other points outside the span of the columns at the first.

        ``inside`` (r, m) is their covariance with the first, in the eigenvectors of ``algebra``.
        """
        here, there = head.prior.root(), rest.prior.columns()
        there = jnp.pad(there, [(0, 0), (0, here.shape[1] - there.shape[1])])
        if algebra.vectors is not None:
            gain = ratio(inside, algebra.kappa[:, None])
            there = there - gain.T @ (algebra.vectors.T @ here)
        own = 0.0 if self.residual is None else rest.residual
        missed = (there**2).sum(-1) + own
        return missed[:, None] * jnp.diagonal(self.order, axis1=-2, axis2=-1)[..., None, :]

    shift, split = Law.shift, PriorLaw.split  # for the page of this class

    def _root(self, cutoff):
        return Kronecker(self.prior.low(cutoff).columns(), self._square())

    def _eliminate(self, cutoff, rule, n):
        left = self.prior.high(cutoff).variance()
        if rule == "universal":
            left = jnp.full_like(left, left[:n].mean())
        left = jnp.zeros_like(left) if rule == "truncate" else left
        return self._replace(prior=self.prior.low(0), residual=left, eigen=None)

    def _work(self, high):
        """Return what the exact rule would do, if it diagonalises a matrix of all points."""
        n, k = high.features.shape
        if high.correlated or k >= n:
            return f"diagonalise a {n} x {n} matrix at every evaluation"


def _diagonals(shares, matrices):
    """Return sums (..., m, c) of the diagonals of matrices (..., r, c, c), weighted (r, m)."""
    return shares.T @ jnp.diagonal(matrices, axis1=-2, axis2=-1)
