"""The documentation, and the code that makes its generated pages."""
