"""What a test of the laboratory sees and does.  It looks from outside; agents are asked only for their reasons."""

import email
import email.policy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import dns.rdatatype
from lab import machines, network, pair, watch
from lab.hosts import HERE, HOSTS, NODES
from lab.profile import SERVICE, Profile, find

from understudy.config import durations

MAILS = "var/mail/sink"  # On prov.
SERVERS = ("dns1", "dns2")


@dataclass(kw_only=True)
class Watch:
    """The samples of lab/watch.py, which runs all the time."""

    path: Path

    @staticmethod
    def now() -> float:
        return time.time()

    def samples(self, since: float = 0.0) -> list[watch.Sample]:
        return [sample for sample in watch.read(self.path) if sample.sent >= since]

    def serving(self, *, site: str = "") -> tuple[str, ...]:
        """Who has answered in the last half second."""
        since = time.time() - 2.0
        recent = [
            s for s in self.samples(since) if s.serves and (s.answered or 0) > time.time() - 0.5
        ]
        return tuple(sorted({s.node for s in recent if site in ("", s.site)}))


@contextmanager
def watching(folder: Path) -> Iterator[Watch]:
    path = folder / "samples.jsonl"
    path.touch()
    process = subprocess.Popen([sys.executable, str(HERE / "watch.py"), str(path)])
    try:
        yield Watch(path=path)
    finally:
        process.terminate()
        process.wait(10)


