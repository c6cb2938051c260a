# SPDX-License-Identifier: Apache-2.0
"""Distribution of noisy observations of a Gaussian process, which can be cut."""

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import Covariance, Eigen, LowRank
from .._prior import PriorAt
from .effective import RULES, EffectiveNormal, variance_after
from .law import Law, PriorLaw
from .law_checks import (
    at_points,
    check_caches,
    check_definite,
    check_eigen,
    check_sample_shape,
)


class MercerNormal(PriorLaw):
    r"""Distribution of noisy observations of a Gaussian process, with the function integrated out.

    The prior of the function is given by modes. The covariance of the observations is
    ``scale * (features diag(values) features^T + residual) + ridge * I``.

    Parameters
    ----------
    features : (n, k), mode functions at the points
    values : (..., k), prior variances of the modes
    ridge : () or (..., 1), or (..., n) for one per point
        Noise variance.
    residual : (n,) or (n, n), optional
        Prior covariance that the modes leave out; (n,) is a diagonal matrix.
    loc : () or (..., n)
        Mean of the observations.
    scale : (...)
        Amplitude (a variance) of the whole prior.
    eigen : (vectors (n, r), eigenvalues (r,)), optional
        Eigenpairs of the prior at scale 1, from `eigenpairs`. With them no factorisation is needed
        when scale and ridge are sampled.
    gram : (k, k), optional
        ``features^T features``, made once if the ridge is constant and there is no residual. Draws
        and variances of predictions then do not compute this product again.
    tail : (), optional
        Mean prior variance outside the modes, before ``scale``, for the rules "universal" and
        "dressed" of `split`; by default the mean of the residual's diagonal.
    orthonormal : bool
        Whether the features are orthonormal under the data measure, so that ``values`` are
        eigenvalues. If False, the rule "universal" takes the mean of their variance over the
        points.

    Raises
    ------
    ValueError
        For mismatched shapes, a negative ridge, or a zero ridge with a singular prior.
    RuntimeError
        For a dense residual with 64-bit floats off.

    Notes
    -----
    The event shape is (n,). For a batch of targets at the same points, give ``loc``, ``values``,
    ``scale`` or ``ridge`` more axes in front, or use a plate. Targets that have the same covariance
    share its factor.

    With fewer modes than points and no dense residual, everything is computed from the weights of
    the modes, and no large numbers are subtracted. Otherwise the covariance matrix is factorised:
    half of the digits are lost if its condition number, about ``values * n / ridge``, is above 1e8
    in 64-bit floats. Outside a JAX transformation there is then a warning, or an error if no digit
    is left. If ``eigen`` is computed from features and values alone, without a dense residual, no
    digits are lost at any ridge. Derivatives in features, values and residual do not depend on
    whether ``eigen`` is given. The derivative in an entry of ``values`` that is exactly zero is 0.

    References
    ----------
    arXiv 2405.06008, section 2; Rasmussen and Williams (2006), equation 2.30.
    """

    support = constraints.real_vector
    event_dims = ("point",)
    pytree_data_fields = ("scale", "gram")
    _rule, _rules = "rule", RULES
    _low = None  # mean without the low modes, their functions at the points, and their weights

    tail = property(lambda law: law.prior.tail, doc="Mean variance outside the modes, or None.")
    orthonormal = property(lambda law: law.prior.orthonormal, doc="See the parameters.")

    def __init__(
        self,
        features: ArrayLike,
        values: ArrayLike,
        ridge: ArrayLike,
        *,
        residual: ArrayLike | None = None,
        loc: ArrayLike = 0.0,
        scale: ArrayLike = 1.0,
        eigen: tuple[ArrayLike, ArrayLike] | None = None,
        gram: ArrayLike | None = None,
        tail: ArrayLike | None = None,
        orthonormal: bool = True,
        validate_args: bool | None = None,
    ):
        self.prior = PriorAt(features, values, residual, tail, orthonormal)
        n, k = self.features.shape
        ridge = _checks.nonnegative("ridge", ridge)
        self.ridge = ridge[None] if ridge.ndim == 0 else ridge
        self.loc = jnp.atleast_1d(_checks.finite("loc", loc))
        for name, value in (("ridge", self.ridge), ("loc", self.loc)):
            if value.shape[-1] not in (1, n):
                raise ValueError(
                    f"{name} has shape {value.shape} but there are {n} points; its last axis is "
                    f"the point axis: give (), (..., 1) or (..., {n})"
                )
        self.scale = _checks.nonnegative("scale", scale)
        if self.prior.correlated:
            _checks.require_x64("MercerNormal with a dense residual")
        self.eigen = check_eigen(eigen)
        if self.eigen is not None and self.ridge.shape[-1] != 1:
            raise ValueError(
                f"eigen needs one ridge for all points, got a ridge of shape {self.ridge.shape}; "
                "leave eigen out"
            )
        self.gram = None if gram is None else jnp.asarray(gram)
        if self.gram is not None and self.gram.shape != (k, k):
            raise ValueError(f"gram has shape {self.gram.shape}; give features^T features {k, k}")
        batch = _checks.fit(
            loc=self.loc.shape[:-1],
            ridge=self.ridge.shape[:-1],
            values=self.values.shape[:-1],
            scale=self.scale.shape,
        )
        super().__init__(batch, (n,), validate_args=validate_args)
        check_definite(self)
        check_caches(self)

    @property
    def _covariance(self):
        return Covariance(self.prior, self.scale, self.ridge, self.gram)

    @property
    def covariance_matrix(self) -> Float[Array, "*batch point point"]:
        """Covariance of the observations, (..., n, n)."""
        return self._covariance.matrix()

    @property
    def variance(self) -> Float[Array, "*batch point"]:
        """Variance of each observation, (..., n)."""
        return jnp.broadcast_to(self.prior_variance() + self.ridge, self.shape())

    def prior_variance(self, start=0) -> Float[Array, "*batch point"]:
        """Return the prior variance at each point, of the modes from ``start`` on and the residual.

        It does not include noise.
        """
        start = _checks.cutoff(start, self.features.shape[1], "start")
        return self.scale[..., None] * self.prior.high(start).variance()

    def _algebra(self):
        if self.eigen is None:
            return self._covariance.algebra()
        return Eigen(*self._pairs(), self.ridge, self._covariance)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of observations ``value`` (..., n), which is the log evidence."""
        value = at_points("observations", value, self.event_shape)
        if self._low is not None:
            loc, *low = self._low
            rows = (value - loc).reshape(-1, self.event_shape[0])
            quad, log_det = self._algebra().quad_logdet(rows, low)
            quad = quad.reshape(value.shape[:-1])
            return -0.5 * (quad + log_det + self.event_shape[0] * np.log(2 * np.pi))
        r = value - self.loc
        own = jnp.broadcast_shapes(self.ridge.shape[:-1], self.values.shape[:-1], self.scale.shape)
        batch = jnp.broadcast_shapes(r.shape[:-1], own)
        r = jnp.broadcast_to(r, batch + r.shape[-1:])

        # Axes along which the covariance does not vary move behind the others and become rows,
        # which share one factor.
        padded = (1,) * (len(batch) - len(own)) + own
        free = [i for i, size in enumerate(padded) if size == 1]
        last = list(range(len(batch) - len(free), len(batch)))
        moved = jnp.moveaxis(r, free, last)
        quad, log_det = self._algebra().quad_logdet(moved.reshape(own + (-1,) + r.shape[-1:]))
        quad = jnp.moveaxis(quad.reshape(moved.shape[:-1]), last, free)
        return -0.5 * (quad + log_det + self.event_shape[0] * np.log(2 * np.pi))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw observations, ``sample_shape + batch_shape + (n,)``."""
        key = _checks.random_key(key)
        algebra = self._algebra()
        shape = check_sample_shape(sample_shape) + self.batch_shape + (algebra.white_size(),)
        return self.loc + algebra.colour(random.normal(key, shape, self.features.dtype))

    def colour(self, white: ArrayLike) -> Float[Array, "*batch point"]:
        """Return observations made of standard normal numbers ``white`` (..., n), one to one."""
        white = at_points("white numbers", white, self.event_shape)
        return self.loc + self._algebra().root(white)

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Return the log density of each observation given all the others, (..., n).

        References
        ----------
        Rasmussen and Williams (2006), equations 5.10 to 5.12.
        """
        algebra = self._algebra()
        r = self._centred(value)
        precision = algebra.inverse_diag()
        weight = algebra.solve(r[..., None])[..., 0]
        return 0.5 * (jnp.log(precision) - weight**2 / precision - np.log(2 * np.pi))

    def solve(self, B: ArrayLike) -> Float[Array, "*batch point column"]:
        """Return the inverse covariance times columns B (..., n, c)."""
        B = _checks.finite("B", B)
        if B.ndim < 2 or B.shape[-2:-1] != self.event_shape:
            raise ValueError(f"B has shape {B.shape}; give columns (..., {self.event_shape[0]}, c)")
        return self._algebra().solve(B)

    def krige(self, value: ArrayLike):
        """Return a prediction of the function at the last points given observations at the first.

        Parameters
        ----------
        value : (..., n1), observations at the first n1 of the n points

        Returns
        -------
        mean, variance : (..., n - n1)
            Of the function without noise, at the other points.
        ridge : (..., 1) or (..., n - n1)
            Noise variance at the other points.

        References
        ----------
        Rasmussen and Williams (2006), equations 2.25 and 2.26.
        """
        value = at_points("observations", value, self.event_shape, first=True)
        head, rest, cross = self._ahead(value.shape[-1])
        r = head._centred(value)
        if head.prior.thin:  # by the weights of the modes, which subtracts nothing
            algebra = head._covariance.algebra()
            mean = algebra.expected(r, rest._columns)
            variance = algebra.leverage(rest._columns) + rest._own
        else:
            algebra = head._algebra()
            if isinstance(algebra, Eigen):  # new points need the matrix, which is rounded
                algebra.checked(dense=True)
            gain = algebra.solve(cross)  # columns of weights of the observations
            mean = (jnp.swapaxes(gain, -1, -2) @ r[..., None])[..., 0]
            variance = head._missed(rest, cross, gain)
        mean = rest.loc + mean
        return mean, jnp.broadcast_to(jnp.clip(variance, 0.0), mean.shape), rest.ridge

    shift, split = Law.shift, PriorLaw.split  # for the page of this class

    @property
    def _columns(self):
        """Modes at the points times their prior standard deviations, (..., n, k)."""
        return self.features * self._covariance.amplitude()[..., None, :]

    @property
    def _own(self):
        """Prior variance of each point that no other point shares, (..., n) or (..., 1)."""
        shared = self.residual is None or self.prior.correlated
        return self.scale[..., None] * (jnp.zeros(1) if shared else self.residual)

    def _missed(self, rest, cross, gain, extra=0.0):
        """Return the variance of the function at the points of ``rest``, given observations here.

        The prediction is ``gain^T`` times the observations, and ``extra`` the variance that it gets
        from noise of the observations other than the ridge.
        """
        if self.prior.correlated:
            # An error of the gain enters this squared; in the usual two terms it enters linearly.
            squares = (self.covariance_matrix @ gain * gain).sum(-2) + extra
            return rest.prior_variance() - 2.0 * (cross * gain).sum(-2) + squares
        missed = rest._columns - jnp.swapaxes(gain, -1, -2) @ self._columns
        seen = (gain**2 * (self.ridge + self._own)[..., None]).sum(-2)
        return (missed**2).sum(-1) + seen + extra + rest._own

    def _between(self, n):
        return self.scale[..., None, None] * self.prior.cross(n)

    def _root(self, cutoff):
        return self._columns[..., :cutoff]

    def _given(self, root, modes):
        """Return ``shift(root @ modes)``, for the parts of `split` and its low ``modes`` (cutoff,).

        Its log density keeps the mode functions apart from their weights. If noise is constant and
        no residual is left, all that is linear in n is then independent of the modes, and a
        compiled sampler computes it once, outside its loop.
        """
        # eigenpairs need not be of these points, if only predictions are asked for
        if self._cut is None or self.eigen is not None:
            return self.shift((root @ modes[..., None])[..., 0])
        # weights times functions, so that no product (n, k) depends on the scale
        size, whole = modes.shape[-1], self._cut
        low, weights = whole.features[:, :size], whole._covariance.amplitude()[..., :size] * modes
        law = self.shift((low @ weights[..., None])[..., 0])
        algebra = self._covariance.algebra()
        plain = law.batch_shape == () and weights.ndim == 1 and self.loc.ndim == 1
        if plain and isinstance(algebra, LowRank) and algebra.reducible:
            law._low = self.loc, low, weights
        return law

    def _eliminate(self, cutoff, rule, n):
        variance = variance_after(self, cutoff, rule, n)
        return EffectiveNormal(self.loc, variance, self.ridge, self.prior_variance(cutoff))

    def _work(self, high):
        """Return what the exact rule would do, if it factorises a matrix of all points."""
        n = self.event_shape[0]
        if high.correlated:
            return (
                f"factorise a dense {n} x {n} residual at every gradient, about "
                f"{2e-10 * n**3:.0f} s each on two cores"
            )
