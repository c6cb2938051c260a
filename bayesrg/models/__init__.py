# SPDX-License-Identifier: Apache-2.0
"""The model files of the distribution: one NumPyro model per module.

In a checkout they live in the top-level folder ``models/``; a wheel carries them here.
"""

from pathlib import Path

_checkout = Path(__file__).parents[2]
if (_checkout / "pyproject.toml").is_file() and (_checkout / "models").is_dir():
    __path__.append(str(_checkout / "models"))
