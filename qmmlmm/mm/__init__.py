"""OpenMM: regions taken out of a force field, terms put in, selections."""
