"""Detector optimisation: background, readout and reconstruction of a design's cells, and what they are worth."""
