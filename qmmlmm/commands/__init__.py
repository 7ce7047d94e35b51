"""The command ``qmmlmm``."""
