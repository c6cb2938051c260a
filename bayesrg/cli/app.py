# SPDX-License-Identifier: Apache-2.0
"""The application to which the command groups add their commands, and how it ends."""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from .. import __version__


class _Commands(TyperGroup):
    """Commands that end in one line when a signal stops them."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            typer.echo(f"bayesrg: {error or 'stopped'}", err=True)
            sys.exit(getattr(error, "code", 130))


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


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


def main():
    """Run the command line. A mistake of the user is reported in one line, without traceback."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda text, *_: typer.echo(f"bayesrg: warning: {text}", err=True)
        try:
            app()
        except (ValueError, OSError, ImportError) as error:
            typer.echo(f"bayesrg: {' '.join(str(error).split())}", err=True)
            if getattr(error, "tree", None) is not None:
                _rescue(error.tree)
            sys.exit(2)


def _rescue(tree):
    """Save a result to the system's temporary folder, if it could not be written elsewhere."""
    from ..io import save

    file = Path(tempfile.mkdtemp(prefix="bayesrg-")) / "result.nc"
    try:
        typer.echo(f"bayesrg: the result is in {save(tree, file)}", err=True)
    except OSError as error:
        typer.echo(f"bayesrg: the result is lost: {error.__cause__}", err=True)
