"""The app: set up, start, steer and read runs, over the same engine as the command line.

    app        the Textual app: screens, keys, shutdown
    session    one run of this process; alone uses the engine
    replay     a run of another time or process, read from its journal
    services   the protocols through which screens use the app and runs
    screens    compose widgets and handle their messages; styles beside each
    widgets    draw
    terminal, shutdown, screen_lifecycle   slow or closed terminals, signals, the order in which screens close

The first frame needs neither SQLite nor the engine; both are loaded after it. Text from outside passes
`display.printable` and is shown as text, never as markup.
"""
