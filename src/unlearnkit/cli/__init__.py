"""The command line; thin: parse, call a verb, print."""

import sys


def main() -> None:
    """Run the command line; errors raised on purpose are one line on stderr and exit code 1."""
    from unlearnkit.cli.app import app
    from unlearnkit.core.errors import UnlearnkitError

    try:
        app(prog_name="unlearnkit")
    except UnlearnkitError as e:
        print(f"unlearnkit: {' '.join(str(e).split())}", file=sys.stderr)
        sys.exit(1)
