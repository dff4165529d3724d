"""A Ray cluster, joined and never started, for post-processing and senders.

address    where it is, and why it cannot be joined
driver     its driver process, as batchrun uses it
ray_main   that process, the only one that imports Ray
bundle     the folder of code that is sent to the cluster
messages   plain data between processes
"""
