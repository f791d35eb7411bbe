"""Gradients of an objective, by automatic differentiation and by finite differences."""
