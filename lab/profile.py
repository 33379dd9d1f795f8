"""With which numbers the pair runs: the least that `understudy config check` takes for a pace, or near it."""

from dataclasses import dataclass

from .hosts import CHECKPOINTS, HOSTS, NODES, LabError

SERVICE = "sip.example.test"
KEY = "/etc/understudy/tsig.key"
MAIL_TO = "ops@example.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Durations as the configuration file has them."""

    interval: str
    patience: str
    announce: str
    claim_stale: str
    checkpoints_stale: str
    restart_grace: str
    settle_down: str
    first_proof: str
    question: str  # checkpoints.*.timeout
    claim: str  # claim.timeout
    stop_within: str
    data: bool = False  # With copies of the PBX's data, and a MariaDB on each node.


CALLS = 'calls = ["/usr/sbin/asterisk", "-rx", "core show channels count"]\n'
COPIES = """
[copies.config]
kind = "rsync"
paths = ["/etc/asterisk/"]
every = "5s"
max_age = "40s"
on_stale = "refuse"
node_values = [
    "pbx01 /etc/asterisk/asterisk.conf [options] systemname = pbx01",
    "pbx02 /etc/asterisk/asterisk.conf [options] systemname = pbx02",
    "pbx01 /etc/asterisk/pjsip.conf [global] user_agent = lab-pbx01",
    "pbx02 /etc/asterisk/pjsip.conf [global] user_agent = lab-pbx02",
]

[copies.voicemail]
kind = "rsync"
paths = ["/var/spool/asterisk/voicemail/"]
every = "2s"
max_age = "30s"
merge = "voicemail"

[copies.recordings]
kind = "rsync"
paths = ["/var/spool/asterisk/monitor/"]
every = "5s"
max_age = "60s"
merge = "files"

[copies.astdb]
kind = "sqlite"
path = "/var/lib/asterisk/astdb.sqlite3"
every = "2s"
max_age = "30s"

[copies.database]
kind = "mariadb"
socket = "/run/mariadbd/mysqld.sock"
databases = ["cdr"]
merge = ["cdr.cdr uniqueid sequence"]
every = "5s"
max_age = "30s"
"""

PROFILES = {
    "fast": Profile(
        interval="1s", patience="7100ms", announce="4s", claim_stale="1500ms",
        checkpoints_stale="2100ms", restart_grace="4s", settle_down="5s", first_proof="5s",
        question="1s", claim="500ms", stop_within="2s",
    ),
    "2s": Profile(
        interval="2s", patience="13200ms", announce="7s", claim_stale="3s",
        checkpoints_stale="4200ms", restart_grace="5s", settle_down="5s", first_proof="6s",
        question="2s", claim="1s", stop_within="3s",
    ),
    # As 2s; what is tested is the data.
    "data": Profile(
        interval="2s", patience="13200ms", announce="7s", claim_stale="3s",
        checkpoints_stale="4200ms", restart_grace="5s", settle_down="5s", first_proof="6s",
        question="2s", claim="1s", stop_within="3s", data=True,
    ),
    "5s": Profile(
        interval="5s", patience="25s", announce="9s", claim_stale="3s",
        checkpoints_stale="9s", restart_grace="10s", settle_down="10s", first_proof="10s",
        question="3s", claim="1s", stop_within="3s",
    ),
    # The article's numbers on a clock ten times as fast; Asterisk's start and the TTL are as slow as ever.
    "scaled": Profile(
        interval="6s", patience="30s", announce="4500ms", claim_stale="1500ms",
        checkpoints_stale="9s", restart_grace="4s", settle_down="60s", first_proof="1500ms",
        question="1s", claim="300ms", stop_within="2500ms",
    ),
    "article": Profile(
        interval="60s", patience="5m", announce="45s", claim_stale="15s",
        checkpoints_stale="90s", restart_grace="20s", settle_down="10m", first_proof="15s",
        question="10s", claim="3s", stop_within="25s",
    ),
}  # fmt: skip


def find(name: str) -> Profile:
    if name not in PROFILES:
        raise LabError(f"there is no profile {name}.  Profiles: {', '.join(PROFILES)}")
    return PROFILES[name]


def isolations(text: str) -> dict[str, str]:
    """`stop`, `keep`, or one for each node: `pbx01=keep,pbx02=stop`."""
    if "=" not in text:
        text = ",".join(f"{node}={text}" for node in NODES)
    chosen = dict(part.split("=", 1) for part in text.split(","))
    if set(chosen) != set(NODES) or not set(chosen.values()) <= {"stop", "keep"}:
        raise LabError(f"--isolation {text}: write stop, keep, or pbx01=keep,pbx02=stop")
    return chosen


def configuration(profile: Profile) -> str:
    """understudy.toml, the same on both nodes; both stop when they are cut off."""
    nodes = "".join(
        f"""
[nodes.{node}]
host = "{node}.example.test"
address = "{HOSTS[node].address}"
ssh = "understudy@{HOSTS[node].address}"
isolation = "stop"
"""
        for node in NODES
    )
    checkpoints = "".join(
        f"""
[checkpoints.{name}]
kind = "nrpe"
address = "{HOSTS[name].address}"
timeout = "{profile.question}"
"""
        for name in CHECKPOINTS
    )
    return f"""\
[pair]
name = "lab"
service = "{SERVICE}"
preferred = "pbx01"
{nodes}
[detection]
interval = "{profile.interval}"
patience = "{profile.patience}"
announce = "{profile.announce}"
claim_stale = "{profile.claim_stale}"
checkpoints_stale = "{profile.checkpoints_stale}"
restart_grace = "{profile.restart_grace}"
settle_down = "{profile.settle_down}"
first_proof = "{profile.first_proof}"
{checkpoints}
[claim]
kind = "dns"
timeout = "{profile.claim}"

[name]
kind = "rfc2136"
server = "{HOSTS["dns1"].address}"
zone = "example.test"
ttl = "30s"
key_file = "{KEY}"
timeout = "1s"
servers = ["{HOSTS["dns1"].address}:53", "{HOSTS["dns2"].address}:53"]

[service]
kind = "systemd"
unit = "asterisk"
stop_within = "{profile.stop_within}"
{CALLS if profile.data else ""}
[notify.mail]
kind = "mail"
to = ["{MAIL_TO}"]
server = "{HOSTS["prov"].address}"
timeout = "5s"
{COPIES if profile.data else ""}"""
