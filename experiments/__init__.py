"""What is typed: `python -m experiments.train`, `.evaluate`, `.figures`, `.report`, `.claims`, `.published`."""
