# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from oracles import fourier_problem, log_normal
from scipy.optimize import brentq

from bayesrg import rg
from bayesrg.rg.coarse import RULES

p = fourier_problem()


def dressed(values, n, ridge):
    """Root of the fixed-point equation over all ``values``, by bisection."""

    def excess(s):
        return s - ridge - (values * s / (s + n * values)).sum()

    return brentq(excess, ridge, ridge + values.sum() + 1e-12, xtol=1e-300, rtol=1e-14)


TABLE = {
    0: (1.678674262469, 1.671089912702, 0.227793535999, 0.158180868017, -32.274137874160),
    5: (0.215063151358, 0.215222361646, 0.139516832212, 0.118466236268, -15.299977914128),
    13: (0.107780464285, 0.107715388368, 0.093495188084, 0.087687601809, -13.073220128366),
    24: (0.074550858878, 0.074548952696, 0.071437253721, 0.069103757589, -14.030818276030),
    40: (0.058430299462, 0.058455110077, 0.057607749864, 0.057162605131, -14.329486684949),
}


@pytest.mark.slow
def test_reference_table():
    flow = rg.flow(p.values, 24, p.ridge, features=p.Phi, y=p.y, cutoffs=list(TABLE))
    evidence = np.asarray(flow.evidence)
    ours = [flow.universal, flow.arithmetic, flow.harmonic, flow.dressed, evidence[:, 3]]
    assert flow.rules[3] == "universal"
    np.testing.assert_allclose(np.stack(ours, 1), list(TABLE.values()), rtol=0, atol=1e-12)
    np.testing.assert_allclose(evidence[:, 0], -14.377037219646, rtol=0, atol=1e-12)
    assert flow.stop == rg.cutoff(p.values, 24, p.ridge)


