# SPDX-License-Identifier: Apache-2.0
"""Run the benchmarks: ``python -m benchmarks``, in the top folder of a checkout."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the files also run alone, as workers
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line does
if "--quick" in sys.argv:  # then most of the time is compilation
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

from runner import main

if __name__ == "__main__":
    main()
