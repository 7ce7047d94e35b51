"""One-electron operators of a QM region's surroundings: integrals, quadrature and their derivatives."""
