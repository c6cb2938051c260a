# SPDX-License-Identifier: Apache-2.0
"""The command line ``bayesrg``, with the commands ``models``, ``run``, ``show``, ``weights``."""

import ast
import difflib
import importlib.util
import pkgutil
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Annotated

import typer

from . import __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool):
    """Print the version and end, if ``--version`` was given."""
    if wanted:
        typer.echo(f"bayesrg {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
):
    """Bayesian renormalisation of Gaussian processes and deep networks."""


def _model_files():
    """Return the files of the models in the package, a dict by model name."""
    from . import models

    found = pkgutil.iter_modules(models.__path__)
    return {m.name: m.module_finder.find_spec(m.name).origin for m in found}


def _check_name(name):
    """Raise if no model has this name; done first, before slow imports."""
    path, names = Path(name), sorted(_model_files())
    if path.suffix == ".py" and not path.is_file():
        raise ValueError(f"no model file at {name!r}; give a path to a .py file")
    if path.suffix != ".py" and name not in names:
        near = difflib.get_close_matches(name, names, 3, 0.4) or names
        raise ValueError(
            f"no model is called {name!r}; did you mean {', '.join(near)}? For a file of your own "
            "give its path, ending in .py"
        )


def _load_model(name):
    """Import a model by its name in the package or by the path of its file; return the module."""
    path = Path(name)
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            where = _line(error, spec.origin)
            raise ValueError(f"{name!r} does not load: {where}{_said(error)}") from error

    else:
        module = importlib.import_module(f"bayesrg.models.{name}")
    if not callable(getattr(module, "model", None)):
        raise ValueError(f"{name!r} defines no function model(X, y=None, ...); add one")
    return module


def _said(error):
    """Return the type of an error and the first paragraph of its message, in one line."""
    text = " ".join(str(error).partition("\n\n")[0].split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _line(error, file):
    """Return the last line of ``file`` in the traceback of an error, as text, or ""."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"line {frames[-1].lineno}, in {frames[-1].name}: " if frames else ""


@app.command()
def models():
    """List the models of the package, one per line."""
    for name, file in sorted(_model_files().items()):
        doc = (ast.get_docstring(ast.parse(Path(file).read_text("utf-8"))) or "").splitlines()
        typer.echo(f"{name:16s} {doc[0] if doc else ''}")


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.")],
    data: Annotated[
        str | None, typer.Option(help="Data set, e.g. digits. Default: the model's demo data.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="Number of training points of --data.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Labels: even_odd, low_high, or two classes such as 3,8.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws kept per chain.")] = 500,
    warmup: Annotated[int, typer.Option(help="Warm-up steps per chain.")] = 300,
    chains: Annotated[int, typer.Option(help="Number of chains.")] = 4,
    threshold: Annotated[
        float, typer.Option(help="Modes with a learnability below this are marginalised.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Random seed of data split and sampling.")] = 0,
    devices: Annotated[
        int | None, typer.Option(help="Number of devices that share the chains.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results. Default: runs/MODEL.")
    ] = None,
):
    """Sample a model, find how many modes its data determine, coarse-grain it, and compare."""
    _check_name(model)
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must fit into 64 bits, got {seed}; give a smaller number")
    if data is None and (n is not None or task is not None):
        raise ValueError("--n and --task belong to --data; name a data set, e.g. --data digits")
    classes = _classes(task)

    # imported here, so that the checks above and the other commands start quickly
    import numpyro

    numpyro.enable_x64()
    import jax

    from . import inference
    from .data import load

    module = _load_model(model)
    folder = _free_folder(Path(model).stem) if out is None else out
    try:
        data_key, key = jax.random.split(jax.random.key(seed))
        if data is not None:
            points = load(data, n=200 if n is None else n, task=classes, key=data_key)
        elif hasattr(module, "demo"):
            points = module.demo(data_key)
        else:
            raise ValueError(f"{model!r} has no demo data; name a data set, e.g. --data digits")

        start = time.perf_counter()
        dt = inference.coarse_grain(
            module.model,
            points,
            key=key,
            draws=draws,
            warmup=warmup,
            chains=chains,
            devices=devices,
            threshold=threshold,
            prepare=getattr(module, "prepare", None),
            path=folder,
            say=lambda text: typer.echo(text, err=True),
        )
    except (Exception, SystemExit) as error:
        where = _line(error, module.__file__)
        if where and Path(model).suffix == ".py":
            raise ValueError(f"{model}, {where}{_said(error)}") from error
        raise

    _print_report(model, dt, time.perf_counter() - start)
    if "flow" in dt.children:
        _save_plots(dt, folder)
    typer.echo(f"run folder: {folder}")


def _classes(task):
    """Return two classes (3, 8) for a text such as "3,8"; return any other text unchanged."""
    if task is None or "," not in task:
        return task
    try:
        return tuple(int(c) for c in task.split(","))
    except ValueError:
        raise ValueError(
            f"--task must be even_odd, low_high or two classes such as 3,8, got {task!r}"
        ) from None


def _free_folder(stem):
    """Return a folder under runs/ that does not exist yet: STEM, STEM-2, STEM-3, ..."""
    folder, k = Path("runs") / stem, 1
    while folder.exists():  # even without a result: another run may be about to write to it
        k += 1
        folder = Path("runs") / f"{stem}-{k}"
    return folder


def _print_report(name, dt, seconds):
    """Print the result of `inference.coarse_grain` as tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=name, show_header=False, title_justify="left")
    table.add_row("points", str(dt["constant_data"].sizes["point"]))
    for row in _parameters("", dt["posterior"]):
        table.add_row(*row)
    if "rules" in dt.children:
        for row in _comparison(dt):
            table.add_row(*row)
    table.add_row("seconds", f"{seconds:.0f}")
    console.print(table)

    if "rules" in dt.children:
        rules = Table("rule", title="at the posterior medians", title_justify="left")
        rules.add_column("log evidence", justify="right")
        rules.add_column("test MSE", justify="right")
        for rule in dt["rules"]["rule"].to_numpy():
            found = dt["rules"].to_dataset().sel(rule=rule)
            error = f"{float(found['test_error']):.4f}" if "test_error" in found else ""
            rules.add_row(rule, f"{float(found['log_evidence']):.2f}", error)
        console.print(rules)


