"""What a person types beside the experiments: `reproduce`, `test`, and `python -m scripts.benchmark`."""
