"""Neural networks. Knows no physics."""
