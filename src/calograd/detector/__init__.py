"""What is simulated: designs, materials, detectors, beams."""
