"""A package, so that processes that tests start find it before the package of this name that mace-torch installs."""
