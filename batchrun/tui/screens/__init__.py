"""The screens: each composes widgets, handles their messages, and asks the desk; its styles lie beside it."""
