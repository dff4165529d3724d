"""Senders: processes that make the HTTP exchanges of a run, where one process is not enough.

`hub` is the driver's side, `states` its decisions, `frames` the protocol, `sender` the other side, with the key,
connections and deadlines; transports are `children` (processes) and `actors` (on a Ray cluster).
"""
