# SPDX-License-Identifier: Apache-2.0
"""Time WeightWatcher on ten matrices, in its own environment, for `race.Worker`.

It needs WeightWatcher and PyTorch, and neither JAX nor bayesrg.
"""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import weightwatcher

sys.path.insert(0, str(Path(__file__).parent))
from race import Call, serve

CALLS = {
    "WeightWatcher, power law of the tail": {},
    "WeightWatcher, and one shuffled matrix": {"randomize": True},
}


def main():
    gen = np.random.default_rng(0)
    net = {f"{i}.weight": gen.normal(size=(1024, 512)) for i in range(10)}
    watcher = weightwatcher.WeightWatcher(model=net)

    def call(options):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            found = watcher.analyze(**options)
        if len(found) != len(net):
            raise RuntimeError(f"WeightWatcher saw {len(found)} of {len(net)} matrices")

    serve({name: Call(call, options, least=0.0) for name, options in CALLS.items()})


if __name__ == "__main__":
    main()
