"""Exchange-correlation energies on grids: two grids in the self-consistent field, and gradients with all responses."""
