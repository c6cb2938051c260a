# SPDX-License-Identifier: Apache-2.0
"""Checks of the draws of a fit, and the one warning if they should not be trusted."""

import warnings

import arviz as az
import numpy as np
import xarray as xr

from .._warnings import warn

R_HAT, ESS = 1.01, 100  # largest R-hat; smallest effective sample size per chain
_ENTRIES = 100  # entries checked per site, so that a large site costs little


class SamplingWarning(UserWarning):
    """Draws should not be trusted: some diverged, chains differ, or too few are independent."""


def warn_if_poor(dt: xr.DataTree) -> None:
    """Warn once if draws diverged, R-hat is above 1.01, or bulk ESS is below 100 per chain.

    R-hat is checked if there are at least two chains. Of each site at most a hundred entries are
    checked, evenly spaced.

    Parameters
    ----------
    dt : result of a fit, with the groups posterior and sample_stats
    """
    posterior, stats = dt["posterior"].to_dataset(), dt["sample_stats"]
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    problems = []
    diverging = int(stats["diverging"].sum()) if "diverging" in stats else 0
    if diverging:
        problems.append(
            f"{diverging} of {chains * draws} diverged (take smaller steps, e.g. sampler=lambda m: "
            "NUTS(m, target_accept_prob=0.95), or other coordinates)"
        )
    if draws < 4:
        problems.append(f"{draws} draws per chain are too few for these checks (raise draws)")
    else:
        problems += _bad_diagnostics(_some_entries(posterior), chains)
    if problems:
        text = f"draws may not be trusted: {'; '.join(problems)}"
        warn(text, SamplingWarning)


def _bad_diagnostics(some, chains):
    """Yield one text for each diagnostic that is worse than its limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a constant has no R-hat
        r_hat = _worst(az.rhat(some), max) if chains > 1 else None
        ess = _worst(az.ess(some, method="bulk"), min)
    if r_hat is not None and r_hat[0] > R_HAT:
        yield (
            f"R-hat of {r_hat[1]!r} is {r_hat[0]:.3f}, above {R_HAT} (raise warmup and draws; if "
            "it stays, chains sit in different places)"
        )
    if ess is not None and ess[0] < ESS * chains:
        yield (
            f"the effective sample size of {ess[1]!r} is {ess[0]:.0f}, below {ESS} for each of "
            f"{chains} chain{'s' if chains > 1 else ''} (raise draws)"
        )


def _some_entries(posterior):
    """Return the sites with their axes flattened, and at most `_ENTRIES` entries of each."""
    flat = {}
    for name, values in posterior.items():
        array = values.to_numpy().reshape(values.shape[:2] + (-1,))
        step = max(1, -(-array.shape[-1] // _ENTRIES))
        flat[name] = (("chain", "draw", f"{name}_entry"), array[..., ::step])
    return xr.Dataset(flat)


def _worst(diagnostic, pick):
    """Return the worst finite value of a diagnostic and its site, or None if none is finite."""
    finite = [
        (float(value), name)
        for name, values in diagnostic.items()
        for value in values.to_numpy().ravel()
        if np.isfinite(value)
    ]
    return pick(finite, default=None)
