"""Showers of other programs: ROOT trees, showerdata, CaloChallenge, the paper's images."""
