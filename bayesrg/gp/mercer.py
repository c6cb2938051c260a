# SPDX-License-Identifier: Apache-2.0
"""The marginal likelihood of a Gaussian process as one NumPyro distribution that can be cut."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import Covariance, Eigen, Prior
from .._linalg import safe_sqrt
from .effective import RULES, EffectiveNormal, noise_after
from .law_checks import at_points, check_eigen, check_sample_shape, refuse_singular, refuse_stale


class MercerNormal(dist.Distribution):
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
    pytree_data_fields = (
        "features", "values", "ridge", "residual", "loc", "scale", "eigen", "gram", "tail",
    )  # fmt: skip
    pytree_aux_fields = ("orthonormal",)

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
        self.features = _checks.features("features", features)
        n, k = self.features.shape
        self.values = _checks.eigenvalues(values, falling=False)
        if self.values.shape[-1:] != (k,):
            raise ValueError(
                f"values has shape {self.values.shape} but features has {k} columns; give one "
                "value per mode, shape (..., k)"
            )
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
        self.residual = None
        if residual is not None:
            self.residual = _checks.finite("residual", residual, ndim=(1, 2))
            if self.residual.shape not in ((n,), (n, n)):
                raise ValueError(
                    f"residual has shape {self.residual.shape}; give ({n},) or ({n}, {n})"
                )
        if self.residual is not None and self.residual.ndim == 1 and _checks.known(self.residual):
            host = np.asarray(self.residual)  # an operation of JAX would be traced under jit
            if (host < -1e-8 * np.abs(host).max(initial=0.0)).any():
                raise ValueError("residual has variances below zero; give what the modes leave out")
        if self.residual is not None and self.residual.ndim == 2:
            _checks.require_x64("MercerNormal with a dense residual")
        self.eigen = check_eigen(eigen)
        if self.eigen is not None:
            if self.ridge.shape[-1] != 1:
                raise ValueError(
                    "eigen needs one ridge for all points, got a ridge of shape "
                    f"{self.ridge.shape}; leave eigen out"
                )
        self.gram = None if gram is None else jnp.asarray(gram)
        if self.gram is not None and self.gram.shape != (k, k):
            raise ValueError(f"gram has shape {self.gram.shape}; give features^T features {k, k}")
        self.tail = None if tail is None else _checks.nonnegative("tail", tail)
        self.orthonormal = orthonormal
        _checks.flag("orthonormal", orthonormal)
        batch = _checks.fit(
            loc=self.loc.shape[:-1], ridge=self.ridge.shape[:-1], values=self.values.shape[:-1],
            scale=self.scale.shape,
        )  # fmt: skip
        super().__init__(batch, (n,), validate_args=validate_args)
        refuse_singular(self)
        refuse_stale(self)

    @property
    def _covariance(self):
        prior = Prior(self.features, self.values, self.residual)
        return Covariance(prior, self.scale, self.ridge, self.gram)

    @property
    def covariance_matrix(self) -> Float[Array, "*batch point point"]:
        """The covariance, assembled: (..., n, n)."""
        return self._covariance.matrix()

    @property
    def mean(self) -> Float[Array, "*batch point"]:
        """The mean, (..., n)."""
        return jnp.broadcast_to(self.loc, self.shape())

    @property
    def variance(self) -> Float[Array, "*batch point"]:
        """The diagonal of the covariance, (..., n)."""
        prior = self.prior_variance()
        return jnp.broadcast_to(prior + self.ridge, self.shape())

    def prior_variance(self, start=0) -> Float[Array, "*batch point"]:
        """Variance of modes ``start`` on and of the residual at each point, noise left out."""
        start = _checks.cutoff(start, self.features.shape[1], "start")
        variance = self.values[..., start:] @ self.features[:, start:].T ** 2
        if self.residual is not None:
            variance = variance + (
                self.residual if self.residual.ndim == 1 else jnp.diagonal(self.residual)
            )
        return self.scale[..., None] * variance

    def _amplitude(self, stop):
        """Prior standard deviation of the first ``stop`` modes, (..., stop)."""
        return safe_sqrt(self.scale)[..., None] * safe_sqrt(self.values[..., :stop])

    def _algebra(self):
        n = self.event_shape[0]
        if self.eigen is None:
            return self._covariance.algebra()
        vectors, eigenvalues = self.eigen
        if vectors.shape[0] != n:
            raise ValueError(
                f"eigen has {vectors.shape[0]} rows but there are {n} points; compute "
                "gp.eigenpairs on these points or leave eigen out"
            )
        return Eigen(vectors, eigenvalues, self.ridge, self._covariance)

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
        if head._covariance.thin:  # in weight space, where nothing is subtracted
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
        return self.features * self._amplitude(self.values.shape[-1])[..., None, :]

    @property
    def _own(self):
        """Prior variance of each point that no other point shares, (..., n) or (..., 1)."""
        diagonal = self.residual is not None and self.residual.ndim == 1
        return self.scale[..., None] * (self.residual if diagonal else jnp.zeros(1))

    def _missed(self, rest, cross, gain, noise=0.0):
        """Variance of ``rest``, at other points, around the prediction ``gain^T`` observations.

        ``noise`` is the part of it that comes from noise of observations other than the ridge.
        """
        if self.residual is not None and self.residual.ndim == 2:
            # an error of the gain enters this squared; in the usual two terms it enters linearly
            all_known = (self.covariance_matrix @ gain * gain).sum(-2) + noise
            return rest.prior_variance() - 2.0 * (cross * gain).sum(-2) + all_known
        missed = rest._columns - jnp.swapaxes(gain, -1, -2) @ self._columns
        seen = (gain**2 * (self.ridge + self._own)[..., None]).sum(-2)
        return (missed**2).sum(-1) + seen + noise + rest._own

    def _ahead(self, n):
        """Laws of the first n points and of the others, and the prior covariance between them."""
        cross = (self.features[:n] * self.values[..., None, :]) @ self.features[n:].T
        if self.residual is not None and self.residual.ndim == 2:
            cross = cross + self.residual[:n, n:]
        cross = self.scale[..., None, None] * cross
        return self._rows(slice(None, n)), self._rows(slice(n, None)), cross

    def _centred(self, value):
        r = at_points("observations", value, self.event_shape) - self.loc
        return jnp.broadcast_to(r, jnp.broadcast_shapes(r.shape, self.shape()))

    def _replace(self, **changes):
        fields = {name: getattr(self, name) for name in self.pytree_data_fields}
        fields |= {"orthonormal": self.orthonormal} | changes
        return MercerNormal(**fields)

    def shift(self, mean: ArrayLike) -> "MercerNormal":
        """Add ``mean`` (..., n) to the location."""
        return self._replace(loc=self.loc + at_points("means", mean, self.event_shape))

    def _rows(self, rows):
        """Return the marginal of some points; eigenpairs stay if they are these points' own."""

        def take(x):
            return x if x.shape[-1] == 1 else x[..., rows]

        features = self.features[rows]
        residual = self.residual
        if residual is not None:
            residual = residual[rows] if residual.ndim == 1 else residual[rows, rows]
        keep = self.eigen is not None and self.eigen[0].shape[0] == features.shape[0]
        return self._replace(
            features=features, residual=residual, ridge=take(self.ridge), loc=take(self.loc),
            eigen=self.eigen if keep else None, gram=None,
        )  # fmt: skip

    def split(self, cutoff, rule="exact", *, n=None, eigen=None, max_dense=1000):
        """Separate the first modes from the law of the observations given them.

        Parameters
        ----------
        cutoff : int, modes kept, from 0 to k
        rule : "exact", "local", "dressed", "universal" or "truncate"
        n : int, training points among the rows (the first ones); all of them by default
        eigen : eigenpairs of the part that is marginalised, for the rule "exact"
        max_dense : int, most points for a dense factorisation at every evaluation

        Returns
        -------
        root : (..., n, cutoff)
            Given modes ``w ~ Normal(0, 1)`` the observations follow ``rest.shift(root @ w)``.
        rest : Distribution
            `MercerNormal` of the other modes under "exact", else `EffectiveNormal`.

        Raises
        ------
        ValueError
            For an unknown rule, a cutoff out of range, a dense factorisation that is too large,
            or the rule "dressed" on columns that are not orthonormal.
        """
        points, k = self.features.shape
        _checks.choice("rule", rule, RULES)
        max_dense = _checks.whole("max_dense", max_dense, least=0)
        n = n if n is None else _checks.whole("n", n, most=points)
        cutoff = _checks.cutoff(cutoff, k)
        root = self._columns[..., :cutoff]
        if rule != "exact":
            noise = noise_after(self, cutoff, rule, n)
            eliminated = self.prior_variance(cutoff)
            return root, EffectiveNormal(self.loc, noise, self.ridge, eliminated)
        if eigen is None and cutoff == 0:
            eigen = self.eigen
        dense = self.residual is not None and self.residual.ndim == 2
        if dense and eigen is None and points > max_dense:
            seconds = 2e-10 * points**3
            raise ValueError(
                f"the exact rule would factorise a dense {points} x {points} residual at every "
                f"gradient, about {seconds:.0f} s each on two cores; give eigen = "
                "gp.eigenpairs(features[:, cutoff:], values[cutoff:], residual), choose "
                f'rule="local", or raise max_dense (now {max_dense})'
            )
        return root, self._replace(
            features=self.features[:, cutoff:], values=self.values[..., cutoff:], eigen=eigen,
            gram=None if self.gram is None else self.gram[cutoff:, cutoff:],
        )  # fmt: skip
