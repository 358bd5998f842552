"""What is typed: `python -m experiments.train`, `.evaluate`, `.figures`, `.report`, `.claims`, `.published`."""

import os

# Set before NumPy is imported, because OpenBLAS reads it once. Its threads spin for some 30 ms after each product by
# default, on cores that XLA's threads need.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
