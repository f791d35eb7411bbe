"""Surrogates of cells."""