def _comparison(dt):
    """Yield table rows, name and text, that compare the coarse model with the full one."""
    flow, found = dt["flow"].attrs, dt["rules"].attrs
    after = dt["spectrum"].attrs["ridge_at_stop"]
    yield "cutoff", f"{flow['stop']} modes (rule running, threshold {flow['threshold']:g})"
    yield "modes learnt", f"{found['modes_learnt']:.1f} (sum of learnabilities)"
    yield "ridge", f"{flow['ridge']:.4g} before, {after:.4g} after (variance)"
    change = f"{found['evidence_change']:.1e}"
    yield "evidence", f"differs by at most {change} over 100 draws, full against coarse"
    yield from _parameters("coarse ", dt["coarse_posterior"])
    if "test_error_full" in found:
        full, coarse = found["test_error_full"], found["test_error_coarse"]
        yield "test MSE", f"{full:.4f} full, {coarse:.4f} coarse (sampled)"


def _parameters(prefix, group):
    """Yield a table row per scalar parameter: mean, deviation, R-hat, effective sample size."""
    import arviz as az

    draws = group.to_dataset()
    draws = draws[[name for name, v in draws.items() if v.ndim == 2]]
    rhat, ess = (az.rhat(draws), az.ess(draws)) if draws else ({}, {})
    for name, v in draws.items():
        text = f"{float(v.mean()):.3g} +- {float(v.std()):.2g}"
        yield (
            f"{prefix}{name}",
            f"{text}   R-hat {float(rhat[name]):.3f}   ESS {float(ess[name]):.0f}",
        )


def _save_plots(dt, folder):
    """Write flow.png and spectrum.png to the folder."""
    from . import plots

    for name, plot in (("flow", plots.plot_flow), ("spectrum", plots.plot_spectrum)):
        plot(dt, backend="matplotlib").savefig(folder / f"{name}.png")


@app.command()
def show(run: Annotated[Path, typer.Argument(help="Run folder, or a result file.")]):
    """Print a summary of a result: settings, groups, and a table of the posterior."""
    import arviz as az

    from .io import open_run

    try:
        dt = open_run(run)
        table = az.summary(dt).to_string() if "posterior" in dt.children else "no posterior"
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:
        raise ValueError(
            f"{str(run)!r} cannot be read as a result ({_said(error)}); give a run folder, or a "
            "netCDF file that bayesrg wrote"
        ) from error
    for name in ("model", "draws", "warmup", "chains", "precision", "bayesrg"):
        if name in dt.attrs:
            typer.echo(f"{name:10s} {dt.attrs[name]}")
    typer.echo(f"{'groups':10s} {', '.join(dt.children)}")
    typer.echo(table)


