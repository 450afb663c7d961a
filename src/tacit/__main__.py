"""``python -m tacit``: the command line, for environments without the ``tacit`` script."""

from tacit.cli.main import main

if __name__ == "__main__":
    main()
