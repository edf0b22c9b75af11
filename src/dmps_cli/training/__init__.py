"""Training of a prior: photographs, network and loss, the run, what it keeps."""
