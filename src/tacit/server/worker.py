"""``python -m tacit.server.worker``: the learner process, which lives in ``tacit.server.learner.worker``."""

import gc
import sys


def main() -> int:
    """Import and run it. What is imported stays: looking for garbage in it would double the seconds until it starts."""
    gc.disable()
    from tacit.server.learner.worker import main

    gc.freeze()
    gc.enable()
    return main()


if __name__ == "__main__":
    sys.exit(main())
