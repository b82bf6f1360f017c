"""The program: signals are taken from its first to its last line, the command line in between.

Nothing that takes time to import is imported before that.
"""

from distsgd.cli.terminal import signals
from distsgd.cli.terminal.start_again import StartAgain


def main() -> None:
    """Run the command line, also as ``python -m distsgd``."""
    signals.hold()
    code: object = 1
    try:
        from distsgd.cli.app import main as run  # noqa: PLC0415 -- a signal must not break it off.

        run()
    except StartAgain as again:
        again.replace_process()
    except SystemExit as ended:
        code = ended.code or 0
        raise
    else:
        code = 0
    finally:
        signals.end_with(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
