# SPDX-License-Identifier: Apache-2.0
"""Tables and figure of what image_flow.py measures."""

import matplotlib.pyplot as plt
import numpy as np

MEASURED = "three seeds", "deviation", "deviation, all draws"


def tables(result):
    """Markdown: errors against theory, controls, coarse regression, cutoffs, kurtosis."""
    lines = []

    def table(title, head, rows):
        lines.extend(["", title, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"])
        lines.extend(f"| {' | '.join(map(str, row))} |" for row in rows)

    for case in result["cases"]:
        depth, rows = f"Depth {case['depth']}: ", case["rows"]

        def each(cells, rows=rows):
            return [(row["n"], *cells(row)) for row in rows]

        table(
            depth + "held-out error",
            ("n", "theory", *MEASURED, "plain theory", "deviation from it", "training error",
             "effective ridge seen", "cross-validated"),
            each(lambda r: (
                f"{r['theory']:.3f}", *measured(r["held_out"]), f"{r['plain']:.3f}",
                percent(r["held_out_against_plain"]), percent(r["train"]),
                percent(r["seen_ridge"]), percent(r["cross_validation"]),
            )),
        )  # fmt: skip
        table(
            depth + "controls, deviation from plain theory",
            ("n", "population, repeats", "population, distinct", "Gaussian features",
             "Gaussian sample, plain", "Gaussian sample, corrected"),
            each(lambda r: (
                *(percent(r[k]) for k in ("repeats", "distinct_all", "gaussian")),
                *(f"{r['gaussian_sample'][k]:+.1f} %" for k in ("plain", "corrected")),
            )),
        )  # fmt: skip
        table(
            depth + "coarse regression",
            ("n", "cutoff", "ridge", "spread of local ridge", "coarse theory", *MEASURED,
             "over full regression"),
            each(lambda r: (
                r["cutoffs"]["running"], f"{r['coarse_ridge']:.3f}",
                f"{r['local_ridge']['relative_sd']:.0%}", f"{r['coarse_theory']:.3f}",
                *measured(r["coarse"]),
                f"{100 * (r['coarse']['mean'] / r['held_out']['mean'] - 1):+.1f} %",
            )),
        )  # fmt: skip
        table(
            depth + "cutoffs", ("n", *rows[0]["cutoffs"], "running, plain"),
            each(lambda r: (*r["cutoffs"].values(), r["cutoff_plain"])),
        )  # fmt: skip
        table(
            depth + "ten times the ridge", ("n", "theory", *MEASURED),
            each(lambda r: (f"{r['larger_ridge']['theory']:.3f}", *measured(r["larger_ridge"]))),
        )  # fmt: skip
    table(
        "Excess kurtosis: median, largest, share of heavy modes",
        ("depth, sample", *result["cases"][0]["kurtosis_pool"]["bins"]),
        ((f"{case['depth']}, {name}",
          *(f"{b['median']:+.2f}, {b['largest']:.1f}, {100 * b['heavy']:.0f} %"
            for b in case[f"kurtosis_{name}"]["bins"].values()))
         for case in result["cases"] for name in ("reference", "pool")),
    )  # fmt: skip
    return "\n".join(lines)


def measured(entry):
    few = f"{entry['three']:.3f} ± {entry['three_sd']:.3f}"
    return few, f"{entry['three_deviation']:+.1f} %", percent(entry)


def percent(entry):
    return f"{entry['deviation']:+.1f} ± {entry['deviation_se']:.1f} %"


def figure(result, path):
    """Draw four panels: learning curves, deviations, kurtosis, evidence."""
    fig, axes = plt.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    fig.suptitle(result["title"], fontsize=11)
    curves, deviations, shape, evidence = axes.ravel()
    for number, case in enumerate(result["cases"]):
        colour, rows, depth = f"C{number}", case["rows"], f"depth {case['depth']}"
        n = [row["n"] for row in rows]

        def of(name, key, rows=rows):
            return [row[name][key] for row in rows]

        for theory, found, line, mark, label in (
            ("theory", "held_out", "-", "o", "full"),
            ("coarse_theory", "coarse", ":", "^", "coarse"),
        ):  # fmt: skip
            curves.plot(n, [row[theory] for row in rows], line, color=colour)
            curves.errorbar(n, of(found, "three"), of(found, "three_sd"), fmt=mark, ms=4,
                            color=colour, label=f"{label}, {depth}")  # fmt: skip
        for name, style, label in (
            ("held_out", "o-", "held out"), ("held_out_against_plain", "s--", "from plain theory"),
            ("train", "v-.", "training"), ("gaussian", "x:", "Gaussian features"),
        ):  # fmt: skip
            deviations.errorbar(n, of(name, "deviation"), of(name, "deviation_se"), fmt=style,
                                ms=4, lw=1, color=colour,
                                label="" if number else label)  # fmt: skip
        for sample, mark in (("reference", "."), ("pool", "x")):
            excess = np.asarray(case[f"kurtosis_{sample}"]["modes"])
            blocks = np.unique(np.geomspace(1, excess.size, 41).round().astype(int))
            pairs = list(zip(blocks[:-1], blocks[1:], strict=True))
            shape.plot([np.sqrt(a * b) for a, b in pairs],
                       [np.median(excess[a - 1 : b - 1]) for a, b in pairs],
                       mark + "-", lw=0.8, ms=4, color=colour,
                       label=f"{sample}, {depth}")  # fmt: skip
    curves.set(xscale="log", xlabel="n", ylabel="mean squared error",
               title="Held-out error: theory (lines), three seeds (points)")  # fmt: skip
    deviations.set(
        xscale="log",
        xlabel="n",
        ylabel="per cent",
        title="Deviation from theory (colours as on the left)",
    )
    deviations.set_yscale("symlog", linthresh=10)
    ticks = (-50, -20, -10, -5, 0, 5, 10, 20, 50, 100, 200)
    deviations.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    shape.set(xscale="log", xlabel="mode", ylabel="excess kurtosis",
              title="Mode functions, median of neighbours")  # fmt: skip
    case = result["cases"][0]
    found = case["evidence"]
    kept, log_evidence = np.asarray(found["cutoff"]), np.asarray(found["log_evidence"])
    for i, rule in enumerate(found["rules"]):
        evidence.plot(kept, log_evidence[:, i], label=rule, ls="--" if rule == "exact" else "-")
    evidence.axvline(found["stop"], color="gray", lw=0.8)
    shown = log_evidence[:, :-1]  # truncate falls out of every scale
    margin = 0.1 * np.ptp(shown)
    evidence.set_xscale("symlog")
    evidence.set(xlabel="cutoff", ylabel="log evidence", xlim=(0, kept.max()),
                 ylim=(shown.min() - margin, shown.max() + margin),
                 title=f"Evidence, depth {case['depth']}, "
                 f"n = {case['dressed_local']['n']}")  # fmt: skip
    for ax in axes.ravel():
        ax.legend(fontsize=7)
    for ax in (deviations, shape):
        ax.axhline(0, color="gray", lw=0.8)
    fig.savefig(path, dpi=90)
