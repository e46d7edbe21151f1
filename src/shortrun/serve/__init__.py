"""A playground for runs: a page on this machine, and the answers that it asks for."""
