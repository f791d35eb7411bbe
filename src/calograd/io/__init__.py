"""Files: atomic writes, HDF5, checksums, configuration. Knows no physics."""
