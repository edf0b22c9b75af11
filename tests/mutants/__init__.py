"""`make mutants`: every sign, factor, bound and comparison of the heart broken once, and the tests that notice."""
