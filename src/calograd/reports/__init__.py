"""Reports and figures of evaluations, gradients, optimisations and the demonstration."""
