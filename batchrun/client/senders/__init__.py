"""Senders: processes that make the HTTP exchanges of a run, where one process is not enough.

Limits, budget, rendering, judging and the journal stay at the driver; a sender has the key, connections and deadlines.
`hub` is the driver's side, `states` its decisions, `frames` what passes between them, `children` the transport to child
processes, `sender` the process itself.
"""
