"""Executors of tickets: where and by what requests are sent."""
