# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from jax import Array
from jaxtyping import Float
from oracles import fourier_problem

from bayesrg import io, rg, theory
from bayesrg._fixedpoint import effective_ridge
from bayesrg.spectrum import levels

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


def test_axes_of_a_curve_are_the_same_for_one_size_as_for_many():
    """The variadic axis of one entry has length one; n is its coordinate."""
    v = p.values
    curve = jax.jit(lambda n: theory.learning_curve(v, v, n, 0.05))
    many, one = curve(np.array([10.0, 40.0])), curve(10.0)
    dt = io.label(many=many, one=one)
    for group, curve in (("many", many), ("one", one)):
        assert dt[group]["generalisation"].dims == ("n_train",)
        assert dt[group]["learnability"].dims == ("n_train", "mode")
        np.testing.assert_array_equal(dt[group]["n_train"], np.atleast_1d(curve.n))
        np.testing.assert_array_equal(
            dt[group]["learnability"].sel(n_train=10.0, mode=3),
            np.atleast_2d(np.asarray(curve.learnability))[0, 3],
        )
        assert "n" not in dt[group].variables and "n" not in dt[group].attrs
    assert list(dt["many"]["mode"].values) == list(range(61))


def test_coordinates_of_cumulants_are_mode_indices(tmp_path):
    cumulants = jax.jit(lambda Phi: rg.feature_cumulants(Phi, 2))(p.Phi[:, :6])
    solved = effective_ridge(levels(p.values), 24, 0.05)
    io.save(io.label(features=cumulants, root=solved), tmp_path / "a.nc")
    dt = io.open_run(tmp_path / "a.nc")
    features = dt["features"]
    assert features["fourth"].dims == ("high", "low", "low_bis")
    assert features["high"].values.tolist() == [2, 3, 4, 5]
    assert features["low"].values.tolist() == features["low_bis"].values.tolist() == [0, 1]
    third = (p.Phi[:, 4] ** 2 * p.Phi[:, 1]).mean()
    np.testing.assert_allclose(features["third"].sel(high=4, low=1), third, atol=1e-14, rtol=0)
    np.testing.assert_array_equal(features["quantile"], cumulants.quantile)
    assert features["quantiles"].dims == ("quantile", "mode") and features["heavy"].dtype == bool
    assert features.attrs["orthonormality"] == float(cumulants.orthonormality)
    assert dt["root"].attrs == {
        "value": float(solved.value), "residual": float(solved.residual), "converged": True,
    }  # fmt: skip


def test_names_and_datasets_are_labelled():
    """A tuple of names is a coordinate; a Dataset passes, with its arrays on the host."""
    flow = rg.flow(p.values, 24, p.ridge, features=p.Phi, y=p.y, cutoffs=[0, 5, 24])
    local = xr.Dataset({"ridge": ("point", jnp.arange(3.0))}, attrs={"unit": "variance"})
    dt = io.label(flow=flow, local_ridge=local)
    assert list(dt["flow"]["rule"].values) == list(rg.coarse.RULES)
    assert dt["flow"]["cutoff"].values.tolist() == [0, 5, 24]
    assert isinstance(dt["local_ridge"]["ridge"].data, np.ndarray)
    assert dt["local_ridge"].attrs == {"unit": "variance"}
    with pytest.raises(ValueError, match="group 'flow' is a tuple; give a result of bayesrg"):
        io.label(flow=(1.0, 2.0))


class Inner(eqx.Module):
    ridge: Float[Array, " point"]


class Outer(Inner):
    inner: Inner
    function: Callable
    plain: Array
    points: tuple[str, ...]
    missing: Float[Array, " mode"] | None = None


def test_fields_of_a_parent_count_and_what_is_no_array_is_left_out():
    made = Outer(jnp.ones(2), Inner(jnp.ones(1)), jnp.sin, jnp.ones(3), ("a", "b"))
    group = io.label(a=made)["a"]
    assert set(group.data_vars) == {"ridge", "plain"} and not group.attrs
    assert group["point"].values.tolist() == ["a", "b"] and group["plain"].dims == ("plain_axis",)


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


def test_a_file_that_is_no_result_is_named(tmp_path):
    """Most such files are in test_files; here that of a packed result that is sound."""
    dt = io.to_datatree({"posterior": {"a": np.ones((2, 50, 3)), "b": np.ones((2, 50)) > 0}}, {})
    sums = {name: {"zlib": True, "fletcher32": name == "a"} for name in ("a", "b")}
    dt.to_netcdf(tmp_path / "result.nc", engine="h5netcdf", encoding={"/posterior": sums})
    xr.testing.assert_identical(io.open_run(tmp_path).load(), dt)
    (tmp_path / "result.nc").write_bytes((tmp_path / "result.nc").read_bytes()[:999])
    with pytest.raises(ValueError, match="result.nc cannot be read as a result .*; fetch it again"):
        io.open_run(tmp_path)
