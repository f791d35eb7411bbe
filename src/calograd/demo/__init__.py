"""The demonstration: the whole chain on bundled data, in one report."""
