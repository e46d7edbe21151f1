"""How torch's threads wait for one another; torch reads it from the environment when it is imported, so this does not."""

from __future__ import annotations

from collections.abc import Mapping

SPINS = "10000"
"""Threads that wait spin for a moment and then sleep, because longer takes the core from others."""


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """What belongs into a process' environment before it imports torch; nothing where somebody has decided it already."""
    return {} if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys() else {"GOMP_SPINCOUNT": SPINS}
