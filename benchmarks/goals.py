# SPDX-License-Identifier: Apache-2.0
"""What this package wants to reach, as ratios of one run, and what was tried for each."""

from dataclasses import dataclass

from race import best, middle


@dataclass(frozen=True)
class Goal:
    """One ratio of a figure and its limit.

    ``over`` is a role of `race` or the beginning of the name of a contender. Without a limit the
    ratio is reported only. With ``least`` the ratio has to be at least the limit. ``tried`` says
    what was tried where the limit is not reached.
    """

    work: str
    figure: str
    over: str
    limit: float | None = None
    ours: str = "bayesrg"
    key: str = "seconds"
    least: bool = False
    tried: str = ""

    def ratio(self, figures):
        """Return the ratio, or None if the figure or one of its contenders was not measured."""
        if self.figure not in figures:
            return None
        record = figures[self.figure]
        ours = named(record, self.ours, self.key)
        if self.key == "reserved":
            return ours and ours / (8 * int(self.over) ** 2)
        other = named(record, self.over, self.key) or best(record, self.over, self.key)
        return ours / other if ours and other else None

    def reached(self, ratio):
        """Say whether the limit is reached: "yes", "no", or "" without a limit or a ratio."""
        if ratio is None or self.limit is None:
            return ""
        return "yes" if (ratio >= self.limit if self.least else ratio <= self.limit) else "no"


def named(record, start, key):
    """Return a number of the first contender whose name begins with ``start``, or None."""
    for name, row in record["rows"].items():
        if name.startswith(start) and row.get(key) is not None:
            return row[key] if key == "reserved" else middle(row, key)
    return None


def of_evidence():
    """Yield the goals of the dense evidence."""
    for n in (500, 2000, 4000):
        peer, floor = (0.5, 1.7) if n == 2000 else (None, None)
        work = f"Evidence and gradient, RBF, n = {n}"
        figure = f"evidence: RBF {n}"
        yield Goal(f"{work}, to the fastest peer", figure, "peer", peer)
        yield Goal(f"{work}, to LAPACK potrf + potri", figure, "floor", floor)
        yield Goal(f"{work}, n x n arrays in memory", figure, str(n), 6.0, key="reserved")
    for kernel in ("Matern52", "Matern32", "Matern12"):
        work = f"The same, {kernel} at n = 2000, to RBF"
        yield Goal(work, f"evidence: {kernel} 2000", "bayesrg, RBF", 1.2)


MVN, LOW_RANK = "NumPyro MultivariateNormal", "NumPyro LowRankMultivariateNormal"
FIXED, CUT = "gp_evidence: fixed", "bayesrg, marginal"
GOALS = (
    *of_evidence(),
    Goal(f"A gradient in NUTS, dense RBF, n = 400, to {MVN}", "gp_evidence: dense", MVN, 0.6),
    Goal(
        "The same, effective draws per second",
        "gp_evidence: dense",
        MVN,
        1.6,
        key="ESS/s",
        least=True,
    ),
    Goal(
        f"32 + 32 modes, n = 5000, constant noise, to {LOW_RANK}",
        "gp_evidence: cut",
        LOW_RANK,
        1 / 12,
        CUT,
    ),
    Goal(
        "The same, noise by point",
        "gp_evidence: cut, noise by point",
        LOW_RANK,
        1 / 4,
        CUT,
        tried="Two products of 5,000 x 32 x 32 per gradient are most of the time, and both are "
        "needed if the noise of each point may change; the peer does about twice this work. To "
        "leave out the terms of fixed features, or to avoid copies of transposed features, changed "
        "nothing inside NUTS. If the noise is one number times known factors, divide features and "
        "observations by their square roots: then noise is constant, as in the line above.",
    ),
    Goal(
        "32 + 32 modes, effective draws per second, to the exact model",
        "gp_evidence: against exact",
        "exact",
        100.0,
        key="ESS/s",
        least=True,
    ),
    Goal("Fixed eigenbasis, n = 2000, to the sampler alone", FIXED, "floor", 2.0),
    Goal(
        "Fixed eigenbasis, n = 8000 to n = 2000",
        FIXED,
        "bayesrg, eigen",
        5.0,
        "bayesrg, eigen, n = 8000",
    ),
    Goal("`maximise_evidence`, n = 1000, to scikit-learn", "search: maximum", "scikit-learn", 0.5),
    Goal("The same, to GPyTorch with L-BFGS", "search: maximum", "GPyTorch", 0.5),
    Goal(
        "NNGP and NTK, n = 2000, to neural-tangents",
        "neural_kernels: gram",
        "neural-tangents",
        0.35,
    ),
    Goal("The same, to one product X X^T", "neural_kernels: gram", "floor", 1.5),
    Goal("First draw of all models, warm to cold", "first_draw: sum", "cold", 0.5, "warm"),
    Goal(
        "One thread of LAPACK to all, evidence",
        "threads: evidence and gradient",
        "peer",
        ours="one",
    ),
    Goal("The same, `fit`", "threads: fit of gp_regression", "peer", ours="one"),
    Goal("The same, the main job", "threads: main job of gp_regression", "peer", ours="one"),
    Goal(
        "Training with least action, to plain training",
        "least_action: training",
        "peer",
        1.3,
        "least action, K = 6",
    ),
    Goal(
        "Plain training, to a bare scan of optax",
        "least_action: training",
        "floor",
        1.1,
        "plain by run, K = 6",
    ),
    Goal(
        "`dynamics.run`, 1,000 chains, to a bare scan",
        "weight_dynamics: runs",
        "floor",
        1.1,
        "dynamics.run",
    ),
)
