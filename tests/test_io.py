# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import fourier_problem

from bayesrg import io, rg
from bayesrg.rg import Flow

p = fourier_problem()


def test_arrays_get_names_and_64_bits():
    draws = np.zeros((2, 5, 3, 4), np.float32)
    dt = io.to_datatree(
        {"posterior": {"a": draws, "b": draws[..., 0], "c": draws}, "observed_data": {"y": [1.0]}},
        {"a": ("unit", "mode"), "c": ("unit",), "y": ("point",)}, attrs={"draws": 5},
    )  # fmt: skip
    assert dt["posterior"]["a"].dims == ("chain", "draw", "unit", "mode")
    assert dt["posterior"]["b"].dims == ("chain", "draw", "b_axis")
    assert dt["posterior"]["c"].dims == ("chain", "draw", "unit", "c_axis")
    assert dt["posterior"]["a"].dtype == np.float64
    assert dt["posterior"].attrs["sample_dims"] == ["chain", "draw"] and dt.attrs["draws"] == 5
    with pytest.raises(ValueError, match="'a' has 0 axes but the names"):
        io.to_datatree({"posterior": {"a": np.zeros((1, 1))}}, {"a": ("mode",)})


def test_dims_are_read_off_annotations():
    assert io.dims_of(Flow, "evidence") == ("cutoff", "rule")
    assert io.dims_of(Flow, "cutoff") == ("cutoff",)


def test_a_flow_becomes_two_groups_that_survive_a_file(tmp_path):
    flow = rg.flow(p.values, 24, p.ridge, features=p.Phi, y=p.y, cutoffs=[0, 5, 24])
    groups = io.flow_to_datatree(flow)
    assert groups["flow"]["evidence"].dims == ("cutoff", "rule")
    assert list(groups["flow"]["rule"].values) == list(rg.coarse.RULES)
    np.testing.assert_array_equal(groups["flow"].coords["cutoff"], [0, 5, 24])
    np.testing.assert_allclose(groups["spectrum"]["values"], p.values)
    assert groups["flow"].attrs["stop"] == flow.stop and groups["flow"].attrs["n"] == 24
    dt = io.to_datatree({"posterior": {"a": jnp.zeros((1, 2))}}, {})
    dt.update(groups.children)
    io.save(dt, tmp_path / "deep" / "result.nc")
    again = io.open_run(tmp_path / "deep")
    np.testing.assert_array_equal(again["flow"]["harmonic"], groups["flow"]["harmonic"])
    assert again["flow"].attrs["rule"] == "running"
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["result.nc"]


def test_a_missing_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a run folder that holds result.nc"):
        io.open_run(tmp_path)
