# SPDX-License-Identifier: Apache-2.0
"""Measures of transport against NumPy, judgements against known laws, and a small posterior."""

from functools import partial

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import NUTS
from numpyro.infer.util import log_density
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_softmax
from scipy.stats import norm, spearmanr
from sklearn.datasets import make_moons

import bayesrg as brg
from bayesrg import io
from bayesrg.diagnostics import transport
from bayesrg.inference import output_law
from bayesrg.models import residual_action

rng = np.random.default_rng(0)
K, H, D, C, N = 3, 4, 2, 2, 9
NET = brg.networks.Residual(H, K, outputs=C, dt=0.7)
X = rng.normal(size=(N, D))
LABELS = np.arange(N) % 3 - 1
SHAPES = {"A": (K, H, D), "a": (K, H), "B": (K, D, H), "b": (K, D), "weight": (C, D), "bias": (C,)}
WEIGHTS = {name: 0.5 * rng.normal(size=(2, 5, *shape)) for name, shape in SHAPES.items()}
WEIGHTS["B"][0, 0] = WEIGHTS["b"][0, 0] = 0.0  # a draw that moves no point


def tree(weights=None, X=X, **groups):
    weights = WEIGHTS if weights is None else weights
    prior = {name: value[:1, 2:4] for name, value in weights.items()}
    return io.to_datatree(
        {"posterior": weights, "prior": prior, "constant_data": {"X": X}, **groups},
        {"X": ("point", "feature")},
    )


@pytest.fixture(scope="module")
def measured():
    return transport.measure(tree(), NET, trajectory=True, classes=LABELS, draws=2)


def states_by_hand(chain, draw, without=()):
    A, a, B, b = (WEIGHTS[n][chain, draw] * (n not in without) for n in ("A", "a", "B", "b"))
    states = [X]
    for k in range(K):
        x = states[-1]
        states.append(x + 0.7 * (np.tanh(x @ A[k].T + a[k]) @ B[k].T + b[k]))
    return np.stack(states)


def by_hand(x):
    moves, ends = np.diff(x, axis=0), x[-1] - x[0]
    A = (moves**2).sum(-1).mean(-1)
    distance = (ends**2).sum(-1).mean()
    values, vectors = np.linalg.eigh(x[0] @ x[0].T / D)
    u = vectors[:, ::-1][:, :2]
    classes = [LABELS == c for c in (-1, 0, 1)]
    by_class = np.stack([(moves[:, m] ** 2).sum(-1).mean(-1) for m in classes], -1)
    per = np.array([(ends[m] ** 2).sum(-1).mean() for m in classes])
    return {
        "layer_action": A,
        "transport_cost": A.sum(),
        "kinetic_energy": K * A.sum(),
        "displacement": distance,
        "straightness": distance / (K * A.sum()),
        "kernel_values": np.stack([np.linalg.eigvalsh(s @ s.T / D)[::-1][:2] for s in x]),
        "layer_action_by_mode": (np.einsum("na,knd->kad", u, moves) ** 2).sum(-1) / N,
        "layer_action_by_class": by_class,
        "transport_cost_by_class": by_class.sum(0),
        "displacement_by_class": per,
        "straightness_by_class": per / (K * by_class.sum(0)),
        "trajectory": x,
    }


def test_every_quantity_of_every_draw(measured):
    for group, draws in (("transport", np.ndindex(2, 5)), ("transport_prior", np.ndindex(1, 2))):
        found = measured[group].to_dataset()
        for chain, draw in draws:
            at = (chain, draw) if group == "transport" else (0, draw + 2)
            with np.errstate(invalid="ignore"):
                expected = by_hand(states_by_hand(*at))
            expected["head_norm"] = np.linalg.norm(WEIGHTS["weight"][at])
            assert set(expected) == set(found.data_vars)
            for name, value in expected.items():
                one = found[name][chain, draw]
                np.testing.assert_allclose(one, value, rtol=1e-12, atol=1e-13, err_msg=name)
        assert found["layer"].values.tolist() == [1, 2, 3]
        assert found["state"].values.tolist() == [0, 1, 2, 3]
        assert found["class"].values.tolist() == [-1, 0, 1]
        assert found["label"].dims == ("point",) and (found["label"] == LABELS).all()
        assert found["trajectory"].dims == ("chain", "draw", "state", "point", "feature")
    still = measured["transport"].isel(chain=0, draw=0)
    assert still["transport_cost"] == 0 and np.isnan(still["straightness"])
    assert (measured["transport"]["straightness"][1:] <= 1).all()


