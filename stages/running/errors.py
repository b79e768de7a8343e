"""The one exception that speaks to the user rather than to us."""


class UserError(ValueError):
    """Something that came from outside is wrong: a parameter, an image, a file, the network.

    The message says where, what came and what was expected. A step that meets one prints the message alone and
    exits with status 1; every other exception is a fault of ours and keeps its traceback.
    """
