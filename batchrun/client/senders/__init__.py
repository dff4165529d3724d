"""Senders: processes that make the HTTP exchanges of a run, where one process is not enough.

All else stays with the driver; a sender has the key, connections and deadlines. `hub` is the driver's side, `states` its decisions,
`frames` the protocol, `sender` the other side; transports are `children` (processes) and `actors` (on a Ray cluster).
"""
