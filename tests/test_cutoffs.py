# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from oracles import fourier_problem
from scipy.optimize import brentq

from bayesrg import rg
from bayesrg.rg.cutoffs import CUTOFF_RULES
from bayesrg.spectrum import levels

p = fourier_problem()
NS = (0.5, 2.0, 5.0, 9.0, 14.0, 30.0, 200.0, 1e6)
AVERAGE = [rule for rule in CUTOFF_RULES if rule != "posterior"]


def cutoffs(rule, problems, threshold=0.5, scan="ir"):
    """Cutoffs of up to eight problems (values, n, ridge, counts), padded to one shape.

    Modes without variance, which no rule keeps, fill up the rows.
    """
    values, counts, n, ridge = np.zeros((8, 25)), np.ones((8, 25)), np.ones(8), np.ones(8)
    for i, (v, n[i], ridge[i], *count) in enumerate(problems):
        values[i, : len(v)] = v
        counts[i, : len(v)] = count[0] if count else 1
    found = rg.cutoff(values, n, ridge, rule, threshold, scan=scan, degeneracy=counts)
    assert found.dtype == int and found.shape == (8,)
    return found[: len(problems)]


def slow(values, n, ridge, rule, threshold, scan="ir"):
    """Count modes one by one, as the rules are stated."""
    N = len(values)
    tail = np.concatenate([np.cumsum(values[::-1])[::-1], [0.0]])  # sum over j >= k, 0-based

    def s():
        def excess(s):
            return ridge + (values * s / (s + n * values)).sum() - s

        return brentq(excess, ridge, ridge + values.sum(), xtol=1e-300, rtol=1e-15)

    if rule == "dof":
        return int(round(sum(n * v / (n * v + s()) for v in values)))
    if rule == "match":
        return int(np.argmin(np.abs(tail - (s() - ridge))))
    if rule == "effective_rank":
        b, padded = (1 - threshold) / threshold, [*values, 0.0]
        return next(k for k in range(N + 1) if ridge + tail[k] >= b * n * padded[k])
    noise = {
        "bare": lambda k: ridge,
        "running": lambda k: ridge + tail[k + 1],
        "self_consistent": lambda k: s(),
        "fisher": lambda k: ridge + tail[k + 1],
    }[rule]
    learnt = [n * v / (n * v + noise(k)) >= threshold for k, v in enumerate(values)]
    if scan == "ir":
        return next((k for k in range(N) if not learnt[k]), N)
    return max((k + 1 for k in range(N) if learnt[k]), default=0)


# the others of learnability differ from "running" in the noise alone
KINDS = "running", "dof", "effective_rank", "match"


@pytest.mark.parametrize(
    "rule", [pytest.param(r, marks=() if r in KINDS else pytest.mark.slow) for r in AVERAGE]
)
def test_against_counting_one_by_one(rule):
    rng = np.random.default_rng(3)
    for threshold in rng.uniform(0.05, 0.95, 4):
        values = np.sort(rng.gamma(0.3, 1.0, (8, 25)))[:, ::-1] + 1e-6
        problems = list(zip(values, rng.integers(1, 60, 8), rng.gamma(0.5, size=8), strict=True))
        for scan in ("ir", "uv"):
            ours = cutoffs(rule, problems, threshold, scan)
            one_by_one = [slow(*one, rule, threshold, scan) for one in problems]
            np.testing.assert_array_equal(ours, one_by_one, err_msg=str(threshold))


@pytest.mark.slow
def test_reference_cutoffs():
    """A million modes: 200 by themselves, then neighbours within 1 % as one level."""
    edges = np.unique(np.r_[np.arange(200), np.geomspace(200, 10**6, 800).round()].astype(int))
    sizes, values = np.diff(edges), np.arange(1, 10**6 + 1.0) ** -2
    million = levels(np.add.reduceat(values, edges[:-1]) / sizes, degeneracy=sizes)
    expected = {
        "match": 19, "running": 31, "bare": 31, "self_consistent": 30, "dof": 48, "fisher": 31,
        "effective_rank": 31,
    }  # fmt: skip
    assert {rule: rg.cutoff(million, 1000, 1.0, rule) for rule in AVERAGE} == expected
    assert rg.cutoff(million, 1000, 1.0, "running", 0.7116) == 19


def test_effective_rank_is_the_running_rule_at_a_shifted_threshold():
    problem = np.arange(1, 26.0) ** -1.7, 30.0, 0.03
    for threshold in (0.1, 0.3, 0.5, 0.8):
        b = (1 - threshold) / threshold
        shifted = 1 / (1 + b - 1 / 30)
        ours = cutoffs("effective_rank", [problem], threshold)
        assert ours == cutoffs("running", [problem], shifted)
    assert cutoffs("effective_rank", [(problem[0], 1.0, 0.03)], 0.6) == 0  # b <= 1 / n


