"""Speeches of plays, from a file that does not come with the package."""

from unlearnkit.cases.data_folder import folder


def speeches_of_plays() -> list[tuple[str, str]] | None:
    """Return who speaks and the words, in order; None where ``UNLEARNKIT_DATA`` has no plays."""
    place = folder("shakespeare")
    if place is None or not (place / "tinyshakespeare.txt").exists():
        return None
    text = (place / "tinyshakespeare.txt").read_text("utf-8")
    blocks = (block.partition(":\n") for block in text.split("\n\n"))
    return [(who, words) for who, colon, words in blocks if colon]
