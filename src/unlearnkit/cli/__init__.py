"""The command line; thin: parse, call a verb, print."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line; errors raised on purpose are one line on stderr and exit code 1."""
    try:
        from unlearnkit.cli.app import app
        from unlearnkit.core.errors import UnlearnkitError
        from unlearnkit.core.text import one_line

        try:
            app(prog_name="unlearnkit")
        except UnlearnkitError as e:
            print(one_line(f"unlearnkit: {e}"), file=sys.stderr)
            sys.exit(1)
    except KeyboardInterrupt:  # also while modules are loaded and after the command has ended
        sys.exit(INTERRUPTED)
