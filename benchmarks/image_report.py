# SPDX-License-Identifier: Apache-2.0
"""Tables and figure of what image_flow.py measures."""

import matplotlib.pyplot as plt
import numpy as np

MEASURED = "three seeds | deviation | deviation, all draws"
HELD_OUT = (
    "plain theory | deviation from it | training error | effective ridge seen | cross-validated"
)
CONTROLS = "population, repeats | population, distinct | Gaussian features"
SAMPLES = "Gaussian sample, plain | Gaussian sample, corrected"


def percent(entry):
    return f"{entry['deviation']:+.1f} ± {entry['deviation_se']:.1f} %"


def measured(entry):
    few = f"{entry['three']:.3f} ± {entry['three_sd']:.3f}"
    return few, f"{entry['three_deviation']:+.1f} %", percent(entry)


def held_out(row):
    rest = ("held_out_against_plain", "train", "seen_ridge", "cross_validation")
    first = f"{row['theory']:.3f}", *measured(row["held_out"]), f"{row['plain']:.3f}"
    return *first, *(percent(row[name]) for name in rest)


def controls(row):
    samples = (f"{row['gaussian_sample'][name]:+.1f} %" for name in ("plain", "corrected"))
    return *(percent(row[name]) for name in ("repeats", "distinct_all", "gaussian")), *samples


def coarse(row):
    spread, over = (
        row["local_ridge"]["relative_sd"],
        row["coarse"]["mean"] / row["held_out"]["mean"],
    )
    first = row["cutoffs"]["running"], f"{row['coarse_ridge']:.3f}", f"{spread:.0%}"
    return (
        *first,
        f"{row['coarse_theory']:.3f}",
        *measured(row["coarse"]),
        f"{100 * (over - 1):+.1f} %",
    )


def cutoffs(row):
    return *row["cutoffs"].values(), row["cutoff_plain"]


def larger_ridge(row):
    return f"{row['larger_ridge']['theory']:.3f}", *measured(row["larger_ridge"])


def tables(result):
    """Return tables in Markdown: errors, controls, coarse regression, cutoffs, kurtosis."""
    lines = []

    def table(title, head, rows):
        lines.extend(["", title, "", f"| {head} |", "|---" * (head.count(" | ") + 1) + "|"])
        lines.extend(f"| {' | '.join(map(str, row))} |" for row in rows)

    local = f"cutoff | ridge | spread of local ridge | coarse theory | {MEASURED}"
    rules = " | ".join(result["cases"][0]["rows"][0]["cutoffs"])
    kinds = {
        "held-out error": (f"theory | {MEASURED} | {HELD_OUT}", held_out),
        "controls, deviation from plain theory": (f"{CONTROLS} | {SAMPLES}", controls),
        "coarse regression": (f"{local} | over full regression", coarse),
        "cutoffs": (f"{rules} | running, plain", cutoffs),
        "ten times the ridge": (f"theory | {MEASURED}", larger_ridge),
    }
    for case in result["cases"]:
        for title, (head, cells) in kinds.items():
            rows = [(row["n"], *cells(row)) for row in case["rows"]]
            table(f"Depth {case['depth']}: {title}", f"n | {head}", rows)

    rows = []
    for case in result["cases"]:
        for sample in ("reference", "pool"):
            bins = case[f"kurtosis_{sample}"]["bins"].values()
            parts = [(b["median"], b["largest"], 100 * b["heavy"]) for b in bins]
            texts = ("{:+.2f}, {:.1f}, {:.0f} %".format(*part) for part in parts)
            rows.append((f"{case['depth']}, {sample}", *texts))
    head = " | ".join(["depth, sample", *result["cases"][0]["kurtosis_pool"]["bins"]])
    table("Excess kurtosis: median, largest, share of heavy modes", head, rows)
    return "\n".join(lines)


