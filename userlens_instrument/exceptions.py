"""
Everything this package raises, and only at start-up: on the logging path nothing raises.

This module imports nothing, so that every other one can import it.
"""


class UserlensError(Exception):
    """The root of every exception that this package raises on purpose."""


class SettingsError(UserlensError):
    """
    A setting is wrong: which one, what is wrong with it, and how to put it right.

    The message never echoes the value: it could be the write code.

    Attributes:
        setting: Name of the setting, such as ``max_workers``.
        problem: What is wrong with its value.
        fix: What to do about it.
        origin: Where the value came from: ``argument`` or the name of an environment variable.
    """

    def __init__(self, setting: str, problem: str, fix: str, origin: str = "argument") -> None:
        """Put the parts together in one line."""
        self.setting = setting
        self.problem = problem
        self.fix = fix
        self.origin = origin
        where = "" if origin == "argument" else f" (from {origin})"
        super().__init__(f"{setting}{where} {problem}; {fix}")

    def __reduce__(self) -> tuple[type["SettingsError"], tuple[str, str, str, str]]:
        """Rebuild from the parts, so that a process pool can hand the error over."""
        return type(self), (self.setting, self.problem, self.fix, self.origin)


class RulesError(UserlensError):
    """
    The rules cannot be used: where they are, and everything that is wrong with them.

    Attributes:
        source: The file, or ``rules`` for those that were given as dicts.
        problems: A line for each, with line, rule, reason and fix.
    """

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        """Put the first problem, and the number of others, in one line."""
        self.source = source
        self.problems = problems
        more = ""
        if len(problems) > 1:
            more = f" (and {len(problems) - 1} more: userlens-instrument rules check shows them)"
        super().__init__(f"{source}: {problems[0]}{more}")

    def __reduce__(self) -> tuple[type["RulesError"], tuple[str, tuple[str, ...]]]:
        """Rebuild from the parts."""
        return type(self), (self.source, self.problems)


class InvalidEventError(UserlensError):
    """
    What was tagged or passed is not an event: the reason, and how to put it right.

    Attributes:
        reason: A short word that statistics count by, such as ``missing_user_id``.
        problem: What is wrong.
        fix: What to do about it.
    """

    def __init__(self, reason: str, problem: str, fix: str) -> None:
        """Put the parts together in one line."""
        self.reason = reason
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}; {fix}")

    def __reduce__(self) -> tuple[type["InvalidEventError"], tuple[str, str, str]]:
        """Rebuild from the parts."""
        return type(self), (self.reason, self.problem, self.fix)


class SpoolError(UserlensError):
    """
    The spool cannot be used: which file, and what is wrong with it.

    Attributes:
        path: The file.
        kind: ``locked``, ``full``, ``denied``, ``damaged``, ``newer``, ``foreign``, ``shared``
            or ``failed``.
        problem: What is wrong, in a few words.
    """

    def __init__(self, path: str, kind: str, problem: str) -> None:
        """Put the parts together in one line."""
        self.path = path
        self.kind = kind
        self.problem = problem
        super().__init__(f"the spool {path}: {problem}")

    def __reduce__(self) -> tuple[type["SpoolError"], tuple[str, str, str]]:
        """Rebuild from the parts."""
        return type(self), (self.path, self.kind, self.problem)


class MissingExtraError(UserlensError):
    """
    A part of this package needs a library that is not installed.

    Attributes:
        extra: The extra of this distribution that brings the library.
    """

    def __init__(self, extra: str) -> None:
        """Say what to install."""
        self.extra = extra
        super().__init__(
            f"this needs the {extra!r} extra: pip install 'userlens-instrument[{extra}]'"
        )

    def __reduce__(self) -> tuple[type["MissingExtraError"], tuple[str]]:
        """Rebuild from the part."""
        return type(self), (self.extra,)
