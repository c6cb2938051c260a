# SPDX-License-Identifier: Apache-2.0
"""The fields of ``run.json`` that identify a run, and their differences."""

from typing import Any

# differences that a user may accept when a run is continued
ACCEPTED = ("versions", "devices")
# in the order in which differences are reported; the program depends on the fields before it
COMPARED = tuple(
    "hyper X y key warmup chains block thin store log_likelihood prior sampler precision".split()
)


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
    if before == now:
        return None
    return name, *("not given" if value is None else value for value in (before, now))
