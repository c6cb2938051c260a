# SPDX-License-Identifier: Apache-2.0
"""Model files: the command ``models``, and finding and loading a model by its name."""

import ast
import difflib
import importlib.util
import pkgutil
import sys
import traceback
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from .app import app


@app.command()
def models(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
):
    """List the models of the package, one per line."""
    found = {}
    for name, file in sorted(model_files().items()):
        doc = (ast.get_docstring(ast.parse(Path(file).read_text("utf-8"))) or "").splitlines()
        found[name] = doc[0] if doc else ""
    if json:
        typer.echo(dumps(found, indent=1))
        return
    for name, text in found.items():
        typer.echo(f"{name:16s} {text}")


def model_files():
    """Return the files of the models in the package, a dict by model name."""
    from .. import models

    found = pkgutil.iter_modules(models.__path__)
    return {m.name: m.module_finder.find_spec(m.name).origin for m in found}


def check_name(name):
    """Raise if no model has this name; done first, before slow imports."""
    path, names = Path(name), sorted(model_files())
    if path.suffix == ".py" and not path.is_file():
        raise ValueError(f"no model file at {name!r}; give a path to a .py file")
    if path.suffix != ".py" and name not in names:
        near = difflib.get_close_matches(name, names, 3, 0.4) or names
        raise ValueError(
            f"no model is called {name!r}; did you mean {', '.join(near)}? For a file of your own "
            "give its path, ending in .py"
        )


def load_model(name):
    """Import a model by its name in the package or by the path of its file; return the module."""
    path = Path(name)
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            where = line(error, spec.origin)
            raise ValueError(f"{name!r} does not load: {where}{said(error)}") from error

    else:
        module = importlib.import_module(f"bayesrg.models.{name}")
    if not callable(getattr(module, "model", None)):
        raise ValueError(f"{name!r} defines no function model(X, y=None, ...); add one")
    return module


def said(error):
    """Return the type of an error and the first paragraph of its message, in one line."""
    text = " ".join(str(error).partition("\n\n")[0].split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line(error, file):
    """Return the last line of ``file`` in the traceback of an error, as text, or ""."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"line {frames[-1].lineno}, in {frames[-1].name}: " if frames else ""
