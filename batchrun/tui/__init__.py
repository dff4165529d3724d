"""The app, over the same engine as the command line.

    app        screens, keys, shutdown
    session    one run of this process; alone uses the engine
    replay     a run of another time or process, read from its journal
    services   the protocols through which screens use the app and runs
    screens    compose widgets and handle their messages
    widgets    draw
    terminal, shutdown, screen_lifecycle   slow or closed terminals, signals, the order in which screens close

SQLite and the engine are loaded after the first frame. Text from outside passes `display.printable` and is never
markup.
"""
