"""What a run needs around an OpenMM Simulation: reporters and run directories."""