def figure(result, path):
    """Draw four panels: learning curves, deviations, kurtosis, evidence."""
    fig, axes = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    fig.suptitle(result["title"], fontsize=11)
    for number, case in enumerate(result["cases"]):
        style = {"color": f"C{number}", "ms": 4}
        draw_curves(axes[0, 0], case, style)
        draw_deviations(axes[0, 1], case, style, labelled=number == 0)
        draw_kurtosis(axes[1, 0], case, style)
    draw_evidence(axes[1, 1], result["cases"][0])

    titles = {
        "Held-out error: theory (lines), three seeds (points)": ("n", "mean squared error"),
        "Deviation from theory (colours as on the left)": ("n", "per cent"),
        "Mode functions, median of neighbours": ("mode", "excess kurtosis"),
    }
    for ax, (title, (x, y)) in zip(axes.flat, titles.items(), strict=False):
        ax.set(xscale="log", xlabel=x, ylabel=y, title=title)
    ticks = (-50, -20, -10, -5, 0, 5, 10, 20, 50, 100, 200)
    axes[0, 1].set_yscale("symlog", linthresh=10)
    axes[0, 1].set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    for ax in axes.flat:
        ax.legend(fontsize=7)
    for ax in (axes[0, 1], axes[1, 0]):
        ax.axhline(0, color="gray", lw=0.8)
    fig.savefig(path, dpi=90)


def column(case, name, key):
    return [row[name][key] for row in case["rows"]]


def draw_curves(ax, case, style):
    n, depth = [row["n"] for row in case["rows"]], f"depth {case['depth']}"
    kinds = (("theory", "held_out", "-o", "full"), ("coarse_theory", "coarse", ":^", "coarse"))
    for theory, found, (line, mark), label in kinds:
        ax.plot(n, [row[theory] for row in case["rows"]], line, color=style["color"])
        mean, spread = column(case, found, "three"), column(case, found, "three_sd")
        ax.errorbar(n, mean, spread, fmt=mark, label=f"{label}, {depth}", **style)


def draw_deviations(ax, case, style, labelled):
    kinds = {
        "held_out": ("o-", "held out"),
        "held_out_against_plain": ("s--", "from plain theory"),
        "train": ("v-.", "training"),
        "gaussian": ("x:", "Gaussian features"),
    }
    n = [row["n"] for row in case["rows"]]
    for name, (fmt, label) in kinds.items():
        mean, error = column(case, name, "deviation"), column(case, name, "deviation_se")
        ax.errorbar(n, mean, error, fmt=fmt, lw=1, label=label if labelled else "", **style)


def draw_kurtosis(ax, case, style):
    for sample, mark in (("reference", ".-"), ("pool", "x-")):
        excess = np.asarray(case[f"kurtosis_{sample}"]["modes"])
        edges = np.unique(np.geomspace(1, excess.size, 41).round().astype(int))
        blocks = list(zip(edges[:-1], edges[1:], strict=True))
        middles = [np.median(excess[a - 1 : b - 1]) for a, b in blocks]
        x, label = [np.sqrt(a * b) for a, b in blocks], f"{sample}, depth {case['depth']}"
        ax.plot(x, middles, mark, lw=0.8, label=label, **style)


def draw_evidence(ax, case):
    found = case["evidence"]
    kept, log_evidence = np.asarray(found["cutoff"]), np.asarray(found["log_evidence"])
    for i, rule in enumerate(found["rules"]):
        ax.plot(kept, log_evidence[:, i], label=rule, ls="--" if rule == "exact" else "-")
    ax.axvline(found["stop"], color="gray", lw=0.8)
    shown = log_evidence[:, :-1]  # truncate falls out of every scale
    margin = 0.1 * np.ptp(shown)
    ax.set_xscale("symlog")
    ax.set(xlabel="cutoff", ylabel="log evidence", xlim=(0, kept.max()))
    ax.set_ylim(shown.min() - margin, shown.max() + margin)
    ax.set_title(f"Evidence, depth {case['depth']}, n = {case['dressed_local']['n']}")
