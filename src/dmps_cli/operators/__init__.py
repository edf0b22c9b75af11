"""Linear measurement operators; `base` is the contract."""
