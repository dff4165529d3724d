"""What a session does with the open batches of its run."""

from enum import Enum, auto


class BatchMode(Enum):
    RESUME = auto()
    CANCEL = auto()
    FINISH_LIVE = auto()
    IMPORT = auto()
