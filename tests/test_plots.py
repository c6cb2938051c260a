# SPDX-License-Identifier: Apache-2.0
import inspect

import numpy as np
import pytest
from arviz import PlotCollection
from oracles import fourier_problem

from bayesrg import io, plots, rg

p = fourier_problem()


@pytest.fixture(scope="module")
def dt():
    flow = rg.flow(p.values, 24, p.ridge, features=p.Phi)
    return io.flow_to_datatree(flow)


@pytest.mark.parametrize("name", plots.__all__)
def test_protocol(name, dt):
    plot = getattr(plots, name)
    parameters = inspect.signature(plot).parameters
    assert list(parameters)[0] == "dt" and {"group", "backend", "pc_kwargs"} <= set(parameters)
    pc = plot(dt, backend="none")
    assert isinstance(pc, PlotCollection)
    for part in ("curve", "xlabel", "ylabel", "title"):
        assert part in pc.viz.children, part
    with pytest.raises(ValueError, match="the tree has no group 'elsewhere', only 'flow'"):
        plot(dt, group="elsewhere", backend="none")


def drawn(pc, label):
    """What the backend "none" was told to draw for one curve."""
    return {str(k): v.item() for k, v in pc.viz["curve"]["curve"].groupby(label)}


def test_flow_shows_every_ridge_and_the_stop(dt):
    pc = plots.plot_flow(dt, backend="none")
    curves = drawn(pc, "ridge")
    assert len(curves) == 4
    np.testing.assert_allclose(curves["universal"]["y"], dt["flow"]["universal"][1:])
    np.testing.assert_allclose(curves["universal"]["x"], np.arange(1, 62))
    assert pc.viz["stop"]["curve"].item()["x"] == dt["flow"].attrs["stop"]


def test_spectrum_separates_what_is_learnable(dt):
    pc = plots.plot_spectrum(dt, backend="none")
    stop = dt["flow"].attrs["stop"]
    learnt, rest = (np.asarray(c["y"]) for c in drawn(pc, "kind").values())
    assert np.isfinite(learnt).sum() == stop and np.isfinite(rest).sum() == 61 - stop
    level = pc.viz["ridge"]["curve"].item()["y"]
    ridge = dt["flow"]["universal"].sel(cutoff=stop)
    np.testing.assert_allclose(level, ridge / 24)


def test_a_png_is_written(dt, tmp_path):
    plots.plot_flow(dt, backend="matplotlib").savefig(tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 10_000
