"""Errors that a person reads: one sentence that says what is wrong and what to change.

Commands print the sentence without a traceback and exit with `exit_code`.
"""


class CaplabError(Exception):
    """Anything that the person at the keyboard can mend. The message is one clear sentence."""

    exit_code = 1


class ConfigError(CaplabError):
    """A setting, an option or an input is wrong; raised before any work starts."""

    exit_code = 2


class DatasetError(CaplabError):
    """A dataset or run directory is not what the command needs, or belongs to other settings."""

    exit_code = 3


class StageError(CaplabError):
    """A stage could not finish some shards; what was finished is kept and a rerun continues."""

    exit_code = 4
