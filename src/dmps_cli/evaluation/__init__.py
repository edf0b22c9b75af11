"""Evaluations: which pictures, what came of each, the folder that keeps it, processes, timing."""
