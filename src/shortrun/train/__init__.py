"""Training: one step, the loop around it, checkpoints, and the run folder they fill."""