@dataclass(kw_only=True)
class Stage:
    watch: Watch
    profile: str
    began: float
    allowed: tuple[float, str] = (
        0.0,
        "",
    )  # Seconds for which two may serve, and the manual's sentence.
    whole: bool = False  # The next test may go on from here.

    @property
    def numbers(self) -> Profile:
        return find(self.profile)

    def seconds(self, name: str) -> float:
        return durations.parse(getattr(self.numbers, name))

    @property
    def failover_within(self) -> float:
        """Patience, the rounds before and after it, the PBX's start; and a machine that is busy."""
        return self.seconds("patience") + 3 * self.seconds("interval") + 15.0

    @property
    def no_failover_for(self) -> float:
        """If there was one to come, it would have come by then."""
        return self.seconds("patience") + 2 * self.seconds("interval") + self.seconds("question")

    # -- what is so

    def phase(self, node: str) -> str:
        return pair.phase(node)

    def status(self, node: str) -> dict[str, Any]:
        return pair.status(node)

    def names(self) -> dict[str, str]:
        """Where each name server sends callers; `?` where it does not answer."""
        return {server: leads_to(server) for server in SERVERS}

    def mails(self) -> list[EmailMessage]:
        """Those that came in this test, oldest first."""
        folder = HOSTS["prov"].folder / "root" / MAILS
        paths = sorted(
            path for path in folder.glob("*.eml") if float(path.name.split("-")[0]) >= self.began
        )
        parse = email.message_from_bytes
        return [parse(path.read_bytes(), policy=email.policy.default) for path in paths]

    def mailed(self, *words: str) -> bool:
        """Is there a mail with all these words, in subject or text?"""
        return any(
            all(word.lower() in text(mail).lower() for word in words) for mail in self.mails()
        )

    def journal(self, node: str, *units: str) -> str:
        if not machines.is_on(node):
            return f"{node} is off"
        chosen = [word for unit in units or ("understudy", "asterisk") for word in ("-u", unit)]
        words = ("journalctl", "-o", "short-precise", "--no-pager", "-n", "60", *chosen)
        return machines.execute(node, *words).stdout

    def why(self, node: str) -> str:
        return machines.execute(node, "understudy", "why").stdout

    # -- what is awaited

    def wait_until_settled(self) -> None:
        """Both have their proofs, and from every site pbx01 is seen to serve."""
        until(
            lambda: all(self.watch.serving(site=site) == ("pbx01",) for site in ("siteA", "siteB", "inet")),
            within=20, what=lambda: f"pbx01 serves: {self.watch.serving()}{self.said()}",
        )  # fmt: skip
        until(self._is_proved, within=60, what=lambda: f"the check points see pbx01{self.said()}")

    def wait_for_phase(self, node: str, *phases: str, within: float) -> float:
        return until(
            lambda: self.phase(node) in phases,
            within=within,
            what=lambda: f"{node} is {' or '.join(phases)}: it is {self.phase(node)}{self.said()}",
        )

    def wait_for_service(self, node: str, *, site: str = "inet", within: float) -> float:
        return until(
            lambda: self.watch.serving(site=site) == (node,),
            within=within,
            what=lambda: (
                f"{node} alone serves {site}: {self.watch.serving(site=site)}{self.said()}"
            ),
        )

    def wait_for_names(
        self, node: str, *, within: float = 10.0, servers: tuple[str, ...] = SERVERS
    ) -> None:
        until(
            lambda: all(self.names()[server] == node for server in servers),
            within=within,
            what=lambda: f"the name leads to {node}: {self.names()}{self.said()}",
        )

    def wait_for_mail(self, *words: str, within: float = 30.0) -> None:
        until(
            lambda: self.mailed(*words),
            within=within,
            what=lambda: (
                f"a mail with {words}: {[mail['subject'] for mail in self.mails()]}{self.said()}"
            ),
        )

    def wait_for_doctor(self, *words: str, within: float = 60.0) -> None:
        """`understudy doctor` on pbx01 says all of them."""
        said = [""]

        def says() -> bool:
            said[0] = self.run("pbx01", "understudy", "doctor", check=False, timeout=90)
            return all(word in said[0] for word in words)

        until(says, within=within, what=lambda: f"doctor says {words}: {said[0]}")

    def wait_for_failover(self) -> None:
        """pbx02 serves those who can reach it, and both servers lead there."""
        self.wait_for_service("pbx02", within=self.failover_within)
        self.wait_for_service("pbx02", site="siteB", within=3)
        self.wait_for_names("pbx02")

    def expect_no_failover(self, *, during: float = 0.0, restarts_in: float = 0.0) -> None:
        """pbx01 goes on serving, and pbx02 is silent, for longer than a failover takes.

        `restarts_in`: seconds that pbx01 may be away in that time.
        """
        since = time.time()
        ends = since + (during or self.no_failover_for)
        while time.time() < ends:
            assert self.phase("pbx02") != "active", self.said()
            time.sleep(1.0)
        samples = self.watch.samples(since)
        assert not watch.times(samples, "pbx02"), f"pbx02 has served{self.said()}"
        silent = watch.gaps(samples, since, ends - watch.GAP, site="inet")
        away = sum(end - begin for begin, end in silent)
        assert away <= restarts_in, f"nobody has served for {away:.1f} s: {silent}{self.said()}"

    def check_overlap(self) -> None:
        both = watch.overlaps(self.watch.samples(self.began))
        seconds = sum(end - begin for begin, end in both)
        most, _sentence = self.allowed
        assert not both or seconds <= most, f"two served for {seconds:.1f} s: {both}{self.said()}"

    # -- what is done

    def run(self, host: str, *argv: str, check: bool = True, timeout: float = 60.0) -> str:
        done = machines.execute(host, *argv, check=check, timeout=timeout)
        return done.stdout + done.stderr

    def allow_overlap(self, seconds: float, sentence: str) -> None:
        """`sentence` stands in the manual; that it does is checked."""
        assert sentence in manual(), f"the manual does not say: {sentence}"
        self.allowed = (seconds, sentence)

    def leave_whole(self) -> None:
        """Everything is healed and nothing has moved: the next test need not begin with new nodes."""
        network.heal_all()
        assert (self.phase("pbx01"), self.phase("pbx02")) != ("", ""), self.said()
        self.whole = True

    def said(self) -> str:
        parts = [f"\n-- {node}\n{self.journal(node)}" for node in NODES]
        return "".join(parts)

    def _is_proved(self) -> bool:
        """pbx01 has both its proofs (S1), and pbx02 knows it to be up."""
        here, there = self.status("pbx01"), self.status("pbx02")
        proofs = here.get("proofs") or {}
        age = proofs.get("checkpoints_age")
        proved = age is not None and age <= proofs["checkpoints_stale"]
        verdicts = {each["node"]: each["verdict"] for each in there.get("nodes", [])}
        phases = (here.get("phase"), there.get("phase"))
        return proved and phases == ("active", "standby") and verdicts.get("pbx01") == "up"


def leads_to(server: str) -> str:
    question = dns.message.make_query(SERVICE, dns.rdatatype.CNAME)
    with network.udp_socket("probeI") as sock:
        try:
            answer = dns.query.udp(question, HOSTS[server].address, timeout=1.0, sock=sock)
        except (dns.exception.DNSException, OSError):
            return "?"
    return str(answer.answer[0][0]).split(".")[0] if answer.answer else ""


def text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    return f"{mail['subject']}\n{body.get_content() if body is not None else ''}"


def manual() -> str:
    pages = sorted((HERE.parent / "docs").rglob("*.md"))
    return " ".join(" ".join(page.read_text(encoding="utf-8") for page in pages).split())


def until(holds: Callable[[], object], *, within: float, what: Callable[[], str]) -> float:
    """Wait for it; the wall clock when it held."""
    ends = time.monotonic() + within
    while not holds():
        assert time.monotonic() < ends, f"not within {within:g} s: {what()}"
        time.sleep(0.2)
    return time.time()
