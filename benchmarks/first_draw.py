# SPDX-License-Identifier: Apache-2.0
"""Time to the first draw of every model: from the start of a process until `fit` returns.

Each model runs in two fresh processes: one without compiled programs, which it keeps, and one that
finds them. Both use the settings of the command line. Imports are part of the time.
"""

import os
import sys
import tempfile
from pathlib import Path

from race import others_busy, race, table, when
from timing import Fresh

CODE = """
import importlib, json, warnings
warnings.simplefilter("ignore")
import numpyro
numpyro.enable_x64()
import jax
import bayesrg as brg
module = importlib.import_module("bayesrg.models.{name}")
data = module.demo(jax.random.key(0))
hyper = module.prepare(data) if hasattr(module, "prepare") else dict()
brg.fit(module.model, data, key=0, draws=1, warmup=1, chains=2, progress=False, **hyper)
"""
TINY = "import jax; jax.jit(lambda x: x + 1)(1.0)"  # of --quick
LINE = "exec({code!r})"


def kept_in(folder):
    """Return the variables of the environment that the command line sets."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS") or "1",
    }


class Cold(Fresh):
    """A fresh process whose folder of programs is empty at each round."""

    def round(self):
        with tempfile.TemporaryDirectory() as folder:
            self.environment |= kept_in(folder)
            return super().round()


def model_names():
    return sorted(file.stem for file in Path(__file__).parents[1].glob("models/*.py"))


def figures(options):
    """Yield the name and the record of each model, and of the sum over all of them."""
    names = ["nothing"] if options.quick else model_names()
    rounds = min(options.rounds, 3)  # a process takes seconds, and its spread is small
    imports = "import jax, numpyro, arviz, bayesrg; bayesrg.fit"
    imports = "import jax" if options.quick else imports
    sums = {"cold": [0.0] * rounds, "warm": [0.0] * rounds}
    for name in names:
        line = LINE.format(code=TINY if options.quick else CODE.format(name=name))
        with tempfile.TemporaryDirectory() as folder:
            contenders = {
                "cold": Cold(sys.executable, line, "other"),
                "warm": Fresh(sys.executable, line, "ours", kept_in(folder)),
                "imports alone": Fresh(sys.executable, imports, "floor"),
            }
            record = race(f"Seconds to the first draw, {name}", contenders, rounds)
        for which, total in sums.items():
            sums[which] = [
                a + b for a, b in zip(total, record["rows"][which]["seconds"], strict=True)
            ]
        yield name, record
    roles = {"cold": "other", "warm": "ours"}
    rows = {w: {"role": roles[w], "seconds": s, "peak": None} for w, s in sums.items()}
    record = {"title": f"Seconds to the first draw, sum over {len(names)} models", "rows": rows}
    record |= {"notes": [], "busy": others_busy(), **when()}
    print(f"\n{record['title']}", *table(record), sep="\n", flush=True)
    yield "sum", record
