"""The simulated provider: an OpenAI-compatible server on loopback (docs/sim.md)."""

from batchrun.sim.faults import NAMED, Fault, parse_fault
from batchrun.sim.process import change, down, log, run, spawn, stats
from batchrun.sim.server import Server, running, serve
from batchrun.sim.settings import Latency, Settings, from_json, parse_latency

__all__ = [
    "NAMED",
    "Fault",
    "Latency",
    "Server",
    "Settings",
    "change",
    "down",
    "from_json",
    "log",
    "parse_fault",
    "parse_latency",
    "run",
    "running",
    "serve",
    "spawn",
    "stats",
]
