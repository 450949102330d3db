"""Command line: parses, calls a verb, prints."""

import os
import pathlib
import signal
import sys
from contextlib import suppress

INTERRUPTED = 130
STOPPING = (
    "\nunlearnkit: interrupted: removing what was begun; trained models and finished runs are"
    " kept; press Ctrl-C again to exit at once\n"
)


def main() -> None:
    """Run the command line; every error is one line on stderr and exit code 1.

    Ctrl-C ends the run in order and exits with 130; a second one exits at once.
    """
    with suppress(ValueError):  # only the main thread can
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
    try:
        _open_streams()
        from unlearnkit.cli.commands import app
        from unlearnkit.core.errors import UnlearnkitError
        from unlearnkit.core.text import one_line

        try:
            _check_words(sys.argv)
            try:
                app(prog_name="unlearnkit")
            finally:
                _flush()
        except UnlearnkitError as e:
            _end(one_line(f"unlearnkit: {e}"))
        except BrokenPipeError:  # the reader of stdout has left, as head does
            _silence(1)
            sys.exit(1)
        except OSError as e:
            if e.filename is None and e.strerror:  # stdout: files are named
                _silence(1)
                _end(f"unlearnkit: stdout: {e.strerror}; redirect it to a place with room")
            _end(f"unlearnkit: {' '.join(_told(e).split())}")
        except Exception as e:  # noqa: BLE001  # the net: whatever it is, the user gets one line
            _end(f"unlearnkit: {' '.join(_told(e).split())}")
    except KeyboardInterrupt:  # also while modules are loaded and after the command has ended
        with suppress(ValueError):  # only the main thread can
            signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        sys.exit(INTERRUPTED)
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(*_: object) -> None:
    """Say what becomes of the run, and end it; from now on Ctrl-C exits at once."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    with suppress(OSError):
        os.write(2, STOPPING.encode())
    raise KeyboardInterrupt


def _told(e: Exception) -> str:
    from unlearnkit.core.border import refuse
    from unlearnkit.core.errors import UnlearnkitError

    words = sys.argv[1:3] if sys.argv[1:2] in (["cache"], ["ledger"], ["study"]) else sys.argv[1:2]
    try:
        refuse(" ".join(words)[:40] or "command", e)
    except UnlearnkitError as typed:
        return str(typed)


def _open_streams() -> None:
    """Give a missing stderr a place, and let text through that the terminal cannot show."""
    if sys.stderr is None:
        sys.stderr = pathlib.Path(os.devnull).open("w")  # noqa: SIM115  # lives as long as the process
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _check_words(words: list[str]) -> None:
    from unlearnkit.core.errors import InputError

    if sys.stdout is None:
        raise InputError("stdout: it is closed; open it, or send it to /dev/null")
    for word in words:
        try:
            word.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"argument: {word[:80]!r} is not UTF-8; rename the file or folder"
            ) from None


def _flush() -> None:
    """Write what stdout still holds while an error can still be reported."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as e:
        from unlearnkit.core.errors import InputError

        _silence(1)
        raise InputError(
            f"stdout: cannot be written: {e.strerror}; send it to a place with room"
        ) from None


def _end(line: str) -> None:
    """Say why on stderr, if anybody still reads it, and leave."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _silence(2)
    sys.exit(1)


def _silence(descriptor: int) -> None:
    """Let what is still buffered for a stream go nowhere, so that the end of Python is quiet."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