def test_distances_of_thinned_draws(measured):
    found = measured["transport_distance"].to_dataset()
    assert found["draw"].values.tolist() == [0, 4] and found.attrs["points"] == N
    for chain, draw in ((0, 4), (1, 0), (1, 4)):
        x = states_by_hand(chain, draw)
        squares = ((x[0][:, None] - x[-1]) ** 2).sum(-1)
        least = squares[linear_sum_assignment(squares)].mean()
        one = found.sel(chain=chain, draw=draw)
        np.testing.assert_allclose(one["w2"] ** 2, least, rtol=1e-12)
        np.testing.assert_allclose(one["displacement"], np.diag(squares).mean(), rtol=1e-12)
        np.testing.assert_allclose(one["efficiency"], least / np.diag(squares).mean(), rtol=1e-12)
        E = measured["transport"]["kinetic_energy"].sel(chain=chain, draw=draw)
        assert one["w2"] ** 2 <= one["displacement"] * (1 + 1e-12) <= E * (1 + 1e-12)
    still = found.sel(chain=0, draw=0)
    assert still["w2"] == 0 and np.isnan(still["efficiency"])


def test_modes_of_all_directions_leave_nothing_out():
    """With fewer points than features the modes of the first state span every increment."""
    wide = transport.paths_of(rng.normal(size=(3, 4, 6)))
    found = transport.measure(wide, draws=0)["transport"]
    assert found.sizes["mode"] == 4
    np.testing.assert_allclose(
        found["layer_action_by_mode"].sum("mode"), found["layer_action"], rtol=1e-12
    )


@pytest.mark.slow
def test_32_bit_paths_are_measured_in_32_bits(measured):
    paths = transport.paths_of(states_by_hand(1, 3))
    half = jax.tree.map(lambda v: np.asarray(v, np.float32), paths)
    found = transport.measure(half, draws=0)["transport"]
    assert found["transport_cost"].dtype == np.float32
    for name, value in found.data_vars.items():
        one = measured["transport"][name].sel(chain=1, draw=3)
        np.testing.assert_allclose(value[0, 0], one, rtol=1e-5, atol=1e-5, err_msg=name)


def test_weights_that_a_model_leaves_out_are_zero_and_nothing_is_compiled_again(compilations):
    left = ("a", "b", "bias")
    few = {name: value for name, value in WEIGHTS.items() if name not in left}
    options = dict(trajectory=True, classes=LABELS, draws=0)
    transport.measure(tree(), NET, **options)
    with compilations() as count:
        found = transport.measure(tree(few), NET, **options)["transport"]
    assert count() == 0
    x = states_by_hand(1, 2, without=left)
    np.testing.assert_allclose(found["trajectory"][1, 2], x, rtol=1e-12)


def test_paths_of_a_network_trained_elsewhere(measured, tmp_path):
    x = states_by_hand(1, 3)
    np.savez(tmp_path / "states.npz", *x)
    with np.load(tmp_path / "states.npz") as opened:
        ways = [list(x), x, tmp_path / "states.npz", opened, {"first": x[0], "b": x[1], "a": x[2]}]
        found = [transport.paths_of(way) for way in ways]
    for paths in found[:-1]:
        np.testing.assert_array_equal(paths.states, x)
        np.testing.assert_array_equal(paths.increments, np.diff(x, axis=0))
    np.testing.assert_array_equal(found[-1].states, x[:3])  # in their order, not by name
    out = transport.measure(found[0], classes=LABELS, draws=1, trajectory=True)
    for name, value in out["transport"].data_vars.items():
        one = measured["transport"][name].sel(chain=1, draw=3)
        np.testing.assert_allclose(value[0, 0], one, rtol=1e-10, atol=1e-13, err_msg=name)
    assert set(out.children) == {"transport", "transport_distance"}


