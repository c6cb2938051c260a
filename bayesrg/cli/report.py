# SPDX-License-Identifier: Apache-2.0
"""Tables, JSON and figures of the result of a run."""

import json
import math


def print_report(name, dt, seconds):
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


def save_plots(dt, folder):
    """Write flow.png and spectrum.png to the folder."""
    from .. import plots

    for name, plot in (("flow", plots.plot_flow), ("spectrum", plots.plot_spectrum)):
        plot(dt, backend="matplotlib").savefig(folder / f"{name}.png")


def as_json(dt, **more):
    """Return the settings, parameters and comparison of a result as one JSON object, a text."""
    import arviz as az

    found = more | {name: _plain(value) for name, value in dt.attrs.items()}
    found["groups"] = list(dt.children)
    for name in ("flow", "rules"):
        if name in dt.children:
            found[name] = {key: _plain(value) for key, value in dt[name].attrs.items()}
    if "posterior" in dt.children:
        draws = dt["posterior"].to_dataset()
        several = draws.sizes["draw"] >= 4  # fewer have no R-hat
        table = {"mean": draws.mean(("chain", "draw")), "sd": draws.std(("chain", "draw"))}
        table |= {"r_hat": az.rhat(draws), "ess": az.ess(draws)} if several else {}
        found["posterior"] = {
            name: {column: _plain(of[name].to_numpy()) for column, of in table.items()}
            for name in draws.data_vars
        }
    return json.dumps(found, indent=1)


def _plain(value):
    """Return numbers, arrays and texts in a form that JSON can hold; what is not finite is null."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
