"""A region in the field of its surroundings: geometry, Ewald sums and their adjoint, in torch."""
