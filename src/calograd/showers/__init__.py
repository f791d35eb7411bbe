"""Showers on disk and in memory: libraries of Geant4's deposits, and the cells that designs measure of them."""
