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
from .start import keep_programs, one_thread

NO_CACHE = "--no-compile-cache"


class _Commands(TyperGroup):
    """Commands that end in one line when a signal stops them."""

    def parse_args(self, ctx, args):
        """Let the option of all commands also stand after the name of the command."""
        before = args[: args.index("--")] if "--" in args else args
        if NO_CACHE in before:
            args = [NO_CACHE] + [a for i, a in enumerate(args) if a != NO_CACHE or i > len(before)]
        return super().parse_args(ctx, args)

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
    no_compile_cache: Annotated[
        bool,
        typer.Option(NO_CACHE, help="Keep no compiled programs in the user's cache folder."),
    ] = False,
):
    """Bayesian renormalisation of Gaussian processes and deep networks."""
    one_thread()
    if not no_compile_cache:
        keep_programs()


def main():
    """Run the command line. A mistake of the user is reported in one line, without traceback."""
    with warnings.catch_warnings():
        # a program that cannot be read or kept is compiled again
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
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
