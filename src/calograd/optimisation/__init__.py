"""Optimisation of designs along a surrogate's gradients, with checks on simulated showers."""
