# SPDX-License-Identifier: Apache-2.0
import json
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pytest
from oracles import fourier_modes
from scipy.stats import multivariate_normal
from typer.testing import CliRunner

import bayesrg as brg
from bayesrg import cli, inference, io

MODEL = '''
"""A mean."""
import numpyro, numpyro.distributions as dist
import bayesrg as brg

def model(X, y=None, *, width=1.0):
    m = numpyro.sample("m", dist.Normal(0, width))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)

def demo(key):
    data = brg.data.load("digits", n=30, key=key)
    return data.X, data.y
'''
MISTAKES = {  # files whose model, or whose loading, goes wrong
    "sum.py": MODEL.replace('dist.Normal(0, width)', 'dist.Normal(0, width + "1")'),
    "inside.py": MODEL.replace('brg\n', 'brg\nfrom bayesrg.gp import marginal\n').replace(
        'with numpyro', 'marginal(brg.kernels.RBF(1.0), X, -1.0)\n    with numpyro'),
    "leaves.py": MODEL.replace('    with', '    raise SystemExit(0)\n    with'),
    "exit.py": "import sys\nsys.exit(0)\n",
    "name.py": "x = 1\ny = undefined\n",
    "syntax.py": "x = = 1\n",
    "number.py": "model = 3\n",
}  # fmt: skip


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
        (["run", "gp_regression", "--draws", "0"], "draws must be a positive integer"),
        (["run", "gp_regression", "--threshold", "2"], "threshold must lie strictly between"),
        (["run", "gp_regression", "--devices", "64"], "devices must divide"),
        (
            ["run", "gp_regression", "--seed", "99999999999999999999"],
            "--seed must fit into 64",
        ),
        (["run", "gp_regression", "--data", "digits", "--task", "3,x"], "such as 3,8, got '3,x'"),
        (["run", "gp_regression", "--out", "mistakes/exit.py"], "mistakes/exit.py' is a file"),
        (
            ["run", "gp_regression", "--out", "mistakes/exit.py/a"],
            "lies in one; give path a",
        ),
        (["run", "mistakes/sum.py"], "sum.py, line 7, in model: TypeError: "),
        (["run", "mistakes/inside.py"], "inside.py, line 9, in model: ValueError: ridge must be"),
        (["run", "mistakes/leaves.py"], "leaves.py, line 8, in model: SystemExit: 0"),
        (["run", "mistakes/exit.py"], "does not load: line 2, in <module>: SystemExit: 0"),
        (["run", "mistakes/name.py"], "line 2, in <module>: NameError: name 'undefined'"),
        (["run", "mistakes/syntax.py"], "SyntaxError: invalid syntax (syntax.py, line 1)"),
        (["run", "mistakes/number.py"], "defines no function model"),
        (["show", "nowhere"], "no result at"),
        (["resume", "nowhere"], "no run at 'nowhere'; give the folder of a run"),
        (["join", "nowhere", "there", "--out", "a.nc"], "no run at 'nowhere'; give folders that"),
        (["run", "gp_regression", "--accept", "keys"], "accept must hold names from"),
        (["show", "mistakes/exit.py"], "mistakes/exit.py cannot be read as a result"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mistakes").mkdir()
    for name, text in MISTAKES.items():
        (tmp_path / "mistakes" / name).write_text(text)
    code, out, err = main(monkeypatch, capsys, *arguments)
    assert code == 2 and message in err and "Traceback" not in out + err
    assert err.strip().splitlines()[-1].startswith("bayesrg: ")
    assert [f.name for f in tmp_path.iterdir()] == ["mistakes"]  # nothing half-written


def test_version_and_a_wrong_name_load_no_jax():
    code = """
import sys
import bayesrg.cli
for arguments in (["--version"], ["models"], ["run", "gp_regresion"], ["run", "a.py"]):
    sys.argv = ["bayesrg", *arguments]
    try:
        bayesrg.cli.main()
    except SystemExit:
        pass
assert not {"jax", "numpyro", "arviz"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert f"bayesrg {brg.__version__}" in done.stdout and "Gaussian-process" in done.stdout
    assert done.stderr.count("bayesrg: no model") == 2


def test_a_result_that_cannot_be_saved_goes_to_the_temporary_folder(monkeypatch, capsys, tmp_path):
    tree = io.to_datatree({"posterior": {"a": [[1.0, 2.0]]}}, {})

    def full(*args, **kwargs):
        warnings.simplefilter("always")
        warnings.warn("draws may not be trusted: 2 of 2", brg.inference.SamplingWarning, 1)
        raise io.SaveError("no space", tree)

    (tmp_path / "mine.py").write_text(MODEL)
    monkeypatch.setattr(inference, "coarse_grain", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, out, err = main(monkeypatch, capsys, "run", tmp_path / "mine.py")
    assert "bayesrg: warning: draws may not be trusted: 2 of 2\n" in err
    assert code == 2 and "bayesrg: no space" in err and "mine.py, line" not in err
    saved = re.search(r"the result is in (\S+)", err)[1]
    assert saved.startswith(str(tmp_path)) and io.open_run(saved).equals(tree)
    monkeypatch.setattr(io, "save", full)
    assert "the result is lost" in main(monkeypatch, capsys, "run", tmp_path / "mine.py")[2]


def test_show_needs_no_posterior(monkeypatch, capsys, tmp_path):
    io.save(io.to_datatree({"constant_data": {"X": [1.0]}}, {}), tmp_path / "a.nc")
    code, out, _ = main(monkeypatch, capsys, "show", tmp_path / "a.nc")
    assert code == 0 and "constant_data" in out and "no posterior" in out


def test_a_model_of_ones_own_and_show(monkeypatch, capsys, tmp_path):
    """NUTS draws from the posterior: mean and deviation within five Monte Carlo errors."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODEL)
    arguments = "run mine.py --draws 200 --warmup 100 --chains 2 --out out".split()
    code, out, err = main(monkeypatch, capsys, *arguments)
    assert code == 0, err
    assert "R-hat" in out and "run folder: out" in out
    dt = brg.open_run(tmp_path / "out")
    draws, y = dt["posterior"]["m"].to_numpy(), dt["observed_data"]["y"].to_numpy()
    assert draws.shape == (2, 200) and "tree_depth" in dt["sample_stats"]
    mean, sd = y.sum() / 31, 31**-0.5
    error = sd / np.sqrt(40)  # a tenth of the draws are independent
    assert abs(draws.mean() - mean) < 5 * error and abs(draws.std() - sd) < 5 * error
    code, out, err = main(monkeypatch, capsys, "show", "out")
    assert code == 0 and "ess_bulk" in out and "mine.model" in out
    assert "finished" not in out
    code, out, err = main(monkeypatch, capsys, *arguments)  # returns what is there
    assert code == 0 and "seconds" in out and brg.open_run(tmp_path / "out").equals(dt)
    code, _, err = main(monkeypatch, capsys, *arguments, "--seed", 1)
    assert code == 2 and "holds another run: X was float64" in err
    code, out, err = main(monkeypatch, capsys, "show", "out", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["draws"] == 200 and "m" in shown["posterior"]
    code, out, err = main(monkeypatch, capsys, "resume", "out/full")
    assert code == 2 and "was started from Python (mine.model); continue it there" in err
    code, out, err = main(monkeypatch, capsys, "resume", "out", "--draws", "210", "--json")
    assert code == 0 and json.loads(out)["draws"] == 210, err
    longer = brg.open_run(tmp_path / "out")["posterior"]["m"]
    np.testing.assert_array_equal(longer[:, :200], draws)


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
    return x[::2], y[::2]
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
    assert "universal" in text and "test MSE" not in text.split("at the posterior")[0]

    # the numbers of the tree, from dense algebra at the medians of the draws
    dt = brg.open_run(tmp_path / "out")
    decay, noise = (float(dt["posterior"][name].median()) for name in ("decay", "noise"))
    x, y = dt["constant_data"]["X"].to_numpy()[:, 0], dt["observed_data"]["y"].to_numpy()
    features = fourier_modes(x, 21) * (1.0 + np.arange(21)) ** (-decay / 2)
    kept = dt["flow"].attrs["stop"]
    for rule, columns in (
        ("full", features),
        ("exact", features),
        ("truncate", features[:, :kept]),
    ):
        law = multivariate_normal(cov=columns @ columns.T + noise**2 * np.eye(len(x)))
        found = dt["rules"]["log_evidence"].sel(rule=rule)
        np.testing.assert_allclose(found, law.logpdf(y), rtol=1e-8)
    assert dt["rules"].attrs["evidence_change"] < 1e-9
    assert set(dt["coarse_posterior"].data_vars) == {"decay", "noise", "y_modes"}


@pytest.mark.slow
def test_the_main_job(monkeypatch, capsys, tmp_path):
    """Digits to a coarse-grained posterior: the numbers that the table must show."""
    out = tmp_path / "run"
    code, text, err = main(monkeypatch, capsys, "run", "gp_regression", "--out", out)
    assert code == 0, err
    for word in ("cutoff", "modes learnt", "before", "after", "R-hat", "ESS", "seconds"):
        assert word in text, word
    assert {f.name for f in out.iterdir()} == {
        "result.nc", "flow.png", "spectrum.png", "run.json", "full", "coarse",
    }  # fmt: skip
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
