"""A check: one question with one right answer, and what an answer other than that means.

`doctor.catalogue` lists them all; the manual's page is made from that list.
"""

from dataclasses import dataclass

from .finding import Finding, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    word: str  # Stable: scripts look for it.
    asks: str  # The question; the right answer is yes.
    level: Level  # Of the wrong answer, where the examination does not say otherwise.
    why: str
    mend: str  # The command; words in braces are filled in by the examination.

    def well(self, node: str, what: str) -> Finding:
        return Finding(check=self.word, node=node, level=Level.OK, what=what)

    def bad(
        self,
        node: str,
        what: str,
        /,
        *,
        level: Level | None = None,
        mend: str = "",
        **words: object,
    ) -> Finding:
        """`words` fill in the check's own `mend`; give another where that would not help."""
        return Finding(
            check=self.word,
            node=node,
            level=level or self.level,
            what=what,
            why=self.why,
            mend=mend or self.mend.format_map(_Left(words)),
        )

    def unknown(self, node: str, what: str, *, mend: str = "") -> Finding:
        return Finding(
            check=self.word, node=node, level=Level.UNKNOWN, what=what, why=self.why, mend=mend
        )


class _Left(dict[str, object]):
    """A word that nobody filled in stays as the manual shows it."""

    def __missing__(self, key: str) -> str:
        return key.upper()
