"""Neural networks on vectors. Knows no physics."""
