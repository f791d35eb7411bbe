"""Training of surrogates: configuration, data, the loop, and looks at its progress."""
