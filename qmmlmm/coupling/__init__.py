"""The physics of the join: regions, the signed energy expression, cut bonds. Knows no engine."""