WIDE = [np.ones((4, 2)), np.ones((4, 3))]


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (WIDE, r"states\[1\] has shape \(4, 3\) and states\[0\] \(4, 2\).*equal width"),
        ([np.ones((4, 2)), np.ones((5, 2))], r"states\[1\] has shape \(5, 2\)"),
        ([np.ones((4, 2))], "states has 1 arrays; give the state before"),
        ([np.ones((4, 2)), np.full((4, 2), np.nan)], r"states\[1\] contains non-finite"),
        ([np.ones((4, 2)), np.ones((4, 2, 1))], r"states\[1\] must be an array of 2"),
        ({"in": np.ones((4, 2)), "out": np.ones((4, 1))}, r"states\['out'\] has shape \(4, 1\)"),
        (np.ones((4, 2)), "states must be a list of arrays"),
        (np.ones((2, 0, 3)), r"states\[0\] has shape \(0, 3\); give at least one point"),
    ],
)
def test_states_that_are_no_paths(states, message):
    with pytest.raises(ValueError, match=message):
        transport.paths_of(states)


def without(*names):
    return {name: value for name, value in WEIGHTS.items() if name not in names}


OTHER = brg.networks.Residual(H + 1, K, outputs=C)


def with_steps(steps):
    """Return paths whose increments were replaced after they were made."""
    paths = brg.dynamics.Paths(jnp.ones((3, N, D)), jnp.ones((2, N, D)))
    return eqx.tree_at(lambda p: p.increments, paths, steps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: transport.measure(tree(), OTHER),
            r"site 'A' has shape \(3, 4, 2\) per draw.*5, 2",
        ),
        (lambda: transport.measure(tree(), NET, X=X[:, :1]), r"net has \(2, 1\) for X of 1 col"),
        (lambda: transport.measure(tree(without("A", "weight")), NET), "no site 'weight', 'A'"),
        (lambda: transport.measure(tree()), "net must be a networks.Residual, that of the fit"),
        (lambda: transport.measure(xr.DataTree(), NET), "no group"),
        (lambda: transport.measure(tree().drop_nodes("constant_data"), NET), "give X="),
        (
            lambda: transport.measure(tree(), NET, trajectory=True, max_bytes=6911),
            r"\(4, 9, 2\) of 12 draws take 6,912 bytes and max_bytes is 6,911",
        ),
        (lambda: transport.measure(tree(), NET, max_points=8), "give a key"),
        (lambda: transport.measure(tree(), NET, classes=LABELS[:8]), "classes has shape"),
        (lambda: transport.measure(tree(), NET, classes=LABELS + 0.5), "contains -0.5; give whole"),
        (lambda: transport.measure(tree(), NET, modes=0), "modes must be a positive integer"),
        (
            lambda: transport.measure(with_steps(jnp.ones((2, N - 1, D)))),
            r"states of shape \(3, 9, 2\) and increments of shape \(2, 8, 2\); give",
        ),
    ],
)
def test_what_cannot_be_measured(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_runs_on_the_host_cannot_be_traced():
    with pytest.raises(ValueError, match="paths_of runs on the host and cannot be traced"):
        jax.jit(transport.paths_of)([X, X])
    for call in (
        lambda x: transport.measure(tree(), NET, X=x),
        lambda x: transport.measure(brg.dynamics.Paths(x[None], x[None])),
    ):
        with pytest.raises(ValueError, match="transport.measure runs on the host and cannot be"):
            jax.jit(call)(X)


def made_up(mean, seed, draws=400, chains=2, shape=(1.0, 1.0)):
    """Return a measured tree of independent draws."""
    made = np.random.default_rng(seed)
    A = mean * np.asarray(shape) * made.gamma(40.0, 1 / 40.0, (chains, draws, len(shape)))
    arrays = {"layer_action": A, "transport_cost": A.sum(-1)}
    dims = {"layer_action": ("chain", "draw", "layer"), "transport_cost": ("chain", "draw")}
    dataset = xr.Dataset({n: (dims[n], v) for n, v in arrays.items()})
    dataset = dataset.assign_coords(layer=np.arange(len(shape)) + 1)
    return xr.DataTree.from_dict({"transport": dataset})


def test_the_order_of_means_has_the_probability_of_independent_normals():
    runs = {5: made_up(1.0, 1), 0.0: made_up(1.006, 2)}
    found = transport.judge(runs)
    assert found["lam"].values.tolist() == [0.0, 5.0]
    T, error = found["transport_cost"].values, found["transport_cost_mcse"].values
    rough = np.sqrt(2 / 40 / 800)  # of the mean of independent draws, each a sum of two
    np.testing.assert_allclose(error, rough, rtol=0.25)
    z = (T[0] - T[1]) / np.hypot(*error)
    np.testing.assert_allclose(found["decreasing"], norm.cdf(z), rtol=1e-10)
    spread = norm.cdf(z + np.random.default_rng(5).normal(size=100_000)).std()
    np.testing.assert_allclose(found["decreasing_mcse"], spread, rtol=0.1)

    one = made_up(1.0, 3)
    same = transport.judge({0: one, 1: one, 2: one})
    np.testing.assert_allclose(same["decreasing"], 1 / 6, atol=1e-4)
    apart = {0: made_up(3.0, 4), 1: made_up(2.0, 5), 5: made_up(1.0, 6)}
    assert transport.judge(apart)["decreasing"] > 1 - 1e-6
    assert transport.judge({5 - lam: dt for lam, dt in apart.items()})["decreasing"] < 1e-6
    alone = transport.judge({2.0: one})
    assert np.isnan(alone["decreasing"]) and np.isnan(alone["decreasing_mcse"])


def test_layers_that_act_equally_and_layers_that_grow():
    runs = {lam: made_up(1.0, lam, shape=shape) for lam, shape in enumerate([(1, 1), (1, 5)])}
    found = transport.judge(runs, tolerance=0.2)
    for lam, dt in runs.items():
        A = dt["transport"]["layer_action"].to_numpy()
        part = np.abs(A / A.mean(-1, keepdims=True) - 1).max(-1) <= 0.2
        np.testing.assert_allclose(found["constant"][lam], part.mean(), rtol=1e-12)
        np.testing.assert_allclose(found["growing"][lam], (A[..., 1] > A[..., 0]).mean())
    p = found["constant"][0].item()
    assert 0.5 < p < 0.99
    np.testing.assert_allclose(found["constant_mcse"][0], np.sqrt(p * (1 - p) / 800), rtol=0.25)
    # all draws agree, which leaves an error of about one over their number
    assert found["constant"][1] == 0 and found["growing"][1] == 1
    assert 1e-4 < found["constant_mcse"][1] < 2e-3
    assert transport.judge(runs, tolerance=0.6)["constant"][1] > 0


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "runs is empty"),
        ({-1.0: made_up(1.0, 0)}, "a strength in runs must be a number of at least 0"),
        ({1.0: xr.DataTree()}, "measure it first"),
        ({1.0: made_up(1.0, 0, draws=3)}, "3 draws per chain"),
        ({2.0: made_up(np.inf, 0)}, "runs at lam 2: layer_action has entries that are not finite"),
    ],
)
def test_runs_that_cannot_be_judged(runs, message):
    with pytest.raises(ValueError, match=message):
        transport.judge(runs)


