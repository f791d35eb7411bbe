"""Observables, distances and two-sample tests."""
