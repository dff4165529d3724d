"""The screens: each composes widgets, handles their messages, and asks the services; its styles lie beside it."""
