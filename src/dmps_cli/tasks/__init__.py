"""Tasks: a table of degradations by name, their options, the plan of one measurement."""
