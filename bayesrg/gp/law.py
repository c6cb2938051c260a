# SPDX-License-Identifier: Apache-2.0
"""What the laws of observations of one prior share: its parts, rows, shifts, and the cut."""

from inspect import signature

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .law_checks import at_points


class Law(dist.Distribution):
    """Observations of a `PriorAt` with noise; the first event axis is that of the points."""

    pytree_data_fields = ("prior", "ridge", "loc", "eigen")
    gram = None  # only one output has it

    features = property(lambda law: law.prior.features, doc="Mode functions at the points, (n, k).")
    values = property(lambda law: law.prior.values, doc="Prior variances of the modes, (..., k).")
    residual = property(lambda law: law.prior.residual, doc="What the modes leave out, or None.")

    @property
    def mean(self) -> Array:
        """The mean of the observations."""
        return jnp.broadcast_to(self.loc, self.shape())

    def shift(self, mean: ArrayLike) -> "Law":
        """Add ``mean``, an array of the shape of the observations, to the location."""
        return self._replace(loc=self.loc + at_points("means", mean, self.event_shape))

    def _centred(self, value):
        r = at_points("observations", value, self.event_shape) - self.loc
        return jnp.broadcast_to(r, jnp.broadcast_shapes(r.shape, self.shape()))

    def _replace(self, prior=None, **changes):
        """Make this law again with another prior, or with other arguments changed."""
        parts = vars(self) | vars(self.prior if prior is None else prior) | changes
        arguments = signature(type(self).__init__).parameters.keys() & parts.keys()
        return type(self)(**{name: parts[name] for name in arguments})

    def _pairs(self):
        """Eigenpairs that were given, which must be those of all points."""
        rows, n = self.eigen[0].shape[0], self.event_shape[0]
        if rows != n:
            raise ValueError(
                f"eigen has {rows} rows but there are {n} points; compute gp.eigenpairs on these "
                "points or leave eigen out"
            )
        return self.eigen

    def _rows(self, rows):
        """Return the marginal of some points; eigenpairs stay if they are these points' own."""
        prior = self.prior.rows(rows)
        own = self.eigen is not None and self.eigen[0].shape[0] == prior.features.shape[0]
        return self._replace(prior, eigen=self.eigen if own else None, **self._taken(rows))

    def _ahead(self, n):
        """Laws of the first n points and of the others, and the prior covariance between them."""
        return self._rows(slice(None, n)), self._rows(slice(n, None)), self.prior.cross(n)

    def split(self, cutoff, rule="exact", *, n=None, eigen=None, max_dense=1000):
        """Separate the first modes from the law of the observations given them.

        Parameters
        ----------
        cutoff : int, modes kept, from 0 to k
        rule : "exact", "local", "dressed", "universal" or "truncate"
            Several correlated outputs know no "dressed", and their "universal" is the mean of
            "local" over the points.
        n : int, training points among the rows (the first ones); all of them by default
        eigen : eigenpairs of the part that is marginalised, for the rule "exact"
        max_dense : int, most points for a dense factorisation at every evaluation

        Returns
        -------
        root : (..., n, cutoff), or with several outputs a `Kronecker`
            Given modes ``w ~ Normal(0, 1)``, (..., cutoff) or (..., cutoff, c), the observations
            follow ``rest.shift(root @ w)``.
        rest : Distribution
            Law of the same kind, of the other modes, under "exact". Other rules make of these a
            variance without correlations between points: an `EffectiveNormal`, or with several
            outputs a residual.

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
        gram = {} if self.gram is None else {"gram": self.gram[cutoff:, cutoff:]}
        return root, self._replace(high, eigen=eigen, **gram)
