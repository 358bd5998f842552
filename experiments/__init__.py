"""What is typed: `python -m experiments.train`, `.evaluate`, `.figures`, `.report`, `.claims`, `.published`."""

import os

# Before NumPy is imported, whose BLAS looks once: its threads wait for the next product in a loop, 30 ms long unless told
# otherwise, and so take the cores from XLA's.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