def test_equality_keeps_a_mode_and_the_uv_scan_takes_the_last_of_a_level():
    assert cutoffs("bare", [([1.0], 1.0, 1.0)]) == 1  # the learnability is one half
    problems = ([1.0, 0.3, 0.01], 1.0, 0.0, [2, 5, 3]), ([1.0, 0.05], 1.0, 0.0, [1, 6])
    assert cutoffs("running", problems, scan="uv").tolist() == [10, 7]


def test_posterior_rule_on_given_points():
    """The learnability is one minus posterior over prior variance."""
    R = p.Phi * p.values @ p.Phi.T + p.ridge * np.eye(24)
    learnt = p.values * (p.Phi * np.linalg.solve(R, p.Phi)).sum(0)
    printed = [0.99689366242, 0.98688295275, 0.974102369538, 0.950685363906]
    np.testing.assert_allclose(learnt[:4], printed, rtol=0, atol=6e-12)
    expected = int(np.argmin(learnt >= 0.5))

    @jax.jit
    def ask(values, tail, residual=None):
        given = {"features": p.Phi, "tail": tail, "residual": residual}
        return rg.cutoff(values, 24, p.ridge, "posterior", **given)

    assert ask(p.values, 0.0) == expected
    # a tail is noise at the points, in place of which a residual may be given
    assert ask(p.values, 0.3) == ask(p.values, 7.0, np.full(24, 0.3)) < expected
    pairs = np.append(1.0, np.repeat(p.values[1::2], 2))
    assert ask(pairs, 0.0) % 2 == 1

    def stop():
        flow = rg.flow(p.values, 24, p.ridge, rule="posterior", features=p.Phi)
        assert flow.rule == "posterior"
        return flow.stop

    assert jax.jit(stop)() == expected


@pytest.mark.parametrize("rule", AVERAGE)
def test_multiplets_stay_whole(rule):
    values, count = np.array([1.0, 0.3, 0.05, 0.004, 1e-4]), np.array([1, 3, 5, 7, 9])
    modes, edges = np.repeat(values, count), np.concatenate([[0], np.cumsum(count)])
    split_by_roundoff = modes * (1 - 1e-13 * np.arange(25))
    for threshold in (0.2, 0.5, 0.7):
        together, apart, almost = (
            cutoffs(rule, [(*problem[:1], n, 0.05, *problem[1:]) for n in NS], threshold)
            for problem in ((values, count), (modes,), (split_by_roundoff,))
        )
        np.testing.assert_array_equal(together, apart)
        np.testing.assert_array_equal(almost, apart)
        assert np.isin(apart, edges).all()


@pytest.mark.parametrize("rule", AVERAGE)
def test_edges(rule):
    """Modes beyond memory, no modes, none to learn, all of them, and no noise."""
    huge, many = 10.0 ** -np.arange(8.0), 10.0 ** np.arange(8.0)
    problems = [
        (huge, 1e4, 0.1, many), ([], 3.0, 0.1), ([1.0, 0.5, 0.25], 1e9, 1e-3),
        ([1.0, 0.5, 0.0], 10.0, 0.0), ([1.0, 0.5, 0.2], 10.0, 0.0),
    ]  # fmt: skip
    kept, *found, noiseless, positive = cutoffs(rule, problems)
    assert kept in np.concatenate([[0], np.cumsum(many)]) and found == [0, 3]
    if rule == "bare":
        assert noiseless == 2  # every positive mode without noise
    if rule in ("dof", "match"):
        assert positive == 3
    assert rg.cutoff(np.ones(0), 3.0, 0.1, rule) == 0


def test_batches_and_tracing():
    ns, ridges = np.array([10.0, 50.0, 200.0]), np.array([[0.01], [1.0]])
    values = np.arange(1, 26.0) ** -2

    @jax.jit
    def together(n, ridge):
        mapped = jax.vmap(lambda n: rg.cutoff(values, n, 0.01))(n)
        return mapped, rg.cutoff(values, n, ridge), rg.cutoff(values, n, ridge, "match")

    mapped, *both = jax.device_get(together(ns, ridges))
    np.testing.assert_array_equal(mapped, both[0][0])
    problems = [(values, n, ridge) for ridge in ridges[:, 0] for n in ns]
    for rule, many in zip(("running", "match"), both, strict=True):
        assert many.shape == (2, 3) and many.dtype == int
        np.testing.assert_array_equal(many.ravel(), cutoffs(rule, problems))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rule": "posterior"}, "needs features"),
        ({"features": np.ones((3, 2))}, "belong to rule=\"posterior\", not to 'running'"),
        ({"rule": "posterior", "features": np.ones((4, 2))}, "has 4 rows but n is 3"),
        (
            {"rule": "posterior", "features": np.ones((3, 2)), "degeneracy": [1, 2]},
            "leave degeneracy out",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        rg.cutoff([1.0, 0.5], 3, 0.1, **arguments)
