"""The losses: the one place that defines them."""
