"""A Ray cluster, which is joined and never started: what post-processing and senders have in common there.

address    where it is, and why it cannot be joined
driver     the process that is Ray's driver, as batchrun sees it
ray_main   that process, the only one that knows Ray
bundle     the folder of code that is sent to the cluster
messages   plain data between processes
"""
