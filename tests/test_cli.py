# SPDX-License-Identifier: Apache-2.0
import re
import sys

import pytest
from typer.testing import CliRunner

import bayesrg as brg
from bayesrg import cli

MODEL = '''
"""A mean."""
import numpyro, numpyro.distributions as dist
import bayesrg as brg

def model(X, y=None, *, width=1.0):
    m = numpyro.sample("m", dist.Normal(0, width))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)
'''


def main(monkeypatch, capsys, *arguments):
    """Run the command line as a shell does: exit status, output, errors."""
    monkeypatch.setattr(sys, "argv", ["bayesrg", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    out, err = capsys.readouterr()
    return exit.value.code, out, err


def test_models_are_listed_with_what_they_are():
    result = CliRunner().invoke(cli.app, ["models"])
    assert result.exit_code == 0
    assert "gp_regression" in result.output and "Gaussian-process regression" in result.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "gp_regresion"], "did you mean gp_regression"),
        (["run", "nowhere.py"], "no model file at 'nowhere.py'"),
        (["run", "gp_regression", "--n", "5"], "--n and --task belong to --data"),
        (["run", "gp_regression", "--data", "digit"], "name must be one of 'digits'"),
        (["run", "gp_regression", "--data", "digits", "--task", "3,3"], "two different classes"),
        (["run", "gp_regression", "--draws", "0"], "draws must be an integer of at least 1"),
        (["run", "gp_regression", "--threshold", "2"], "threshold must lie strictly between"),
        (["run", "gp_regression", "--devices", "64"], "devices must divide"),
        (["show", "nowhere"], "no result at"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = main(monkeypatch, capsys, *arguments)
    assert code == 2 and message in err and "Traceback" not in out + err
    assert err.strip().splitlines()[-1].startswith("bayesrg: ")
    assert not list(tmp_path.iterdir())  # nothing half-written


def test_a_model_of_ones_own_and_show(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    arguments = ["run", "mine.py", "--data", "digits", "--n", "30", "--draws", "40", "--warmup",
                 "40", "--chains", "2", "--out", "out"]  # fmt: skip
    code, out, err = main(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert "R-hat" in out and "run folder: out" in out
    dt = brg.open_run(tmp_path / "out")
    assert dt["posterior"].sizes == {"chain": 2, "draw": 40}
    code, out, err = main(monkeypatch, capsys, "show", "out")
    assert code == 0 and "ess_bulk" in out and "mine.model" in out
    code, _, err = main(monkeypatch, capsys, *arguments)
    assert code == 2 and "exists already" in err


MOVING = '''
"""Spectral decay sampled: the modes' variances move, so no eigenpairs can be kept."""
import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
import bayesrg as brg

def model(X, y=None, *, modes=21):
    decay = numpyro.sample("decay", dist.LogNormal(0.7, 0.3))
    noise = numpyro.sample("noise", dist.LogNormal(-1.5, 0.5))
    spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -decay, modes)
    numpyro.sample("y", brg.gp.marginal(spectrum, X, noise**2), obs=y)

def demo(key):
    x = jnp.linspace(0, 1, 40, endpoint=False)[:, None]
    y = jnp.sin(2 * jnp.pi * x[:, 0]) + 0.3 * jax.random.normal(key, (40,))
    return brg.Data(x[::2], y[::2], x[1::2], y[1::2])
'''


@pytest.mark.slow
def test_a_spectrum_that_moves_is_cut_exactly_too(monkeypatch, capsys, tmp_path):
    (tmp_path / "moving.py").write_text(MOVING)
    size = ["--draws", "200", "--warmup", "200", "--chains", "2"]
    code, text, err = main(
        monkeypatch, capsys, "run", tmp_path / "moving.py", *size, "--out", tmp_path / "out"
    )
    assert code == 0, err
    assert float(re.search(r"differs by at most (\S+)", text)[1]) < 1e-9


@pytest.mark.slow
def test_the_main_job(monkeypatch, capsys, tmp_path):
    """Digits to a coarse-grained posterior: the numbers that the table must show."""
    out = tmp_path / "run"
    code, text, err = main(monkeypatch, capsys, "run", "gp_regression", "--out", out)
    assert code == 0, err
    for word in ("cutoff", "modes learnt", "before", "after", "R-hat", "ESS", "seconds"):
        assert word in text, word
    assert {f.name for f in out.iterdir()} == {"result.nc", "flow.png", "spectrum.png"}
    dt = brg.open_run(out)
    import arviz as az

    full, coarse = (dt[g].to_dataset() for g in ("posterior", "coarse_posterior"))
    for name in ("amplitude", "noise"):
        gap = float(full[name].mean() - coarse[name].mean())
        error = [float(az.mcse(d[[name]])[name]) for d in (full, coarse)]
        assert abs(gap) < 4 * (error[0] ** 2 + error[1] ** 2) ** 0.5
        assert float(az.rhat(full[[name]])[name]) < 1.02
        assert float(az.rhat(coarse[[name]])[name]) < 1.02
    rules = dict.fromkeys(("full", "exact", "local", "dressed", "universal", "truncate"))
    for line in text.splitlines():
        words = line.replace("│", " ").split()
        if len(words) == 3 and words[0] in rules:
            rules[words[0]] = tuple(map(float, words[1:]))
    assert rules["full"] == rules["exact"]
    assert rules["exact"][0] > rules["local"][0] > rules["universal"][0] > rules["truncate"][0]
    assert rules["exact"][1] < min(rules[r][1] for r in ("local", "universal"))
    assert rules["truncate"][1] > max(rules[r][1] for r in ("local", "universal"))
