"""The app: load a prompt, preview its requests, run it, steer it, retry rows; over the same engine as the command line.

    app        the Textual app: which screen, what keys, how it ends
    screen_lifecycle  how screens are taken apart when it ends, or one of them is closed
    terminal   what is painted, on a terminal that may be slow or go away; shutdown: signals and deadlines
    session    one run of this process; alone meets the engine
    replay     a run of another time or process, read from its journal
    screens    compose and handle; styles beside each
    widgets    know how to look
    draft      the prompt, the input and the request that are being set up, without widgets
    services   what screens may know and ask; setup_flags: what the setup says, as flags and as a command

The first frame is drawn by what loads at once; SQLite, prompts, formats and the engine are loaded behind it.

Everything from outside (rows, prompts, replies, errors, file names) passes `display.printable` and is shown as text,
never as markup.
"""
