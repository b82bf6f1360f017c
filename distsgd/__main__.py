"""``python -m distsgd``: the command line."""

from distsgd.cli.app import main

if __name__ == "__main__":
    main()
