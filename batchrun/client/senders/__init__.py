"""Senders: processes that make the HTTP exchanges of a run, where one process is not enough.

Limits, budget, rendering, judging and the journal stay at the driver; a sender has the key, connections and deadlines.
`hub` is the driver's side, `states` its decisions, `frames` what passes between them, `sender` the other side. There are two
`transport`s: `children` to child processes, and `actors` to those of a Ray cluster, in which an `actor` runs.
"""