@pytest.mark.parametrize(
    "kind, k",
    [("dense", 61), ("none", 8)]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (("none", 61), ("diagonal", 61), ("dense", 8))
    ],
)
def test_exact_ridges_by_rank_one_shell_steps(kind, k):
    """Eliminate one mode after another from the ultraviolet, each a rank-one update."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((24, 24)) / 10
    residual = {"none": None, "diagonal": rng.uniform(0.01, 0.1, 24), "dense": A @ A.T}[kind]
    R = np.zeros((24, 24)) if residual is None else residual
    noise = p.ridge * np.eye(24) + (np.diag(R) if np.ndim(R) == 1 else R)
    inverse, log_det = np.linalg.inv(noise), np.linalg.slogdet(noise)[1]
    harmonic, arithmetic = [24 / np.trace(inverse)], [np.trace(noise) / 24]
    for j in reversed(range(k)):
        u = inverse @ p.Phi[:, j]
        d = 1 + p.values[j] * p.Phi[:, j] @ u
        inverse, log_det = inverse - p.values[j] * np.outer(u, u) / d, log_det + np.log(d)
        noise = noise + p.values[j] * np.outer(p.Phi[:, j], p.Phi[:, j])
        harmonic.append(24 / np.trace(inverse))
        arithmetic.append(np.trace(noise) / 24)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(noise)[1], rtol=1e-10)
    flow = rg.flow(p.values[:k], 24, p.ridge, features=p.Phi[:, :k], residual=residual)
    np.testing.assert_array_equal(flow.cutoff, np.arange(k + 1))
    np.testing.assert_allclose(flow.harmonic, harmonic[::-1], rtol=1e-10)
    np.testing.assert_allclose(flow.arithmetic, arithmetic[::-1], rtol=1e-12)


def test_dressed_ridge_of_a_long_spectrum():
    values = np.arange(1, 1001.0) ** -2
    cutoffs = [0, 1, 20, 100, 500, 999, 1000]
    flow = rg.flow(values, 50, 0.0001, cutoffs=cutoffs)
    alone = [dressed(values[c:], 50, 0.0001) for c in cutoffs]
    np.testing.assert_allclose(flow.dressed, alone, rtol=1e-12)


def test_evidence_under_each_rule():
    rng = np.random.default_rng(1)
    residual, cutoffs = rng.uniform(0.01, 0.1, 24), [0, 3, 20, 24, 61]
    flow = rg.flow(
        p.values, 24, p.ridge, features=p.Phi, residual=residual, y=p.y, cutoffs=cutoffs, tail=0.03
    )
    assert flow.rules == RULES
    for i, c in enumerate(cutoffs):
        high = p.values[c:]
        local = p.ridge + p.Phi[:, c:] ** 2 @ high + residual
        noises = [local, dressed(high, 24, p.ridge + 0.03), p.ridge + high.sum() + 0.03, p.ridge]
        low = p.Phi[:, :c] * p.values[:c] @ p.Phi[:, :c].T
        expected = [
            log_normal(p.y, np.zeros(24), low + np.diag(np.broadcast_to(s, 24))) for s in noises
        ]
        full = p.Phi * p.values @ p.Phi.T + np.diag(p.ridge + residual)
        expected = [log_normal(p.y, np.zeros(24), full), *expected]
        np.testing.assert_allclose(np.asarray(flow.evidence)[i], expected, rtol=1e-10)
    ends = [np.asarray(v)[-1] for v in (flow.universal, flow.dressed)]
    np.testing.assert_allclose(ends, p.ridge + 0.03)


def test_cumulative_quantities_of_levels():
    levels, count = np.array([1.0, 0.3, 0.1]), np.array([1, 3, 5])
    flow = rg.flow(levels, 10, 0.05, degeneracy=count)
    np.testing.assert_array_equal(flow.cutoff, [0, 1, 4, 9])
    np.testing.assert_allclose(flow.universal, 0.05 + np.array([2.4, 1.4, 0.5, 0.0]))
    np.testing.assert_allclose(flow.tail, [2.4, 1.4, 0.5, 0.0])
    modes = rg.flow(np.repeat(levels, count), 10, 0.05, cutoffs=[0, 1, 4, 9])
    np.testing.assert_allclose(flow.dressed, modes.dressed, rtol=1e-13)
    np.testing.assert_allclose(np.asarray(flow.rescaled)[1:], [1.45, 0.55 / 1.2, 0.05 / 0.9])
    assert flow.stop == modes.stop


def test_a_flow_may_be_traced():
    """All but where it is evaluated."""

    def at(values, ridge):
        return rg.flow(values, 24, ridge, features=p.Phi, y=p.y, cutoffs=list(TABLE))

    found, own = jax.jit(at)(p.values, p.ridge), at(p.values, p.ridge)
    assert int(found.stop) == own.stop and type(own.stop) is int
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    with pytest.raises(ValueError, match=r"rg.flow counts modes: it runs on the host"):
        jax.jit(lambda cutoffs: rg.flow(p.values, 24, 0.1, cutoffs=cutoffs).tail)(
            np.asarray([1, 2])
        )


def test_dressed_never_exceeds_universal_and_both_end_at_the_ridge():
    flow = rg.flow(p.values, 24, p.ridge)
    assert (np.asarray(flow.dressed) <= np.asarray(flow.universal) * (1 + 1e-14)).all()
    ends = [np.asarray(v)[-1] for v in (flow.universal, flow.dressed)]
    np.testing.assert_allclose(ends, p.ridge)
    assert flow.evidence is None and flow.harmonic is None


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rg.flow(p.values, 24, 0.05, y=p.y), "y and residual need features"),
        (lambda: rg.flow(p.values, 20, 0.05, features=p.Phi), "features has 24 rows but n is 20"),
        (lambda: rg.flow(p.values, 24, 0.05, cutoffs=[3, 2]), "cutoffs must be rising integers"),
        (
            lambda: rg.flow(p.values, 24, 0.05, features=p.Phi, y=p.y[:5]),
            r"y has shape \(5,\); give \(24,\), one target per row of features",
        ),
        (
            lambda: rg.flow(p.values, 24, 0.05, features=p.Phi, degeneracy=np.full(61, 2)),
            "leave degeneracy out",
        ),
        (lambda: rg.flow(p.values, 24, 0.0, features=p.Phi), "noise covariance is singular"),
        (lambda: rg.flow(p.values, 24, 0.05, rule="bare2"), "rule must be one of"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
