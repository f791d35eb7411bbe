"""Showers in memory and on disk: deposits, points, cells, maps."""
