"""Senders: processes that make the HTTP exchanges of a run, where one process is not enough.

A sender has the key, connections and deadlines; the driver's hub makes all decisions.
"""
