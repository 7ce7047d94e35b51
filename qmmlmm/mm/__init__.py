"""OpenMM: removal of regions from a force field, Forces of terms, selections."""
