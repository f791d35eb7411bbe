"""Surrogates of point clouds."""
