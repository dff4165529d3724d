"""A Ray cluster, joined and never started, for post-processing and senders."""
