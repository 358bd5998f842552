"""What people would otherwise use, written by us in the manner of three public examples: short, and fair to them.

Each module has `epoch(...)`, which returns a function that trains a VAE for one epoch and returns when that is done.
"""
