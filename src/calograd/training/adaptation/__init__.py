"""Adaptation of a surrogate to another detector."""
