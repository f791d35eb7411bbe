"""Surrogates of x-z maps."""
