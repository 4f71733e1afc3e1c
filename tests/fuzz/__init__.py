"""Hostile model files: by rule, by mutation, and guided by the coverage of the code that reads them."""
