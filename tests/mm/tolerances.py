"""How closely energies and forces of mixed Systems agree with those that they are compared with."""

from __future__ import annotations

# OpenMM adds some ten thousand terms of up to 1e4 kJ/mol in another order.
ROUND_OFF_ENERGY = 1e-7  # kJ/mol
ROUND_OFF_FORCE = 1e-6  # kJ/(mol nm)
# OpenMM and the embedding both cut erfc(alpha r)/r off at alpha r = 4.5, 139 erfc(4.5)/0.8 = 3e-8 kJ/mol for a pair
# of unit charges, of which some thousand are around the cutoff; alpha is rounded differently.
CUTOFF_ENERGY = 1e-5  # kJ/mol
CUTOFF_FORCE = 1e-4  # kJ/(mol nm)
# Four-point differences with a step of 1e-4 nm on Reference: 1e-9 kJ/mol from a charge that crosses the cutoff.
DIFFERENCE_STEP = 1e-4  # nm
DIFFERENCE_FORCE = 5e-5  # kJ/(mol nm), relative to forces of some 500: 1e-7
NET_FORCE = 5e-4  # kJ/(mol nm), 1e-8 hartree/bohr: without a box nothing but round-off is left
QM_DIFFERENCE_FORCE = 0.05  # kJ/(mol nm), 1e-6 hartree/bohr: energies converged to 1e-11 hartree
