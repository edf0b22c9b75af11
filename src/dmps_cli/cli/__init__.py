"""The `dmps` command: parses, checks, calls, prints."""
