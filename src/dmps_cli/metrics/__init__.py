"""Scores of a restoration: a table of metrics, LPIPS, what is scored together, how it is said."""
