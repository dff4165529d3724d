"""What a journaled row still needs when a run is resumed."""

from enum import Enum, auto

from batchrun.models import History


class Next(Enum):
    """What a row of the journal needs when a run is resumed."""

    SEND = auto()
    JUDGE = auto()


def go_on(history: History, *, reused: bool = False) -> Next:
    """What an unfinished row needs, from the journal alone; `reused` is whether the reply to an equal request answers it.

    | the journal says                              | the row is                                                      |
    |---|---|
    | a reply is recorded or shared, no outcome     | judged: post-processing and outcome, no call; `decide` asks it  |
    |                                               | again where it does not fit the schema and tries are left       |
    | an attempt left and no answer is known        | sent again, the lost attempt counted as maybe paid              |
    | no attempt, attempts without a reply, or      | sent                                                            |
    | failed, retryable                             |                                                                 |

    Rows that are done, skipped, or failed permanently are not asked about: `journal.pending` leaves them out. A row
    whose request has changed is drift and is settled before the run begins.
    """
    if reused:
        return Next.JUDGE
    return Next.SEND if history.reply is None or history.open else Next.JUDGE
