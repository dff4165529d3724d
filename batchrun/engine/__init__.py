"""The engine: one run from its plan to its end. `start` prepares, `execute` performs."""
