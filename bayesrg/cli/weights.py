# SPDX-License-Identifier: Apache-2.0
"""The command ``weights``."""

from pathlib import Path
from typing import Annotated

import typer

from .app import app


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
    from ..diagnostics.weights import report, statements
    from ..io import load_weights
    from ..io.weights import tensors

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

        from .. import plots

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
