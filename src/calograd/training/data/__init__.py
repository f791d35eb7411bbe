"""Training data: rows of cells or maps, showers of points, their split by shower, streaming from files."""
