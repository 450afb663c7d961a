"""``python -m tacit.server.worker``: the learner process, which lives in ``tacit.server.learner.worker``."""

import sys

from tacit.server.learner.worker import main

if __name__ == "__main__":
    sys.exit(main())
