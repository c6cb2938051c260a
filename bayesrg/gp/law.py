# SPDX-License-Identifier: Apache-2.0
"""What the distributions of observations share: shifts, some of the points, and the cut."""

from inspect import signature

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .law_checks import at_points


class Law(dist.Distribution):
    """Distribution of observations at points; the first event axis is that of the points."""

    pytree_data_fields = ("ridge", "loc")
    _by_point = ("ridge", "loc")  # arguments with a point axis, which may have length one

    @property
    def mean(self) -> Array:
        """Mean of the observations, with the shape of batch and event."""
        return jnp.broadcast_to(self.loc, self.shape())

    def shift(self, mean: ArrayLike) -> "Law":
        """Return this distribution with ``mean``, an array like the observations, added to it."""
        return self._replace(loc=self.loc + at_points("means", mean, self.event_shape))

    def _centred(self, value):
        r = at_points("observations", value, self.event_shape) - self.loc
        return jnp.broadcast_to(r, jnp.broadcast_shapes(r.shape, self.shape()))

    def _replace(self, **changes):
        """Return this distribution with some of its arguments changed."""
        parts = vars(self) | changes
        if "prior" in parts:
            parts = vars(parts["prior"]) | parts
        names = signature(type(self).__init__).parameters.keys() & parts.keys()
        return type(self)(**{name: parts[name] for name in names})

    def _rows(self, rows, **changes):
        """Return the distribution at some of the points, with other arguments changed."""
        axis = -len(self.event_shape)
        index = (..., rows) + (slice(None),) * (-axis - 1)
        parts = {name: getattr(self, name) for name in self._by_point}
        taken = {name: x if x.shape[axis] == 1 else x[index] for name, x in parts.items()}
        return self._replace(**taken, **changes)

    def _ahead(self, n):
        """Return the distributions at the first n points and at the others, and their covariance.

        The covariance is that of the function, without noise, (..., n, m).
        """
        return self._rows(slice(None, n)), self._rows(slice(n, None)), self._between(n)


class PriorLaw(Law):
    """Distribution of noisy observations of a `PriorAt`, which can be cut."""

    pytree_data_fields = ("prior", "eigen")
    gram = None  # only one output has it
    _cut = None  # the distribution of which `split` made this one

    features = property(lambda law: law.prior.features, doc="Mode functions at the points, (n, k).")
    values = property(lambda law: law.prior.values, doc="Prior variances of the modes, (..., k).")
    residual = property(lambda law: law.prior.residual, doc="What the modes leave out, or None.")

    def _pairs(self):
        """Return the eigenpairs that were given, which must be those of all points."""
        rows, n = self.eigen[0].shape[0], self.event_shape[0]
        if rows != n:
            raise ValueError(
                f"eigen has {rows} rows but there are {n} points; compute gp.eigenpairs on these "
                "points or leave eigen out"
            )
        return self.eigen

    def _rows(self, rows):
        """Return the distribution at some points; eigenpairs stay if they are of these points."""
        prior = self.prior.rows(rows)
        own = self.eigen is not None and self.eigen[0].shape[0] == prior.features.shape[0]
        return super()._rows(rows, prior=prior, eigen=self.eigen if own else None, gram=None)

    def _between(self, n):
        return self.prior.cross(n)

    def split(self, cutoff, rule="exact", *, n=None, eigen=None, max_dense=1000):
        """Separate the first modes from the distribution of the observations given them.

        Parameters
        ----------
        cutoff : int, number of modes kept, from 0 to k
        rule : "exact", "local", "dressed", "universal" or "truncate"
            How the other modes enter ``rest``. Several correlated outputs have no "dressed", and
            their "universal" is the mean of "local" over the points.
        n : int, optional
            Number of training points, the first ones among the rows; all of them by default.
        eigen : (vectors, eigenvalues), optional
            Eigenpairs of the part that is marginalised, for the rule "exact".
        max_dense : int
            Largest number of points for a dense factorisation at every evaluation.

        Returns
        -------
        root : (..., n, cutoff), or with several outputs a `Kronecker`
            Given modes ``w ~ Normal(0, 1)``, (..., cutoff) or (..., cutoff, c), the observations
            follow ``rest.shift(root @ w)``.
        rest : Distribution
            Under "exact" a distribution of this class, with the other modes. Under the other rules
            these are independent noise: an `EffectiveNormal`, or with several outputs a residual.

        Raises
        ------
        ValueError
            For an unknown rule, a cutoff out of range, a dense factorisation that is too large,
            or the rule "dressed" on columns that are not orthonormal.
        """
        points, k = self.features.shape
        cutoff = _checks.cutoff(cutoff, k)
        _checks.choice(self._rule, rule, self._rules)
        max_dense = _checks.whole("max_dense", max_dense, least=0)
        n = points if n is None else _checks.whole("n", n, most=points)
        root = self._root(cutoff)
        if rule != "exact":
            return root, self._eliminate(cutoff, rule, n)

        if eigen is None and cutoff == 0:
            eigen = self.eigen
        high = self.prior.high(cutoff)
        work = self._work(high)
        if eigen is None and points > max_dense and work:
            raise ValueError(
                f"the exact rule would {work}; give eigen = law.prior.eigenpairs(cutoff), made "
                'once outside the sampler, choose rule="local", or raise max_dense '
                f"(now {max_dense})"
            )
        gram = None if self.gram is None else self.gram[cutoff:, cutoff:]
        rest = self._replace(prior=high, eigen=eigen, gram=gram)
        rest._cut = self
        return root, rest
