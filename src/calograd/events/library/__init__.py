"""Shower libraries: the deposits of Geant4 showers on disk (HDF5)."""
