"""Checkpoints: a table, files found and fetched, read safely, made priors."""
