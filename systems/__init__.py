"""Ready-made simulation systems for the examples and the tests of qmmlmm."""
