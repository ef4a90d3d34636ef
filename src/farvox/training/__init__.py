"""Training: from a dataset to trained networks; `farvox.train` is in `api`."""
