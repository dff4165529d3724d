"""batchrun runs one prompt over many rows: every row answered or accounted for, nothing paid for twice."""

__version__ = "0.1.0"
DISTRIBUTION = "batchrun-llm"
"""The name to install it by; `batchrun` on the package index is another program."""
