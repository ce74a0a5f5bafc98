"""A question as the command line that asks the same."""

__all__ = ["command_of"]

import shlex

from mess_core.search.query import Query


def command_of(query: Query, program: str = "mess search") -> str:
    """Return the ``mess search`` line of a question, quoted for a shell."""
    given: list[tuple[str, object]] = [
        ("--recording", query.recording_id),
        ("--from", query.start_s),
        ("--to", query.end_s),
        ("--clip", query.clip),
    ]
    for option in ("like", "unlike", "more", "less"):
        weights = getattr(query, option)
        given += [(f"--{option}", f"{name}={weight}") for name, weight in weights.items()]
    for group in getattr(query, "wish", ()):
        told = ",".join(f"{name}={weight}" for name, weight in group.items())
        given.append(("--wish", told))
    given += [("--ignore", name) for name in query.ignore]
    given += [("--where", f"{name}={v}") for name, values in query.where.items() for v in values]
    given += [("--relative", query.relative or None), ("--exclude", query.exclude)]
    given += [("-k", query.k), ("--dedupe", query.dedupe_s or None)]
    words = [str(word) for pair in given if pair[1] is not None for word in pair]
    words += ["--same-passage"] if query.same_passage else []
    return f"{program} {shlex.join(words)}"
