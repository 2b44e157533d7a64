"""DSPy's optimizers, run in a worker."""