@app.command()
def weights(
    file: Annotated[
        Path, typer.Argument(help="An .npz or .safetensors file, or a folder of them.")
    ],
    only: Annotated[
        str | None, typer.Option(help="Tensors to look at, a pattern such as 'layers.*'.")
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="Weights of the same network before training.")
    ] = None,
    transpose: Annotated[
        bool, typer.Option(help="Matrices are (in, out), as of Flax and Keras.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed of the nulls.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and no table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for figures.")] = None,
):
    """Compare the weights of a trained network with matrices of independent entries."""
    import fnmatch

    import numpyro

    numpyro.enable_x64()
    from .diagnostics.weights import report, statements
    from .io import load_weights
    from .io.weights import tensors

    pairs = tensors(file)
    if only is not None:
        pairs = ((name, value) for name, value in pairs if fnmatch.fnmatchcase(name, only))
    before = None if initial is None else load_weights(initial)
    found = report(pairs, key=seed, initial=before, transpose=transpose)
    if json:
        typer.echo(_as_json(found))
    else:
        _print_weights(file.name, found)
        for sentence in statements(found):
            typer.echo(sentence)
        typer.echo(
            "By chance 5 % of matrices of independent entries have a level above the largest of "
            "95 % of nulls."
        )
    if out is not None:
        import xarray as xr

        from . import plots

        out.mkdir(parents=True, exist_ok=True)
        tree = xr.DataTree.from_dict({"weight_spectrum": found, "spacing_ratios": found})
        figures = {"levels": plots.plot_weight_spectrum, "ratios": plots.plot_spacing_ratios}
        for name, plot in figures.items():
            plot(tree, backend="matplotlib").savefig(out / f"{name}.png")
            typer.echo(f"figure: {out / name}.png", err=True)


def _as_json(found):
    """Return a report of weights as text: attributes, and one object per matrix."""
    import json

    rows = []
    for name in found["layer"].to_numpy():
        row = found.sel(layer=name).drop_vars("levels")
        rows.append({"layer": str(name)} | {n: v.to_numpy().tolist() for n, v in row.items()})
    return json.dumps({**found.attrs, "matrices": rows}, indent=1)


def _print_weights(name, found):
    """Print a report of weights as a table; after a number, 5 and 95 % of the null."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=name, title_justify="left")
    for heading in ("matrix", "shape", "s", "x_max / edge", "above", "distance", "r", "exponent"):
        table.add_column(heading, justify="left" if heading == "matrix" else "right")

    def beside(row, variable, digits):
        low, high = row[f"{variable}_null"].to_numpy()
        return f"{float(row[variable]):.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"

    for layer in found["layer"].to_numpy():
        row = found.sel(layer=layer)
        table.add_row(
            str(layer),
            f"{int(row['rows'])} x {int(row['columns'])}",
            f"{float(row['s']):.3g}",
            beside(row, "ratio", 2),
            str(int(row["above"])),
            beside(row, "distance", 3),
            beside(row, "r", 3),
            "{:.2f} ({:.1f}, {:.1f})".format(*(row[n] for n in ("hill", "hill_low", "hill_high"))),
        )
    Console(width=140).print(table)
    for text in ("skipped", "convolutions"):
        if found.attrs[text]:
            typer.echo(f"{text}: {found.attrs[text]}")
    if "change" in found:
        for layer, change in zip(
            found["layer"].to_numpy(), found["change"].to_numpy(), strict=True
        ):
            typer.echo(f"{layer}: changed by {change:.2f} of its norm")


def main():
    """Run the command line. A mistake of the user is reported in one line, without traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda text, *_: typer.echo(f"bayesrg: warning: {text}", err=True)
        try:
            app()
        except (ValueError, OSError) as error:
            typer.echo(f"bayesrg: {' '.join(str(error).split())}", err=True)
            if getattr(error, "tree", None) is not None:
                _rescue(error.tree)
            sys.exit(2)


def _rescue(tree):
    """Save a result to the system's temporary folder, if it could not be written elsewhere."""
    from .io import save

    file = Path(tempfile.mkdtemp(prefix="bayesrg-")) / "result.nc"
    try:
        typer.echo(f"bayesrg: the result is in {save(tree, file)}", err=True)
    except OSError as error:
        typer.echo(f"bayesrg: the result is lost: {error.__cause__}", err=True)
