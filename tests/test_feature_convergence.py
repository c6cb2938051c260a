# SPDX-License-Identifier: Apache-2.0
"""Chains that have converged pass, and others do not."""

import arviz as az
import numpy as np
import xarray as xr
from test_feature import X, Y

from bayesrg import io
from bayesrg.deep_linear import exact
from bayesrg.diagnostics import feature
from bayesrg.networks import DeepLinear


def chains(**variables):
    return io.to_datatree({"posterior": variables}, {})


def test_bad_chains_are_told_from_good_ones():
    rng = np.random.default_rng(7)
    good = rng.standard_normal((4, 500, 3))
    shifted = good + 0.3 * np.arange(4)[:, None, None]
    stuck = np.broadcast_to(np.arange(4.0)[:, None], (4, 500))
    half = good.copy()
    half[..., 0] = 2.0
    assert feature.diagnose(chains(f=good)).passed
    verdict = feature.diagnose(chains(f=good, half=half))
    assert verdict.passed and verdict.table["constant"].sel(variable="half") == 1
    verdict = feature.diagnose(chains(f=good, bad=shifted, stuck=stuck, fixed=np.ones((4, 500))))
    table = verdict.table.set_index(variable="variable")
    status = dict(zip(table["variable"].values, table["status"].values, strict=True))
    assert status == {"f": "passed", "bad": "failed", "stuck": "failed", "fixed": "constant"}
    np.testing.assert_allclose(
        table["r_hat"].sel(variable="bad"), az.rhat(chains(f=shifted))["f"].max(), rtol=1e-12
    )
    assert not verdict.passed and len(verdict.reasons) == 3
    assert any("fixed: constant over all 1 entries" in r for r in verdict.reasons)
    infinite = np.where(good > 2, np.inf, good)
    assert not feature.diagnose(chains(f=good, g=infinite)).passed


def test_diagnose_never_raises():
    empty = feature.diagnose(xr.DataTree())
    assert not empty.passed and empty.table.sizes == {"variable": 0}
    rng = np.random.default_rng(8)
    diverged = io.to_datatree(
        {"posterior": {"f": rng.standard_normal((4, 500))},
         "sample_stats": {"diverging": np.arange(2000).reshape(4, 500) < 3}}, {},
    )  # fmt: skip
    verdict = feature.diagnose(diverged, var_names=["f", "g"])
    assert not verdict.passed
    assert verdict.reasons[0] == "g: no such variable" and "3 divergences" in verdict.reasons[1]
    assert not feature.diagnose(chains(f=rng.standard_normal((1, 2)))).passed


def test_exact_draws_are_not_checked_as_chains(tmp_path):
    """One chain, spread evenly: nothing to compare, and nothing that could fail."""
    post = exact(DeepLinear((3, 4), ridge=0.15), X, Y[:, 0])
    dt = io.label(posterior=post.draws(200, seed=1))
    assert dt["posterior"].attrs["exact"] == 1 and dt["posterior"].sizes["chain"] == 1
    assert dt["posterior"]["Q"].dims == ("chain", "draw", "output", "output_bis")
    verdict = feature.diagnose(dt)
    assert verdict.passed and not verdict.reasons
    assert set(verdict.table["status"].values) == {"exact"}
    assert np.isnan(verdict.table["r_hat"]).all() and np.isnan(verdict.table["ess"]).all()
    io.save(dt, tmp_path / "exact.nc")
    assert feature.diagnose(io.open_run(tmp_path / "exact.nc")).passed
    dt["sample_stats"] = xr.DataTree(xr.Dataset({"diverging": (("chain", "draw"), [[True]])}))
    assert not feature.diagnose(dt).passed
    dt["posterior"].attrs.pop("exact")
    assert not feature.diagnose(dt.drop_nodes("sample_stats")).passed
