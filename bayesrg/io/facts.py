# SPDX-License-Identifier: Apache-2.0
"""The fields of ``run.json`` that identify a run, and their differences."""

import hashlib
import json
from typing import Any

# differences that a user may accept when a run is continued
ACCEPTED = ("versions", "devices")
# in the order in which differences are reported; the program depends on the fields before it
COMPARED = tuple(
    "hyper X y key warmup chains block thin store log_likelihood prior sampler precision".split()
)


def checksum(facts: dict, names: tuple[str, ...] | None = None) -> bytes:
    """Return the SHA-256 of facts, or of those of them that have the given names."""
    some = {n: v for n, v in facts.items() if names is None or n in names}
    return hashlib.sha256(json.dumps(some, sort_keys=True).encode()).digest()


def difference(name: str, before: Any, now: Any) -> tuple[str, Any, Any] | None:
    """Return the first difference of two values: its field, both values; None if they are equal.

    Mappings are compared entry by entry. A missing entry is shown as "not given".
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for entry in sorted({*before, *now}, key=lambda n: (n != "class", n)):
            found = difference(f"{name} {entry!r}", before.get(entry), now.get(entry))
            if found is not None:
                return found
        return None
    if before == now or (before != before and now != now):  # nan is nan
        return None
    return name, *("not given" if value is None else value for value in (before, now))


def first_difference(before: dict, now: dict, but: str = "") -> tuple[str, Any, Any] | None:
    """Return the first difference of what identifies two runs, without the field ``but``.

    The result is that of `difference`.
    """
    for name in (*COMPARED, *ACCEPTED, "draws", "program"):
        found = None if name == but else difference(name, before.get(name), now.get(name))
        if found is not None:
            return found
    return None
