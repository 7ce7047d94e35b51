"""Reactions: minima, scans, paths, saddle points and frequencies of a region in its surroundings."""