def test_accuracy_against_cost_is_spearmans_with_an_interval():
    T = rng.normal(size=40)
    a = np.round(-T + 0.7 * rng.normal(size=40), 1)  # with ties
    runs = {"accuracy": a, "transport_cost": np.exp(T)}
    found = transport.accuracy_against_cost(runs, 0)
    exact = spearmanr(a, T).statistic
    np.testing.assert_allclose(found["spearman"], exact, rtol=1e-12)
    # Fisher's z has the variance 1.06 / (n - 3)
    low, high = np.tanh(np.arctanh(exact) + norm.ppf([0.055, 0.945]) * np.sqrt(1.06 / 37))
    np.testing.assert_allclose([found["low"], found["high"]], [low, high], atol=0.07)
    assert "accuracy falls with transport cost" in found.attrs["statement"]
    again = transport.accuracy_against_cost(found, 0)
    assert again.identical(found)
    few = transport.accuracy_against_cost({n: v[:19] for n, v in runs.items()}, 0)
    assert "nothing follows from fewer than 20 runs" in few.attrs["statement"]
    assert few["low"] < few["spearman"] < few["high"]
    unrelated = {"accuracy": T, "transport_cost": rng.normal(size=40)}
    text = transport.accuracy_against_cost(unrelated, 0).attrs["statement"]
    assert "do not show that accuracy and transport cost are related" in text
    equal = transport.accuracy_against_cost(runs | {"accuracy": np.ones(40)}, 0)
    assert np.isnan([equal["spearman"], equal["low"], equal["high"]]).all()
    assert "equal in all runs" in equal.attrs["statement"]
    for bad, message in [
        ({"accuracy": a}, "runs has no transport_cost"),
        ({"accuracy": a[:2], "transport_cost": T[:2]}, "three runs or more"),
        ({"accuracy": a[:5], "transport_cost": T}, "5 values of accuracy and 40"),
    ]:
        with pytest.raises(ValueError, match=message):
            transport.accuracy_against_cost(bad, 0)
    three = {"accuracy": a[:3], "transport_cost": T[:3]}
    seed = next(
        s for s in range(99) if np.ptp(np.random.default_rng([0, s]).integers(3, size=3)) == 0
    )
    with pytest.raises(ValueError, match="equal in all 1 resamples; raise resamples"):
        transport.accuracy_against_cost(three, seed, resamples=1)


