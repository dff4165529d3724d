"""Where requests are sent, and by what: the executors behind the engine's one seam."""
