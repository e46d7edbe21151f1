"""Ladders, ablations, grids and sweeps: many runs that differ on purpose, and what their differences say."""
