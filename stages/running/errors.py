"""The one exception that speaks to the user rather than to us."""


class UserError(ValueError):
    """Something that came from outside is wrong: a parameter, an image, a file, the network.

    The message says where, what came and what was expected. A step that meets one prints the message alone and
    exits with status 1; every other exception is a fault of ours and keeps its traceback.
    """


def gist(error: BaseException) -> str:
    """The first line of a library's message, and the second where the first ends in a colon; at most 160 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line if len(line) <= 160 else f"{line[:157]}..."