TEN = (0, 1, 0, 1, 1, 0, 0, 1, 1)
HEAD = np.array([[4.0, 0.0]])
KINDS = {
    "bernoulli": dict(lam=0.7, kind="transport", net=residual_action.network(D, H, K)),
    "categorical": dict(lam=0.3, kind="kinetic", net=NET, scales={"b": 0.5, "B": 2.0}),
    "normal": dict(lam=0.0, net=NET, scales={"A": 3.0, "weight": 0.2}, noise=0.4),
}
TARGETS = {
    "bernoulli": np.array(TEN),
    "categorical": np.array(TEN),
    "normal": rng.normal(size=(N, C)),
}


def density(*args):
    """Return the log density, and the values of the deterministic sites."""
    value, trace = log_density(*args)
    return value, {n: s["value"] for n, s in trace.items() if s["type"] == "deterministic"}


@jax.jit
def densities(weights):
    return {
        name: density(
            residual_action.model, (X, TARGETS[name]), hyper | {"likelihood": name}, weights
        )
        for name, hyper in KINDS.items()
    }


def test_the_density_is_that_of_the_docstring():
    at = {name: value[1, 4] for name, value in WEIGHTS.items()}
    found = densities(at)
    scales = {"A": 1.0, "a": 1.0, "B": 0.5, "b": 1.0, "weight": D**-0.5, "bias": 1.0}

    def prior(names, **other):
        sd = scales | other
        return sum(norm.logpdf(at[name], 0.0, sd[name]).sum() for name in names)

    def move(x, k, step, b):
        return x + step * (np.tanh(x @ at["A"][k].T + at["a"][k]) @ at["B"][k].T + b * at["b"][k])

    def paths(step, b):
        states = [X]
        for k in range(K):
            states.append(move(states[-1], k, step, b))
        return np.stack(states)

    def action(x):
        return (np.diff(x, axis=0) ** 2).sum((0, 2)).mean()

    y = np.array(TEN)
    x = paths(1.0, 0.0)
    f = x[-1] @ HEAD[0]
    likely = np.where(y, np.log(expit(f)), np.log(expit(-f))).sum()
    expected = {"bernoulli": prior(["A", "a", "B"]) - 0.7 * action(x) + likely}
    x = paths(0.7, 1.0)
    f = x[-1] @ at["weight"].T + at["bias"]
    likely = log_softmax(f, axis=1)[np.arange(N), y].sum()
    expected["categorical"] = prior(SHAPES, b=0.5, B=1.0) - 0.3 * K * action(x) + likely
    x = paths(0.7, 0.0)
    f = x[-1] @ at["weight"].T + at["bias"]
    likely = norm.logpdf(TARGETS["normal"], f, 0.4).sum()
    expected["normal"] = prior(set(SHAPES) - {"b"}, A=3.0, weight=0.2 * D**-0.5) + likely
    for name, value in expected.items():
        one, sites = found[name]
        np.testing.assert_allclose(one, value, rtol=1e-12, err_msg=name)
        A = sites["layer_action"]
        np.testing.assert_allclose(sites["transport_cost"], A.sum(), rtol=1e-12)
        np.testing.assert_allclose(sites["kinetic_energy"], K * A.sum(), rtol=1e-12)


