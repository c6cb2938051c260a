# SPDX-License-Identifier: Apache-2.0
"""Flow of a deep linear network for every draw: its order parameter acts as a ridge."""

import jax.numpy as jnp
import xarray as xr

from .. import _checks
from ..deep_linear.problem import prepare
from ..networks import DeepLinear
from ..spectrum.levels import LevelsLike
from .feature.measure import inputs_of, targets_of
from .flow import levels_of, posterior_flow


def order_flow(
    dt: xr.DataTree,
    net: DeepLinear,
    *,
    spectrum: LevelsLike | None = None,
    output: int = 0,
    site: str = "Q",
    **options,
) -> xr.DataTree:
    r"""Compute the flow of the effective ridge T/q for every posterior draw, in a new group flow.

    Given the order parameter Q, a deep linear network is kernel ridge regression with the kernel
    of infinitely wide layers. Along the a-th eigenvector of Q, with eigenvalue :math:`q_a`, the
    ridge is :math:`T/q_a` (in mean field :math:`T\gamma^2/q_a`). So the posterior is a mixture
    over ridges, and coarse-graining renormalises each of them.

    Parameters
    ----------
    dt : DataTree
        With Q (chain, draw, output, output_bis) in its posterior, and X in constant_data.
    net : DeepLinear, the network of the fit
    spectrum : Spectrum, Levels, or eigenvalues (k,), optional
        Of the kernel of infinitely wide layers, under the distribution of the inputs. The default
        are the eigenvalues of the kernel matrix at the training inputs, divided by their number.
    output : int, index a of an eigenvalue of Q; 0 is the largest
    site : str, name of Q in the posterior
    **options
        Passed to `bayesrg.diagnostics.posterior_flow`: n, rule, threshold, cutoffs, modes, batch.

    Returns
    -------
    DataTree
        The groups of ``dt`` and flow, whose variable ridge is :math:`T/q_a`.

    Raises
    ------
    ValueError
        For a missing group or site, or an output that does not exist.

    References
    ----------
    arXiv 2406.03260 for the mixture. That coarse-graining acts on each ridge is this package's
    own result.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    _checks.instance("net", net, DeepLinear, _checks.NET)
    _checks.instance("site", site, str, "the name of a site")
    if "posterior" not in dt.children or site not in dt["posterior"]:
        names = ", ".join(map(repr, dt.get("posterior", {}))) or "nothing"
        raise ValueError(f"the posterior has no site {site!r}, only {names}; give site=")
    output = _checks.whole("output", output, least=0, most=net.outputs - 1)
    rank = min((*net.widths, net.outputs))
    if output >= rank:
        raise ValueError(
            f"output {output}: a width of {rank} leaves Q of rank {rank}, and the ridge T/q is "
            f"infinite there; give an output below {rank}"
        )
    if spectrum is None:
        X = inputs_of(dt, None)
        problem = prepare(net, X, targets_of(dt, None, X.shape[0]), name="Y")
        spectrum = problem.as_jax().values / X.shape[0]
    levels = levels_of(spectrum, dt)
    ridge = net.standardise().ridge

    def at(draw):
        q = jnp.linalg.eigvalsh(draw[site])[::-1][output]
        return levels, ridge / q

    only = dt.copy()
    only["posterior"] = xr.DataTree(dt["posterior"].to_dataset()[[site]])
    flow = posterior_flow(only, levels, values_fn=at, **options)["flow"]
    tree = dt.copy()
    tree["flow"] = flow
    return tree
