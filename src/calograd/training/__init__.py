"""Training of surrogates."""
