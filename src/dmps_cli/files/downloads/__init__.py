"""Files from the network into the cache: whole, checked, and once."""
