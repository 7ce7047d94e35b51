"""Electronic states of a QM region: linear response, Delta-SCF and CASSCF, and their gradients."""
