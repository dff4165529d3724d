"""`python -m batchrun.client.senders DESCRIPTOR`: started by a driver, never by hand."""

from batchrun.client.senders.sender import main

main()
