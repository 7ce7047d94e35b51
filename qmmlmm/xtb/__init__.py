"""Semiempirical quantum chemistry: GFN1-xTB and GFN2-xTB with tblite.

Only this package imports tblite, which is needed to create a potential and not to import the package.
"""

from qmmlmm.xtb.potential import XTBPotential

__all__ = ["XTBPotential"]
