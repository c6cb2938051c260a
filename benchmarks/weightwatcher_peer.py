# SPDX-License-Identifier: Apache-2.0
"""Time WeightWatcher on ten matrices, in its own environment: processor seconds per call.

It needs WeightWatcher and PyTorch, and neither JAX nor bayesrg.
"""

import contextlib
import json
import os
import sys
import time

import numpy as np
import weightwatcher

CALLS = {
    "WeightWatcher, power law of the tail": {},
    "WeightWatcher, and one shuffled matrix": {"randomize": True},
}


def main():
    gen = np.random.default_rng(0)
    net = {f"{i}.weight": gen.normal(size=(1024, 512)) for i in range(10)}
    watcher = weightwatcher.WeightWatcher(model=net)
    for _ in sys.stdin:
        spent = {}
        for name, options in CALLS.items():
            start = time.process_time()
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                found = watcher.analyze(**options)
            spent[name] = time.process_time() - start
            if len(found) != len(net):
                raise RuntimeError(f"WeightWatcher saw {len(found)} of {len(net)} matrices")
        print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