def test_signs_are_labels_of_two_classes():
    _, y = output_law(np.zeros((N, 1)), 2.0 * np.array(TEN) - 1)
    assert y.tolist() == list(TEN)


ONE, THREE = np.zeros((4, 1)), np.zeros((4, 3))
CATEGORICAL = {"likelihood": "categorical"}


@pytest.mark.parametrize(
    ("outputs", "y", "given", "message"),
    [
        (THREE, [0, 1, 2, 3], CATEGORICAL, "contains 3, which is no class.*with outputs=4"),
        (THREE, [-1, 1, 1, -1], CATEGORICAL, "contains -1.*whole numbers from 0 to 2$"),
        (THREE, [0, 1, 1.5, 2], CATEGORICAL, "contains 1.5.*whole numbers from 0 to 2$"),
        (THREE, [1, 1, 1, 1], CATEGORICAL, "one class only, 1 at all 4 points"),
        (ONE, [-1, -1, -1, -1], {}, "one class only, -1 at all 4 points"),
        (ONE, [0, 1, 2, 1], {}, "contains 2, which is no class.*0 and 1, or -1 and 1"),
        (ONE, [-1, 0, 1, 1], {}, "contains -1, which is no class.*0 and 1, or -1 and 1"),
        (ONE, np.eye(4)[:, :2], {}, r"shape \(4, 2\); give one label per point, \(4,\)"),
        (ONE, [0, 1], {}, "give one target per row"),
        (THREE, None, {}, "'bernoulli' takes one output and the network has 3"),
        (ONE, None, CATEGORICAL, "takes one output per class and the network has one"),
        (THREE, np.ones((4, 2)), {"likelihood": "normal"}, r"\(4, 2\) for 3 outputs"),
        (ONE, None, {"likelihood": "normal", "noise": 0.0}, "noise must be positive"),
        (ONE, None, {"likelihood": "Bernouli"}, "likelihood must be one of 'bernoulli'"),
    ],
)
def test_observations_that_do_not_fit_the_outputs(outputs, y, given, message):
    with pytest.raises(ValueError, match=message):
        output_law(outputs, None if y is None else np.asarray(y, float), **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"likelihood": "categorical", "net": NET}, "contains 2, which is no class"),
        ({"lam": -1.0}, "lam"),
        ({"kind": "kinetik"}, "kind must be one of 'kinetic', 'transport'"),
        ({"scales": {"C": 1.0}}, "scales has 'C', which is no weight of net; it has A, B"),
        ({"scales": {"A": -1.0}}, r"scales\['A'\] must be a number of at least 0"),
    ],
)
def test_a_fit_of_wrong_arguments_stops_before_sampling(change, message):
    with pytest.raises(ValueError, match=message):
        y = np.array(TEN) + (1.0 if "net" in change else 0.0)
        brg.fit(residual_action.model, (X, y), key=0, progress=False, **change)


