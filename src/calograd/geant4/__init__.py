"""Simulation with Geant4: data tables, geometry, recording, kernels, the farm of kernels, production of libraries."""
