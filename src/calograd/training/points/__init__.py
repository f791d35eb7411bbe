"""Training of point-cloud surrogates."""