@pytest.mark.slow
def test_chains_start_at_draws_of_a_normal_fit():
    """The posterior of one slope is normal, so the fit is exact up to its own noise."""

    def line(X, y=None):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        numpyro.sample("spread", dist.LogNormal(0.3, 0.2))
        with numpyro.plate("point", len(X)):
            numpyro.sample("y", dist.Normal(slope * X[:, 0], 0.5), obs=y)

    y = 0.7 * X[:, 0] + 0.5 * rng.normal(size=N)
    start = brg.inference.normal_start(line, (X, y), key=0)

    def site(name, law):
        def one(key):
            shape = {"rng_key": key, "sample_shape": ()}
            return start({"name": name, "type": "sample", "fn": law, "value": None,
                          "is_observed": False, "kwargs": shape})  # fmt: skip

        return np.asarray(jax.vmap(one)(jax.random.split(jax.random.key(1), 4000)))

    drawn = site("slope", dist.Normal(0.0, 1.0))
    precision = 1.0 + (X[:, 0] ** 2).sum() / 0.25
    sd = precision**-0.5
    assert abs(drawn.mean() - (X[:, 0] @ y) / 0.25 / precision) < 0.25 * sd
    assert abs(drawn.std() / sd - 1) < 0.2
    spread = np.log(site("spread", dist.LogNormal(0.0, 1.0)))
    assert abs(spread.mean() - 0.3) < 0.05 and abs(spread.std() / 0.2 - 1) < 0.2
    with pytest.raises(ValueError, match="diverged within 3 steps; lower learning_rate, 1e"):
        brg.inference.normal_start(line, (X, y), key=0, steps=3, learning_rate=1e200)

    def counts(X, y=None):
        numpyro.sample("n", dist.Poisson(3.0))

    with pytest.raises(ValueError, match="site 'n' of the model is discrete"):
        brg.inference.normal_start(counts, (X, y), key=0)


@pytest.mark.slow
def test_action_shortens_the_paths_of_a_small_network_and_the_work_of_the_sampler():
    X, y = make_moons(60, noise=0.15, random_state=0)
    data, sampler, runs, work = (X, y.astype(float)), partial(NUTS, max_tree_depth=8), {}, {}
    size = {"draws": 300, "warmup": 200, "chains": 4, "progress": False, "sampler": sampler}
    for lam in (0.0, 5.0):
        strength = jnp.asarray(lam)  # traced: one program for all
        dt = brg.fit(residual_action.model, data, key=1, lam=strength, **size)
        runs[lam] = transport.measure(dt, residual_action.network(2), draws=20)
        draws = runs[lam]["transport"].to_dataset()
        for name in ("layer_action", "transport_cost", "kinetic_energy"):
            np.testing.assert_allclose(draws[name], dt["posterior"][name], rtol=1e-12)
        assert float(az.rhat(draws[["transport_cost"]])["transport_cost"]) < 1.02
        ess = float(az.ess(draws[["transport_cost"]])["transport_cost"])
        work[lam] = float(dt["sample_stats"]["n_steps"].sum()) / ess
        far = runs[lam]["transport_distance"].to_dataset()
        both = draws.sel(draw=far["draw"])
        assert (far["w2"] ** 2 <= far["displacement"] * (1 + 1e-12)).all()
        assert (far["displacement"] <= both["kinetic_energy"] * (1 + 1e-12)).all()
        print(lam, work[lam], ess, draws["straightness"].mean().item())
    found = transport.judge(runs)
    print(found)
    T, error = found["transport_cost"].values, found["transport_cost_mcse"].values
    assert (T[:-1] - T[1:] > 4 * np.hypot(error[:-1], error[1:])).all()
    assert found["decreasing"] > 0.999
    for i, expected in ((0, 4.67), (1, 1.59)):  # of one chain of 300 draws
        assert abs(T[i] - expected) < 0.15
    assert work[5.0] < 0.95 * work[0.0]  # two thirds of it, in 8000 draws
