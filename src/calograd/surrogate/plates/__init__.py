"""Layer energies of stacks of absorber and active plates."""
