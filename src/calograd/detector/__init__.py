"""Descriptions of what is simulated: designs, materials, detectors, beams."""
