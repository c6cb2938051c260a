# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from oracles import fourier_problem
from scipy.optimize import brentq

from bayesrg import rg
from bayesrg.rg.cutoffs import CUTOFF_RULES

p = fourier_problem()
AVERAGE = [rule for rule in CUTOFF_RULES if rule != "posterior"]


@jax.jit
def by_every_rule(values, n, ridge, **given):
    return {rule: rg.cutoff(values, n, ridge, rule, **given) for rule in AVERAGE}


compiled = jax.jit(rg.cutoff, static_argnames=("rule", "threshold", "scan"))


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


@pytest.mark.parametrize("rule", AVERAGE)
def test_against_counting_one_by_one(rule):
    rng = np.random.default_rng(3)
    for threshold in rng.uniform(0.05, 0.95, 4):
        values = np.sort(rng.gamma(0.3, 1.0, (8, 25)))[:, ::-1] + 1e-6
        n, ridge = rng.integers(1, 60, 8), rng.gamma(0.5, size=8)
        for scan in ("ir", "uv"):
            ours = rg.cutoff(values, n.astype(float), ridge, rule, threshold, scan=scan)
            one_by_one = [
                slow(*one, rule, threshold, scan) for one in zip(values, n, ridge, strict=True)
            ]
            np.testing.assert_array_equal(ours, one_by_one, err_msg=str(threshold))
            assert ours.dtype == int


def test_reference_cutoffs():
    values = rg.power_law(1.0).values(10**6)
    assert by_every_rule(values, 1000, 1.0) == {
        "match": 19, "running": 31, "bare": 31, "self_consistent": 30, "dof": 48, "fisher": 31,
        "effective_rank": 31,
    }  # fmt: skip
    assert compiled(values, 1000, 1.0, "running", 0.7116) == 19


def test_effective_rank_is_the_running_rule_at_a_shifted_threshold():
    values, n, ridge = np.arange(1, 301.0) ** -1.7, 30.0, 0.03

    def both(values):
        for threshold in (0.1, 0.3, 0.5, 0.8):
            b = (1 - threshold) / threshold
            yield rg.cutoff(values, n, ridge, "effective_rank", threshold)
            yield rg.cutoff(values, n, ridge, "running", 1 / (1 + b - 1 / n))
        yield rg.cutoff(values, 1.0, ridge, "effective_rank", 0.6)  # b <= 1 / n

    *kept, none = jax.jit(lambda values: list(both(values)))(values)
    assert kept[::2] == kept[1::2] and none == 0


def test_equality_keeps_a_mode_and_the_uv_scan_takes_the_last_of_a_level():
    assert rg.cutoff([1.0], 1.0, 1.0, "bare") == 1  # the learnability is one half

    def last(values, degeneracy):
        given = {"scan": "uv", "degeneracy": np.array(degeneracy)}
        return compiled(np.array(values), 1.0, 0.0, **given)

    assert last([1.0, 0.3, 0.01], [2, 5, 3]) == 10
    assert last([1.0, 0.05], [1, 6]) == 7


def test_posterior_rule_on_given_points():
    """The learnability is one minus posterior over prior variance; it is conserved."""
    learnt = np.asarray(jax.jit(rg.posterior_learnability)(p.Phi, p.values, p.ridge))
    printed = [0.99689366242, 0.98688295275, 0.974102369538, 0.950685363906]
    np.testing.assert_allclose(learnt[:4], printed, rtol=0, atol=6e-12)
    R = p.Phi * p.values @ p.Phi.T + p.ridge * np.eye(24)
    total = learnt.sum() + p.ridge * np.trace(np.linalg.inv(R))
    np.testing.assert_allclose(total, 24.0, rtol=1e-13)
    expected = int(np.argmin(learnt >= 0.5))
    given = {"features": p.Phi, "tail": 0.0}
    assert compiled(p.values, 24, p.ridge, "posterior", **given) == expected

    def stop():
        flow = rg.flow(p.values, 24, p.ridge, rule="posterior", features=p.Phi)
        assert flow.rule == "posterior"
        return flow.stop

    assert jax.jit(stop)() == expected
    # a tail is noise at the points
    raised = compiled(p.values, 24, p.ridge, "posterior", **given | {"tail": 0.3})
    diagonal = {"features": p.Phi, "residual": np.full(24, 0.3)}
    assert raised == compiled(p.values, 24, p.ridge, "posterior", **diagonal) < expected


@pytest.mark.parametrize("rule", AVERAGE)
def test_multiplets_stay_whole(rule):
    levels, count = np.array([1.0, 0.3, 0.05, 0.004, 1e-4]), np.array([1, 3, 5, 7, 9])
    modes, edges = np.repeat(levels, count), np.concatenate([[0], np.cumsum(count)])
    n = np.array([0.5, 2.0, 5.0, 9.0, 14.0, 30.0, 200.0, 1e6])
    split_by_roundoff = np.tile(modes * (1 - 1e-13 * np.arange(25)), (8, 1))
    for threshold in (0.2, 0.5, 0.7):
        together = rg.cutoff(levels, n, 0.05, rule, threshold, degeneracy=count)
        apart = rg.cutoff(np.tile(modes, (8, 1)), n, 0.05, rule, threshold)
        np.testing.assert_array_equal(together, apart)
        np.testing.assert_array_equal(rg.cutoff(split_by_roundoff, n, 0.05, rule, threshold), apart)
        assert np.isin(apart, edges).all()
    assert compiled(modes, 24, 0.05, "posterior", features=p.Phi[:, :25]) in edges


def test_sphere_like_degeneracies_beyond_memory():
    levels, count = 10.0 ** -np.arange(8.0), 10.0 ** np.arange(8.0)
    for kept in by_every_rule(levels, 1e4, 0.1, degeneracy=count).values():
        assert kept in np.concatenate([[0], np.cumsum(count)])


def test_batches_and_tracing():
    ns, ridges = np.array([10.0, 50.0, 200.0]), np.array([[0.01], [1.0]])
    values = np.arange(1, 301.0) ** -2
    one_by_one = jax.vmap(lambda n: by_every_rule(values, n, 0.01))(ns)
    last = by_every_rule(values, 200.0, 1.0)
    many = jax.tree.map(np.asarray, by_every_rule(values, ns, ridges))
    for rule in AVERAGE:
        assert many[rule].shape == (2, 3) and many[rule].dtype == int
        np.testing.assert_array_equal(many[rule][0], one_by_one[rule])
        assert many[rule][1, 2] == last[rule]


def test_edges():
    for rule in AVERAGE:
        assert rg.cutoff(np.ones(0), 3.0, 0.1, rule) == 0
    none, both, noiseless = (
        by_every_rule(np.array(values), *given)
        for values, *given in (
            ([0.0, 0.0, 0.0], 3.0, 0.1), ([1.0, 0.5, 0.25], 1e9, 1e-3), ([1.0, 0.5, 0.0], 10.0, 0.0)
        )
    )  # fmt: skip
    for rule in AVERAGE:
        assert none[rule] == 0 and both[rule] == 3
    assert noiseless["bare"] == 2  # every positive mode without noise
    for rule in ("dof", "match"):
        assert by_every_rule(np.array([1.0, 0.5, 0.2]), 10.0, 0.0)[rule] == 3


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
