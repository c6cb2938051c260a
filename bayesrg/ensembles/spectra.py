# SPDX-License-Identifier: Apache-2.0
"""Many spectra of one gas, with a density that costs the same for any number of them."""

import jax
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jaxtyping import Float
from numpyro.distributions import constraints

from .. import _checks
from .._checks import ArrayLike
from .gas import Gas
from .statistics import GasStatistics

_WHAT = "a CoulombGas or a LaguerreGas"


class IndependentSpectra(dist.Distribution):
    """Law of m independent spectra of one gas.

    Parameters
    ----------
    law : CoulombGas or LaguerreGas
        With no batch shape.
    statistics : GasStatistics, optional
        From `gas_statistics` of the levels (m, n) whose density is asked for. ``log_prob`` then
        reads the statistics and not the levels: a step of a sampler costs a few sums over n,
        whatever m is. Where the levels can be read, statistics of other levels are refused.
    spectra : int, optional
        Number m of spectra, needed without statistics.

    Raises
    ------
    ValueError
        For statistics of another number of levels.

    Notes
    -----
    The event shape is (m, n).

    References
    ----------
    arXiv 2407.16427.
    """

    event_dims = ("spectrum", "level")
    pytree_data_fields = ("law", "statistics")

    def __init__(
        self,
        law: Gas,
        statistics: GasStatistics | None = None,
        *,
        spectra: int | None = None,
        validate_args: bool | None = None,
    ):
        self.law = _checks.instance("law", law, Gas, _WHAT)
        if law.batch_shape:
            raise ValueError(f"law has the batch shape {law.batch_shape}; give one gas")
        if (statistics is None) == (spectra is None):
            raise ValueError("give either statistics of the levels, or their number: spectra=m")
        n = law.event_shape[0]
        if statistics is not None:
            what = "statistics of levels, from gas_statistics(levels)"
            spectra = _checks.instance("statistics", statistics, GasStatistics, what).spectra
            if np.ndim(statistics.mean):
                raise ValueError(
                    f"statistics are of {np.shape(statistics.mean)} sets of spectra; give those of "
                    "one set, made from levels (m, n)"
                )
            if statistics.levels != n:
                raise ValueError(
                    f"statistics are of {statistics.levels} levels per spectrum and law is of {n}; "
                    f"give the law n={statistics.levels}"
                )
        self.statistics = statistics
        event = (_checks.whole("spectra", spectra), n)
        super().__init__((), event, validate_args=validate_args)

    @property
    def support(self):
        """Ascending levels in each row."""
        return constraints.independent(self.law.support, 1)

    def log_prob(self, value: ArrayLike) -> Float[Array, ""]:
        """Return the log density of all spectra ``value`` (m, n)."""
        if self.statistics is None:
            return self.loo(value).sum(-1)
        value = _checks.numbers("levels", value)
        if _checks.known(value) and _checks.known(self.statistics.mean):
            _check_fresh(np.asarray(value), self.statistics)
        return _log_density(self.law, self.statistics)

    def loo(self, value: ArrayLike) -> Float[Array, "*batch spectrum"]:
        """Return the log density of each spectrum of ``value`` (m, n), (m,).

        Spectra are independent, so the others do not change it.
        """
        return self.law.log_prob(value)

    def sample(self, key: Array | int, sample_shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Draw m spectra, ``sample_shape + (m, n)``."""
        return self.law.sample(key, (*sample_shape, self.event_shape[0]))


@jax.jit
def _log_density(law, statistics):
    return law.of_statistics(statistics)


def _check_fresh(levels, found):
    """Raise unless the statistics are those of these levels."""
    if levels.shape[-2:] != (found.spectra, found.levels):
        raise ValueError(
            f"levels have shape {levels.shape} and statistics are of shape "
            f"{(found.spectra, found.levels)}; make them again with gas_statistics(levels)"
        )
    tolerance = 1000 * np.finfo(np.asarray(found.mean).dtype).eps
    mean, scatter = levels.mean(), ((levels - levels.mean()) ** 2).sum()
    for name, was, now, size in (
        ("mean", found.mean, mean, np.abs(levels).mean()),
        ("scatter", found.scatter, scatter, scatter + levels.size * mean**2),
    ):
        if not abs(now - float(was)) <= tolerance * size:
            raise ValueError(
                f"statistics belong to other levels: their {name} is {float(was):.6g}, that of the "
                f"levels {now:.6g}; make them again with gas_statistics(levels)"
            )
