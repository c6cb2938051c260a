# SPDX-License-Identifier: Apache-2.0
"""Simulation-based calibration: true values against posteriors of data that they made."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sampling import two_steps
from scipy.stats import kstest, norm

import bayesrg as brg
from bayesrg.inference import sbc
from bayesrg.models import deep_linear, deep_linear_collapsed
from bayesrg.networks import DeepLinear

rng = np.random.default_rng(0)
X, X_NEW = rng.standard_normal((8, 5)), rng.standard_normal((1, 5))
NET = DeepLinear((3, 5), ridge=0.2)
K, CROSS, PRIOR = X @ X.T / 5, X @ X_NEW[0] / 5, float(X_NEW[0] @ X_NEW[0] / 5)


def normal(X, y=None, *, sd=1.0):
    mean = numpyro.sample("mean", dist.Normal(0.0, sd))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.slow
def test_ranks_of_a_conjugate_model():
    """A right prior, and one ten times too narrow."""
    quantities = {"mean": lambda s, y, key: s["mean"], "noise": lambda s, y, key: y.mean()}
    run = {"key": 0, "simulations": 100, "draws": 19, "warmup": 100, "thin": 3}
    run["sampler"] = two_steps
    found = sbc(normal, np.zeros((3, 1)), {"mean": quantities["mean"]}, **run)["sbc"]
    assert found["rank"].dims == ("simulation", "quantity") and found.attrs["draws"] == 19
    assert found["rank"].min() == 0 and found["rank"].max() == 19
    assert found["p_value"].sel(quantity="mean") > 1e-3
    assert abs(found["autocorrelation"]).max() < 0.2 and found["diverging"].sum() == 0
    assert 0.5 < found["true"].std() < 1.5
    wrong = sbc(
        normal, np.zeros((3, 1)), quantities, truth_hyper={"sd": 1.0}, sd=0.1, **run
    )["sbc"]  # fmt: skip
    assert wrong["p_value"].sel(quantity="mean") < 1e-6
    ends = (wrong["rank"].sel(quantity="mean") % 19 == 0).mean()
    assert ends > 0.5  # true values lie outside the posterior
    assert (wrong["rank"].sel(quantity="noise") == 0).all()  # data alike: no draw is below


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"draws": 1}, "draws must be an integer of at least 2, got 1"),
        ({"thin": 0}, "thin must be a positive integer, got 0"),
        ({"quantities": {}}, "quantities is empty"),
        ({"sdd": 1.0}, "no hyper-argument 'sdd'; did you mean 'sd'"),
        ({"truth_hyper": {"sdd": 1.0}}, "no hyper-argument 'sdd'"),
    ],
)
def test_bad_questions(change, words):
    given = {"key": 0, "quantities": {"mean": lambda s, y, key: s["mean"]}} | change
    with pytest.raises(ValueError, match=words):
        sbc(normal, np.zeros((3, 1)), **given)


def function_of_weights(sites, y, key):
    white = [sites[f"z{layer}"] for layer in (1, 2, 3)]
    return NET.apply(NET.weights(white, X_NEW.shape[1]), X_NEW)[0, 0]


def function_given_order(sites, y, key):
    q = sites["Q"][0, 0]
    gain = q * jnp.linalg.solve(q * K + 0.2 * jnp.eye(8), CROSS)
    return gain @ y + jnp.sqrt(q * (PRIOR - gain @ CROSS)) * jax.random.normal(key)


@pytest.mark.slow
def test_the_collapsed_posterior_of_data_from_weights():
    """Only the order parameter tells a wrong width; the function is nearly blind to it."""
    quantities = {
        "log q": lambda sites, y, key: jnp.log(sites["Q"][0, 0]),
        "f": (function_of_weights, function_given_order),
    }
    eigen = brg.gp.eigenpairs(X, jnp.full(5, 0.2))
    p_values = {}
    for widths in ((3, 5), (30, 50)):
        dt = sbc(
            deep_linear_collapsed.model, X, quantities, key=1, truth=deep_linear.model,
            truth_hyper={"widths": (3, 5), "ridge": 0.2}, widths=widths, ridge=0.2, eigen=eigen,
        )  # fmt: skip
        assert abs(dt["sbc"]["autocorrelation"]).max() < 0.1
        p_values[widths] = dict(zip(("log q", "f"), dt["sbc"]["p_value"].values, strict=True))
    assert min(p_values[3, 5].values()) > 1e-3, p_values
    assert p_values[30, 50]["log q"] < 1e-6 and p_values[30, 50]["f"] > 1e-3, p_values


def probabilities(widths, simulations):
    """Posterior probabilities of less than the truth, by the exact solver: (s, 2)."""
    rng, found = np.random.default_rng(0), []
    net = DeepLinear(widths, ridge=0.2)
    for _ in range(simulations):
        W = [rng.standard_normal(s) / np.sqrt(s[1]) for s in ((3, 5), (5, 3), (1, 5))]
        f = (np.vstack([X, X_NEW]) @ W[0].T @ W[1].T @ W[2].T)[:, 0]
        y = f[:8] + np.sqrt(0.2) * rng.standard_normal(8)
        post = brg.theory.deep_linear.exact(net, X, y)
        log_q = 2 * np.log(np.linalg.norm(W[2] @ W[1]))
        below = np.interp(log_q, post.log_q, np.cumsum(post.weights) - 0.5 * post.weights)
        q = np.exp(post.log_q)
        gain = q[:, None] * np.linalg.solve(q[:, None, None] * K + 0.2 * np.eye(8), CROSS)
        sd = np.sqrt(q * (PRIOR - gain @ CROSS))
        found.append([below, post.weights @ norm.cdf((f[8] - gain @ y) / sd)])
    return np.array(found)


@pytest.mark.slow
def test_the_exact_posterior_of_data_from_weights():
    for widths, simulations in (((3, 5), 300), ((30, 50), 200)):
        p = [kstest(u, "uniform").pvalue for u in probabilities(widths, simulations).T]
        assert p[1] > 1e-3, (widths, p)
        assert p[0] > 1e-3 if widths == (3, 5) else p[0] < 1e-6, (widths, p)
