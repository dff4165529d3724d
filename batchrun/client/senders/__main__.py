"""`python -m batchrun.client.senders DESCRIPTOR`, started by a driver."""

from batchrun.client.senders.sender import main

main()
