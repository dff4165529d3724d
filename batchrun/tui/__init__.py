"""The app, over the same engine as the command line; only `session` uses it.

SQLite and the engine are loaded after the first frame. Text from outside passes `display.printable`.
"""
