# SPDX-License-Identifier: Apache-2.0
"""Summary of groups of levels over chains and draws, with errors."""

import arviz as az
import jax
import numpy as np
import xarray as xr
from jax import Array
from scipy import stats
from scipy.special import gammaln, logsumexp

from ... import _checks
from ..._checks import ArrayLike
from ..._warnings import warn

STATISTICS = ("mean", "sd", "eti_low", "eti_high", "ess", "r_hat")
_GRID = 400  # nodes of a quadrature
_RESAMPLES = 200  # of the bootstrap over chains and matrices
_FEW = 50  # spacings below which a distance says nothing
_INTERVAL = np.array([0.055, 0.945])


def summary(spectra: xr.Dataset, *, key: Array | int, gap: ArrayLike = 6.0) -> xr.Dataset:
    r"""Describe each group of levels: its place and width, and how its levels repel each other.

    Parameters
    ----------
    spectra : Dataset
        From `spectra`, with the axes draw, or chain and draw.
    key : JAX key, or int
        For the bootstrap over chains and matrices.
    gap : float
        Groups closer than this number of widths are warned about.

    Returns
    -------
    Dataset
        Variables over (layer, group, statistic), where statistic is mean, sd, the ends of the 89 %
        interval, ess and r_hat. What a group is too small for is nan.

        - level: mean of the group's levels
        - sigma: width of the `bayesrg.ensembles.CoulombGas` of the group, with its own centre in
          each matrix; of a single level its standard deviation
        - spacing: mean spacing
        - r: mean ratio of neighbouring spacings, of three or more levels
        - distance: largest difference of distribution functions between spacings and the Wigner
          surmise, each spacing over its mean across matrices
        - q: exponent of the Brody law of the same spacings, with a flat prior on (0, 2)
        - beta: repulsion of the gas, with a flat prior on (0, 3) and centre and width integrated

        ``size`` (layer, group) counts the levels of a group.

    Raises
    ------
    ValueError
        For spectra without draws.

    Warns
    -----
    UserWarning
        If groups overlap, or if there are too few spacings for a distance.

    Notes
    -----
    Levels of one matrix, and of successive draws, depend on each other. So q and beta use the
    likelihood to the power ess / number of matrices, and the distance resamples whole matrices.

    References
    ----------
    arXiv 2407.16427.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(_checks.random_key(key))))
    gap = _checks.number("gap", gap)
    levels, members = _levels_of(spectra)
    count = members.max() + 1
    names = ("level", "sigma", "spacing", "r", "distance", "q", "beta")
    found = {name: np.full((len(levels), count, len(STATISTICS)), np.nan) for name in names}
    size = np.zeros((len(levels), count), int)
    for layer, (x, group) in enumerate(zip(levels, members, strict=True)):
        _warn_if_close(x, group, gap)
        for g in range(group.max() + 1):
            own = x[..., group == g][..., ::-1]  # ascending
            size[layer, g] = own.shape[-1]
            for name, values in _of_group(own, rng).items():
                found[name][layer, g] = values
    axes = "layer", "group", "statistic"
    result = xr.Dataset({name: (axes, values) for name, values in found.items()})
    result["size"] = axes[:2], size
    return result.assign_coords(
        layer=spectra["layer"].to_numpy(), group=np.arange(count), statistic=list(STATISTICS)
    )


def _levels_of(spectra):
    """Return levels (layer, chain, draw, level) and the groups (layer, level) of a Dataset."""
    _checks.instance("spectra", spectra, xr.Dataset, "a Dataset from weights.spectra")
    if not {"levels", "group"} <= set(spectra):
        raise ValueError("spectra lacks levels or group; give a Dataset from weights.spectra")
    levels = spectra["levels"]
    if "draw" not in levels.dims:
        raise ValueError(
            f"spectra has the axes {levels.dims}; this function needs draws, (chain, draw)"
        )
    levels = levels if "chain" in levels.dims else levels.expand_dims("chain")
    levels = levels.transpose("layer", "chain", "draw", "level").to_numpy()
    return levels, spectra["group"].transpose("layer", "level").to_numpy()


def _warn_if_close(x, group, gap):
    """Warn if neighbouring groups are closer than ``gap`` standard deviations."""
    for g in range(group.max()):
        upper, lower = x[..., group == g], x[..., group == g + 1]
        width = np.sqrt((upper.var((0, 1)).mean() + lower.var((0, 1)).mean()) / 2)
        apart = (upper.min(-1) - lower.max(-1)).mean() / max(width, np.finfo(float).tiny)
        if apart < gap:
            warn(
                f"level groups overlap (gap/sd={apart:.3g}); sigma mixes groups: give "
                "weights.spectra the degeneracies"
            )


def _of_group(x, rng):
    """Return the statistics of one group of ascending levels (chain, draw, n)."""
    n = x.shape[-1]
    centre = x.mean(-1)
    found = {"level": mean_of(centre)}
    if n == 1:
        squares = (centre - centre.mean()) ** 2
        ess, r_hat = effective(squares)
        found["sigma"] = _width(squares.mean(), ess - 1, ess, r_hat)
        return found

    squares = ((x - centre[..., None]) ** 2).sum(-1)
    ess, r_hat = effective(squares)
    degrees = n + n * (n - 1) / 2 - 1  # of one matrix, its centre fitted
    found["sigma"] = _width(squares.mean() / degrees, ess * degrees, ess, r_hat)
    gaps = np.diff(x, axis=-1)
    if (gaps == 0).any():
        i = int(np.argwhere(gaps == 0)[0, -1])
        raise ValueError(
            f"equal levels at indices {i},{i + 1} of a group: spacing is zero; leave out the "
            "start of a run, and levels that were rounded"
        )
    found["spacing"] = mean_of(gaps.mean(-1))
    if n > 2:
        ratios = np.minimum(gaps[..., 1:], gaps[..., :-1]) / np.maximum(
            gaps[..., 1:], gaps[..., :-1]
        )
        found["r"] = mean_of(ratios.mean(-1))

    s = gaps / gaps.mean((0, 1))
    found["distance"] = (*_distance(s, rng), ess, r_hat)
    share = ess / squares.size
    found["q"] = (*_brody(s, share), ess, r_hat)
    found["beta"] = (*_repulsion(x, squares.sum(), share), ess, r_hat)
    return found


def effective(v):
    """Return the effective sample size and R-hat of draws (chain, draw)."""
    if v.shape[1] < 4 or not np.ptp(v) > 0:
        return float(v.size), np.nan
    ess = float(az.ess(v, method="mean"))
    return min(ess, float(v.size)), float(az.rhat(v)) if len(v) > 1 else np.nan


def mean_of(v):
    """Return the mean of draws (chain, draw) with its standard error."""
    ess, r_hat = effective(v)
    error = v.std(ddof=1) / np.sqrt(ess) if v.size > 1 else np.nan
    low, high = v.mean() + error * stats.norm.ppf(_INTERVAL)
    return v.mean(), error, low, high, ess, r_hat


def _width(square, degrees, ess, r_hat):
    """Return the posterior of a standard deviation from a mean square with chi-squared errors."""
    if degrees <= 2:
        return np.sqrt(square), np.nan, np.nan, np.nan, ess, r_hat
    law = stats.chi2(degrees)
    low, high = np.sqrt(square * degrees / law.ppf(_INTERVAL[::-1]))
    mean = np.sqrt(square * degrees / 2) * np.exp(gammaln((degrees - 1) / 2) - gammaln(degrees / 2))
    second = square * degrees / (degrees - 2)
    return mean, np.sqrt(max(second - mean**2, 0.0)), low, high, ess, r_hat


def _distance(s, rng):
    """Return the distance of spacings (chain, draw, k) to the surmise, resampling matrices."""
    if s.size < _FEW:
        warn(f"only {s.size} spacings: KS has no power below {_FEW}")
    flat = s.reshape(-1, s.shape[-1])
    picks = rng.integers(len(flat), size=(_RESAMPLES, len(flat)))
    found = [_to_surmise(flat[rows]) for rows in picks]
    return _to_surmise(flat), np.std(found), *np.percentile(found, 100 * _INTERVAL)


def _to_surmise(s):
    law = -np.expm1(-np.pi / 4 * np.sort(s, None) ** 2)
    steps = np.arange(law.size + 1) / law.size
    return np.maximum(law - steps[:-1], steps[1:] - law).max()


def _brody(s, share):
    """Return mean, standard deviation and interval of q, by quadrature."""
    q = (np.arange(_GRID) + 0.5) * 2 / _GRID
    b = np.exp((1 + q) * gammaln((2 + q) / (1 + q)))
    powers = (np.log(s.ravel())[:, None] * (1 + q)).T
    log = s.size * np.log((1 + q) * b) + q * np.log(s).sum() - b * np.exp(logsumexp(powers, axis=1))
    return _moments(q, share * log)


def _repulsion(x, squares, share):
    """Return mean, standard deviation and interval of beta, centres and width integrated."""
    m, n = x[..., 0].size, x.shape[-1]
    beta = (np.arange(_GRID) + 0.5) * 3 / _GRID
    i, j = np.triu_indices(n, 1)
    pairs = np.log(x[..., j] - x[..., i]).sum()
    k = np.arange(1, n + 1)[:, None]
    normaliser = (gammaln(1 + k * beta / 2) - gammaln(1 + beta / 2)).sum(0)
    degrees = m * (n + beta * n * (n - 1) / 2 - 1)
    log = beta * pairs - m * normaliser + gammaln(degrees / 2) - degrees / 2 * np.log(squares / 2)
    return _moments(beta, share * log)


def _moments(x, log):
    """Return mean, standard deviation and interval of a density on equal steps."""
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ x
    low, high = np.interp(_INTERVAL, np.cumsum(weight), x)
    return mean, np.sqrt(weight @ (x - mean) ** 2), low, high


def drift(spectra: xr.Dataset) -> xr.Dataset:
    """Compare the first half of the draws with the second, to see whether levels still move.

    Parameters
    ----------
    spectra : Dataset
        From `spectra`, with the axes draw, or chain and draw.

    Returns
    -------
    Dataset
        ``difference`` (layer, group) of the mean level of a group, second half minus first, and
        ``z``, the same in units of its standard error; |z| above 3 says that draws still move.

    Raises
    ------
    ValueError
        For fewer than eight draws.
    """
    levels, members = _levels_of(spectra)
    draws = levels.shape[2]
    if draws < 8:
        raise ValueError(f"spectra has {draws} draws; drift needs at least 8")
    difference = np.full((len(levels), members.max() + 1), np.nan)
    z = difference.copy()
    for layer, (x, group) in enumerate(zip(levels, members, strict=True)):
        for g in range(group.max() + 1):
            centre = x[..., group == g].mean(-1)
            first, second = mean_of(centre[:, : draws // 2]), mean_of(centre[:, draws // 2 :])
            difference[layer, g] = second[0] - first[0]
            error = np.hypot(first[1], second[1])
            z[layer, g] = difference[layer, g] / error if error > 0 else np.nan
    axes = "layer", "group"
    found = xr.Dataset({"difference": (axes, difference), "z": (axes, z)})
    return found.assign_coords(layer=spectra["layer"].to_numpy(), group=np.arange(z.shape[1]))
