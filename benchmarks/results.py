# SPDX-License-Identifier: Apache-2.0
"""Write the page of results from the numbers of a run."""

from goals import GOALS
from race import table

IDLE = 0.1  # cores that other processes may use while a figure is measured
HEAD = """# Results of the benchmarks

This page is written by `python -m benchmarks`; do not edit it. Columns of the tables: the median
over the rounds; the spread, largest minus smallest over the median; processor time; ratios to the
fastest peer and to the floor; the most memory that a call added to the process (blank where it was
not measured, 0 where it fitted into what was held); and what the compiled program reserves beside
arguments and results. LAPACK of SciPy, which JAX calls, has one thread unless the list says another
number; PyTorch has its own, with as many threads as there are cores.
"""


def write(kept, path):
    """Write the page to a file, from facts and figures as `runner` keeps them."""
    path.write_text(page(kept["facts"], kept["figures"]))


def page(facts, figures):
    """Return the page as text."""
    versions = ", ".join(f"{name} {text}" for name, text in facts["versions"].items())
    lines = [HEAD, f"* Machine: {facts['machine']}, {facts['cores']} cores"]
    lines += [f"* Python {facts['python']}, {versions}"]
    lines += [f"* Environment of {name}: {text}" for name, text in facts["peers"].items()]
    threads = sorted({record["OPENBLAS_NUM_THREADS"] for record in figures.values()})
    lines += [f"* Threads of LAPACK, `OPENBLAS_NUM_THREADS`: {', '.join(threads) or 'none yet'}"]
    dates = sorted(record["date"] for record in figures.values())
    lines += [f"* Measured from {dates[0]} to {dates[-1]}"] if dates else []
    busy = [record for record in figures.values() if (record["busy"] or 0) > IDLE]
    if busy:
        worst = max(record["busy"] for record in busy)
        lines += [
            f"\n**Preliminary**: other processes kept up to {worst:.1f} cores busy during "
            f"{len(busy)} of {len(figures)} figures."
        ]
    lines += ["\n## Goals\n", "| work | ratio | goal | reached | what was tried |"]
    lines += ["|---|---:|---:|---|---|", *map(lambda goal: line(goal, figures), GOALS)]
    files = dict.fromkeys(name.partition(":")[0] for name in figures)
    for file in files:
        lines += [f"\n## {file}"]
        for name, record in figures.items():
            if name.partition(":")[0] == file:
                state = f", {record['busy']:.1f} cores busy" if record in busy else ""
                lines += [f"\n**{record['title']}** ({record['date']}{state})\n", *table(record)]
    return "\n".join(lines) + "\n"


def line(goal, figures):
    """Return the row of a goal in the first table."""
    ratio = goal.ratio(figures)
    limit = "" if goal.limit is None else f"{'>=' if goal.least else '<='} {goal.limit:.3g}"
    number = "not measured" if ratio is None else f"{ratio:.3g}"
    return f"| {goal.work} | {number} | {limit} | {goal.reached(ratio)} | {goal.tried} |"
