"""The periodic field of a region's surroundings, and the evaluation of terms in it. Private."""
