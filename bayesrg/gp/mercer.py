# SPDX-License-Identifier: Apache-2.0
"""The marginal likelihood of a Gaussian process as one NumPyro distribution that can be cut."""

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import Covariance, Eigen
from .._prior import PriorAt
from .effective import RULES, EffectiveNormal, noise_after
from .law import Law
from .law_checks import (
    at_points,
    check_eigen,
    check_sample_shape,
    refuse_singular,
    refuse_stale,
)


class MercerNormal(Law):
    r"""Observations of a Gaussian process given by its modes, the function integrated out.

    The covariance is ``scale * (features diag(values) features^T + residual) + ridge * I``.

    Parameters
    ----------
    features : (n, k) mode functions at the points
    values : (..., k) prior variances of the modes
    ridge : () or (..., 1), the noise variance; or (..., n), one per point
    residual : (n,) or (n, n), optional
        Prior covariance that the modes leave out.
    loc : () or (..., n)
    scale : (...)
        Amplitude (a variance) of the whole prior.
    eigen : (vectors (n, r), eigenvalues (r,)), optional
        From `eigenpairs`: then scale and ridge can be sampled with no factorisation at all.
    gram : (k, k), optional
        ``features^T features``, for a constant ridge and no residual: spares draws and variances
        of predictions this product.
    tail : (), optional
        Mean prior variance outside the modes, before ``scale``, for the rules "universal" and
        "dressed" of `split`; by default the mean of the residual's diagonal.
    orthonormal : bool
        Whether the features are orthonormal under the data measure, so that ``values`` are its
        eigenvalues. Say False for other columns: then only their size at the points counts.

    Raises
    ------
    ValueError
        For mismatched shapes, a negative ridge, or a zero ridge with a singular prior.
    RuntimeError
        For a dense residual with 64-bit floats off.

    Notes
    -----
    Event shape (n,). Batches are targets: give ``loc``, ``values``, ``scale`` or ``ridge`` leading
    axes, or use a plate; targets that share one covariance share its factor. With fewer modes
    than points and no dense residual the algebra works with the modes' weights, which subtracts
    nothing large; else it is dense. The dense one loses half of its digits once the condition
    number, about ``values * n / ridge``, passes 1e8 in 64-bit floats. Outside a JAX transformation
    it then warns, and raises an error if no digit is left. ``eigen`` made of features keeps
    all digits at any ridge. The derivative in a value of exactly zero is given as 0.
    With ``eigen`` the derivatives in features, values and residual are those without it.

    References
    ----------
    arXiv 2405.06008, section 2; Rasmussen and Williams (2006), equation 2.30.
    """

    support = constraints.real_vector
    event_dims = ("point",)
    pytree_data_fields = ("scale", "gram")
    _rule, _rules = "rule", RULES

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
            loc=self.loc.shape[:-1], ridge=self.ridge.shape[:-1], values=self.values.shape[:-1],
            scale=self.scale.shape,
        )  # fmt: skip
        super().__init__(batch, (n,), validate_args=validate_args)
        refuse_singular(self)
        refuse_stale(self)

    @property
    def _covariance(self):
        return Covariance(self.prior, self.scale, self.ridge, self.gram)

    @property
    def covariance_matrix(self) -> Float[Array, "*batch point point"]:
        """The covariance, assembled: (..., n, n)."""
        return self._covariance.matrix()

    @property
    def variance(self) -> Float[Array, "*batch point"]:
        """The diagonal of the covariance, (..., n)."""
        prior = self.prior_variance()
        return jnp.broadcast_to(prior + self.ridge, self.shape())

    def prior_variance(self, start=0) -> Float[Array, "*batch point"]:
        """Variance of modes ``start`` on and of the residual at each point, noise left out."""
        start = _checks.cutoff(start, self.features.shape[1], "start")
        return self.scale[..., None] * self.prior.high(start).variance()

    def _algebra(self):
        if self.eigen is None:
            return self._covariance.algebra()
        return Eigen(*self._pairs(), self.ridge, self._covariance)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Log density of observations (..., n): the log evidence at fixed hyper-parameters."""
        r = at_points("observations", value, self.event_shape) - self.loc
        shared = jnp.broadcast_shapes(
            self.ridge.shape[:-1], self.values.shape[:-1], self.scale.shape
        )
        full = jnp.broadcast_shapes(r.shape[:-1], shared)
        rows = jnp.broadcast_to(r, full + r.shape[-1:])
        # Axes along which the covariance does not vary become rows that share its factor.
        padded = (1,) * (len(full) - len(shared)) + shared
        free = [i for i, size in enumerate(padded) if size == 1]
        ends = list(range(len(full) - len(free), len(full)))
        moved = jnp.moveaxis(rows, free, ends)
        sizes = moved.shape[len(full) - len(free) : -1]
        quad, log_det = self._algebra().quad_logdet(moved.reshape(shared + (-1,) + r.shape[-1:]))
        fixed = tuple(size for size in padded if size != 1)
        quad = jnp.moveaxis(quad.reshape(fixed + sizes), ends, free)
        return -0.5 * (quad + log_det + self.event_shape[0] * np.log(2 * np.pi))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw observations, ``sample_shape + batch_shape + (n,)``."""
        key = _checks.random_key(key)
        algebra = self._algebra()
        shape = check_sample_shape(sample_shape) + self.batch_shape + (algebra.white_size(),)
        return self.loc + algebra.colour(random.normal(key, shape, self.features.dtype))

    def colour(self, white: ArrayLike) -> Float[Array, "*batch point"]:
        """Turn n standard normal numbers ``white`` (..., n) into observations, one to one."""
        white = at_points("white numbers", white, self.event_shape)
        return self.loc + self._algebra().root(white)

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Log density of each observation given all the others, (..., n), in closed form.

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
        """Inverse covariance times columns B (..., n, c)."""
        B = _checks.finite("B", B)
        if B.ndim < 2 or B.shape[-2:-1] != self.event_shape:
            raise ValueError(f"B has shape {B.shape}; give columns (..., {self.event_shape[0]}, c)")
        return self._algebra().solve(B)

    def krige(self, value: ArrayLike):
        """Predict the function at the last points from observations at the first.

        Parameters
        ----------
        value : (..., n1), observations at the first n1 of the n points

        Returns
        -------
        mean, variance : (..., n - n1) of the noiseless function at the other points
        ridge : noise variance there, (..., 1) or (..., n - n1)

        References
        ----------
        Rasmussen and Williams (2006), equations 2.25 and 2.26.
        """
        value = at_points("observations", value, self.event_shape, first=True)
        head, rest, cross = self._ahead(value.shape[-1])
        r = head._centred(value)
        if head.prior.thin:  # in weight space, where nothing is subtracted
            algebra = head._covariance.algebra()
            mean = algebra.expected(r, rest._columns)
            variance = algebra.leverage(rest._columns) + rest._own
        else:
            algebra = head._algebra()
            if isinstance(algebra, Eigen):  # new points need the matrix, which is rounded
                algebra.judged(dense=True)
            gain = algebra.solve(cross)  # columns of weights of the observations
            mean = (jnp.swapaxes(gain, -1, -2) @ r[..., None])[..., 0]
            variance = head._missed(rest, cross, gain)
        mean = rest.loc + mean
        return mean, jnp.broadcast_to(jnp.clip(variance, 0.0), mean.shape), rest.ridge

    @property
    def _columns(self):
        """Modes at the points times their prior standard deviation, (..., n, k)."""
        return self.features * self._covariance.amplitude()[..., None, :]

    @property
    def _own(self):
        """Prior variance of each point that no other point shares, (..., n) or (..., 1)."""
        shared = self.residual is None or self.prior.correlated
        return self.scale[..., None] * (jnp.zeros(1) if shared else self.residual)

    def _missed(self, rest, cross, gain, noise=0.0):
        """Variance of ``rest``, at other points, around the prediction ``gain^T`` observations.

        ``noise`` is the part of it that comes from noise of observations other than the ridge.
        """
        if self.prior.correlated:
            # an error of the gain enters this squared; in the usual two terms it enters linearly
            all_known = (self.covariance_matrix @ gain * gain).sum(-2) + noise
            return rest.prior_variance() - 2.0 * (cross * gain).sum(-2) + all_known
        missed = rest._columns - jnp.swapaxes(gain, -1, -2) @ self._columns
        seen = (gain**2 * (self.ridge + self._own)[..., None]).sum(-2)
        return (missed**2).sum(-1) + seen + noise + rest._own

    def _ahead(self, n):
        head, rest, cross = super()._ahead(n)
        return head, rest, self.scale[..., None, None] * cross

    def _taken(self, rows):
        """Arguments with a point axis, other than the prior, at some rows."""
        taken = {"ridge": self.ridge, "loc": self.loc}
        taken = {name: x if x.shape[-1] == 1 else x[..., rows] for name, x in taken.items()}
        return taken | {"gram": None}

    shift, split = Law.shift, Law.split  # for the page of this class

    def _root(self, cutoff):
        return self._columns[..., :cutoff]

    def _eliminate(self, cutoff, rule, n):
        noise = noise_after(self, cutoff, rule, n)
        return EffectiveNormal(self.loc, noise, self.ridge, self.prior_variance(cutoff))

    def _work(self, high):
        """Say what the exact rule costs if it factorises a matrix of all points, else None."""
        n = self.event_shape[0]
        if high.correlated:
            return (
                f"factorise a dense {n} x {n} residual at every gradient, about "
                f"{2e-10 * n**3:.0f} s each on two cores"
            )
