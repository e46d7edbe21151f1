"""The run folder: a public format that everything reads and training alone writes."""
