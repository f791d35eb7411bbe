"""Showers from Geant4: tables, detectors, one kernel, many kernels."""
