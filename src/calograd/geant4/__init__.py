"""Geant4: data tables, geometry, recording, kernels and the farm."""
