# SPDX-License-Identifier: Apache-2.0
"""Feature kernels of wide layers, to first order in one over the width."""

import numpy as np
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..networks import DeepLinear
from .problem import prepare


def perturbative_kernel(
    net: DeepLinear, X: ArrayLike, y: ArrayLike, level: int
) -> Float[np.ndarray, "point point_bis"]:
    r"""Return the posterior mean of :math:`H_lH_l^T/N_l` to first order in one over the width.

    It is :math:`K_l + \frac{1}{t_l}\sum_{k\le l}\frac{1}{N_k}(E[ff^T|y] - cK)`, (n, n). The average
    is over the posterior Gaussian process of infinite width, with kernel K. :math:`t_l` is the
    product of the squared scales above layer l, and :math:`K_l = K/t_l`. For equal widths the
    change is linear in depth; without noise it points along the targets (arXiv 2106.00651; unequal
    widths, scales and noise are the package's own).

    Parameters
    ----------
    net : DeepLinear
        A rich mean-field network is far from this limit.
    X : (n, d), inputs
    y : (n,), or (n, c) for c outputs
        Targets.
    level : int, layer l, from 0 (the inputs) to L

    Raises
    ------
    ValueError
        For mismatched shapes, non-finite data, or a level outside 0..L.
    """
    problem = prepare(net, X, y)
    _checks.whole("level", level, least=0, most=len(problem.widths))

    learnt = problem.learnt(0.0)  # infinite width is log q = 0
    mean = learnt[:, None] * problem.targets
    second = mean @ mean.T + problem.outputs * np.diag(problem.ridge * learnt)
    rate = sum(1.0 / width for width in problem.widths[:level])
    K = np.diag(problem.values)
    inner = K + rate * (second - problem.outputs * K)
    inner = inner / (problem.scales[level:] ** 2).prod()
    return problem.vectors @ inner @ problem.vectors.T
