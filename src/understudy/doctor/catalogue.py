"""Every check, each once: what it asks, what a wrong answer means at 03:12, and the command that mends it."""

from collections.abc import Mapping

from .check import Check
from .finding import Level

CRITICAL, WARNING, NOTE = Level.CRITICAL, Level.WARNING, Level.NOTE

AS_ROOT = "run as root: sudo understudy doctor"

# Both nodes

OTHER_NODE = Check(
    word="other-node",
    asks="Can the other node be asked?",
    level=CRITICAL,
    why="A node that cannot ask the other one cannot stop its PBX, hand over to it or take an order to it.",
    mend="understudy doctor --here, on {node} itself",
)
CONFIGURATION = Check(
    word="configuration",
    asks="Do both nodes run with the same configuration?",
    level=CRITICAL,
    why="A standby with other nodes, times or check points than the claim names does not take over.",
    mend="copy the right one to the other node, then there: systemctl restart understudy",
)
SETTINGS = Check(
    word="settings",
    asks="Are the settings beyond those equal too?",
    level=WARNING,
    why="The node that takes over would do it in another way than the one that was tested.",
    mend="copy the right one to the other node, then there: systemctl restart understudy",
)
CONFIGURATION_NOTES = Check(
    word="configuration-notes",
    asks="Is there nothing in the configuration that is allowed, and worth knowing?",
    level=NOTE,
    why="What is promised depends on it.",
    mend="understudy config check",
)
VERSIONS = Check(
    word="versions",
    asks="Do both nodes run the same version?",
    level=WARNING,
    why="Two versions may understand the claim, or each other, differently.",
    mend="install {version} on {node} too, then there: systemctl restart understudy",
)
CLOCKS = Check(
    word="clocks",
    asks="Are the clocks of both nodes within a second of each other?",
    level=WARNING,
    why="A pause ends too early on one node, the journals cannot be compared, and from 300 s on the name "
    "server refuses what the node signs.",
    mend="timedatectl set-ntp true, on both nodes",
)
NTP = Check(
    word="ntp",
    asks="Does something keep the clock right?",
    level=NOTE,
    why="A clock that nobody keeps is wrong one day; from 300 s on the name server refuses what the node signs.",
    mend="timedatectl set-ntp true",
)

# The claim and the agent

CLAIM = Check(
    word="claim",
    asks="Can the claim be read, at the server that decides?",
    level=CRITICAL,
    why="A standby that cannot read the claim never takes over.",
    mend="understudy status",
)
CLAIM_ANNOUNCED = Check(
    word="claim-announced",
    asks="Is nobody about to take the claim?",
    level=WARNING,
    why="Either a take-over is under way, or an announcement was left behind.",
    mend="understudy why",
)
CLAIM_EPOCH = Check(
    word="claim-epoch",
    asks="Is the claim no older than what this node has seen?",
    level=CRITICAL,
    why="Nobody believes a claim from the past: the zone was restored from an old backup.",
    mend="understudy set-active {active}",
)
CLAIM_DIGEST = Check(
    word="claim-digest",
    asks="Does the claim name this node's configuration?",
    level=WARNING,
    why="A standby whose configuration is not the one in the claim does not take over.",
    mend="systemctl restart understudy, on both nodes, the active one first",
)
PAUSE = Check(
    word="pause",
    asks="Is automatic failover on?",
    level=NOTE,
    why="While the pause lasts nothing moves by itself, not even off a dead PBX.",
    mend="understudy resume",
)
BREAK_GLASS = Check(
    word="break-glass",
    asks="Is the glass whole?",
    level=CRITICAL,
    why="While this file is there the PBX starts here whatever the claim says: two may serve.",
    mend="rm {file}",
)
AGENT = Check(
    word="agent",
    asks="Does an agent run all the time?",
    level=CRITICAL,
    why="Without an agent a standby takes nothing over, and an active node proves nothing.",
    mend="systemctl enable --now understudy",
)
AGENT_AT_BOOT = Check(
    word="agent-at-boot",
    asks="Does the agent start with the machine?",
    level=CRITICAL,
    why="After the next reboot nobody starts the PBX here, and nobody stands by.",
    mend="systemctl enable --now {unit}",
)
GUARD = Check(
    word="guard",
    asks="Does the guard run that stops a PBX whose agent is gone?",
    level=WARNING,
    why="If the agent dies or hangs on the active node, nothing stops its PBX when the other one takes over.",
    mend="systemctl enable --now {unit}",
)
PHASE = Check(
    word="phase",
    asks="Is this node active, or ready to be?",
    level=WARNING,
    why="A node in this phase does not take over.",
    mend="understudy why",
)
JOURNAL = Check(
    word="journal",
    asks="Can the journal be read, and does the agent write it?",
    level=CRITICAL,
    why="A node that cannot write what it is about to do does not do it.",
    mend="understudy status; ls -l {file}",
)

# Check points

CHECKPOINT_ANSWERS = Check(
    word="checkpoint-answers",
    asks="Can each check point be asked, about each node?",
    level=WARNING,
    why="Fewer than a majority of them answering, and the other node's death is never believed.",
    mend="on {checkpoint}: systemctl status nagios-nrpe-server; allowed_hosts= in nrpe.cfg must have both nodes",
)
CHECKPOINT_PLUGIN = Check(
    word="checkpoint-plugin",
    asks="Does each check point run check_sip?",
    level=WARNING,
    why="A plugin that only pings calls a dead PBX alive; one that wants a 200 calls a living one dead.",
    mend="on {checkpoint}, in nrpe.cfg: command[check_NODE]=/usr/lib/nagios/plugins/check_sip -H ADDRESS",
)
CHECKPOINT_SEES = Check(
    word="checkpoint-sees-active",
    asks="Does each check point see the active node up?",
    level=WARNING,
    why="A check point that is banned or cut off votes for the death of a healthy PBX: with all of them so, "
    "calls move for nothing, to a node that will be banned next.",
    mend="on {node}: fail2ban-client status asterisk, unban {checkpoint}; understudy init --install spares it",
)
CHECKPOINT_KNOWN = Check(
    word="checkpoint-known",
    asks="Does the PBX know the check points (200, not 401)?",
    level=WARNING,
    why="fail2ban bans whom the PBX does not know; with all check points banned a healthy PBX is taken for dead.",
    mend="on {node}: understudy init --install (the PBX then knows {checkpoint}, and fail2ban spares it)",
)
CHECKPOINT_STANDBY = Check(
    word="checkpoint-sees-standby",
    asks="Does no check point see the standby up?",
    level=CRITICAL,
    why="Two PBXs answer, or a check point asks the wrong host and would vote wrongly.",
    mend="understudy status, on both nodes; on {checkpoint}: compare the addresses in nrpe.cfg",
)
CERTIFICATE = Check(
    word="checkpoint-certificate",
    asks="Are the check points' certificates good for another two weeks?",
    level=WARNING,
    why="A check point with an expired certificate cannot be asked: its vote is lost.",
    mend="on {checkpoint}: renew the certificate of its NRPE daemon",
)

# Name servers

NAME = Check(
    word="name",
    asks="Does the service name lead to the active node, at every authoritative server?",
    level=CRITICAL,
    why="Callers who ask there reach a PBX that does not answer.",
    mend="understudy status; dig +norecurse @{server} {name}",
)
NAME_SERVERS = Check(
    word="name-servers",
    asks="Do all authoritative servers answer, with the same zone?",
    level=WARNING,
    why="After a failover, callers who ask a server that is behind still go to the dead node.",
    mend="dig +norecurse @{server} {zone} SOA; see its log",
)
NAME_TTL = Check(
    word="name-ttl",
    asks="Is the name's TTL at most the configured one?",
    level=WARNING,
    why="Resolvers go on sending callers to the dead node for as long as this.",
    mend="understudy switchover writes it anew; or by nsupdate: {name} with TTL {ttl}",
)
TSIG_MAY = Check(
    word="key-may",
    asks="May the TSIG key change the service name and the claim?",
    level=CRITICAL,
    why="Without this right a failover stops before the name has moved.",
    mend="in the zone {zone} on {server}: update-policy {{ grant {key} {right}; }};",
)
TSIG_NARROW = Check(
    word="key-no-more",
    asks="May the TSIG key change nothing else?",
    level=WARNING,
    why="Whoever gets hold of one PBX may rewrite the company's whole zone: mail, web, everything.",
    mend="in the zone {zone} on {server}, in place of what is there: update-policy {{ {policy} }};",
)
PRIMARY = Check(
    word="primary",
    asks="Is the configured server the one primary of the zone?",
    level=WARNING,
    why="With several primaries, or behind an anycast address, both nodes can win the claim at the same time.",
    mend='server = "ADDRESS" of the one primary, in [name] and [claim]',
)
PRIMARY_ADDRESS = Check(
    word="primary-address",
    asks="Is the primary given by its address?",
    level=NOTE,
    why="With the resolver down, the claim cannot be read and the name not moved.",
    mend='server = "{address}"',
)
PRIMARY_SITE = Check(
    word="primary-site",
    asks="Is the primary in another site than both nodes?",
    level=WARNING,
    why="When that site goes dark the claim goes with it, and the other node does not take over.",
    mend="move the zone's primary to a third place, and name it in [name] server",
)

# The PBX on this machine

PBX = Check(
    word="pbx",
    asks="Does the PBX run on the active node, and nowhere else?",
    level=CRITICAL,
    why="Calls go unanswered, or two PBXs answer them.",
    mend="understudy status; understudy why",
)
UNIT = Check(
    word="unit",
    asks="Is there the unit that the configuration names?",
    level=CRITICAL,
    why="What does not exist cannot be started, and nothing proves that it is stopped.",
    mend="systemctl status {unit}; then mend [service] unit or active_only",
)
UNIT_DISABLED = Check(
    word="unit-disabled",
    asks="Is the unit disabled at boot?",
    level=WARNING,
    why="A node that comes back at night starts its PBX before it knows whether the other one serves.",
    mend="systemctl disable {unit}",
)
UNIT_GUARDED = Check(
    word="unit-guarded",
    asks="Does may-start stand in front of the unit?",
    level=CRITICAL,
    why="A person's systemctl start, or a package upgrade, starts a second PBX.",
    mend="systemctl edit {unit}: [Service] ExecStartPre=+/usr/bin/understudy may-start --unit %n",
)
UNIT_RESTART = Check(
    word="unit-restart",
    asks="Is a PBX that died back before its node hands over?",
    level=WARNING,
    why="A crash that systemd would mend in a moment becomes a failover.",
    mend="systemctl edit {unit}: Restart=on-failure and RestartSec=1, or raise [detection] restart_grace",
)
UNIT_STOP = Check(
    word="unit-stop",
    asks="May the PBX take as long to stop as its unit says?",
    level=NOTE,
    why="Understudy kills the PBX after 70 % of stop_within, whatever the unit allows: measure that it ends "
    "by itself before.",
    mend="measure: time systemctl stop {unit}; then set [service] stop_within to at least twice that",
)
UNIT_PLACE = Check(
    word="unit-place",
    asks="Do units for the active node alone run there alone?",
    level=WARNING,
    why="Two nodes do what one should, such as mailing the same report or writing the same table.",
    mend="systemctl stop {unit}",
)
LAST_RESORT = Check(
    word="last-resort",
    asks="Could SIP be shut off by the packet filter?",
    level=WARNING,
    why="A PBX that cannot be stopped or killed can then not be silenced either: two serve.",
    mend="apt install nftables; the agent needs CAP_NET_ADMIN, or [service] use_sudo",
)

# The machine

SSH_FORCED = Check(
    word="way-forced",
    asks="Does the key for the other node open nothing but the door?",
    level=CRITICAL,
    why="Whoever gets hold of one PBX has a shell on the other.",
    mend='on {node}, before the key in authorized_keys: restrict,command="/usr/bin/understudy answer"',
)
SSH_FORWARDING = Check(
    word="way-forwarding",
    asks="Does that key forward no connections?",
    level=WARNING,
    why="Whoever gets hold of one PBX reaches whatever the other one can reach.",
    mend="on {node}, before the key in authorized_keys: restrict",
)
SSH = Check(
    word="way",
    asks="Does the way to the other node work, for the agent's user?",
    level=CRITICAL,
    why="Without it there is no switchover and no fence, and an ordered failover is refused.",
    mend="{command}",
)
DISK = Check(
    word="disk",
    asks="Is there room where the journal lies?",
    level=WARNING,
    why="A node that cannot write what it is about to do does not do it, and the PBX records nothing either.",
    mend="df -h {folder}; du -xsh {folder}/*",
)
INODES = Check(
    word="inodes",
    asks="Can files still be made where the journal lies?",
    level=WARNING,
    why="With no inode left a disk is full, whatever its free space.",
    mend="df -i {folder}",
)
SECRETS = Check(
    word="secrets",
    asks="Are keys and passwords readable by their owner and group alone?",
    level=CRITICAL,
    why="Whoever has an account here can move the company's calls.",
    mend="chmod o= {file}",
)
RSYNC = Check(
    word="rsync",
    asks="Is rsync there, where classes of data are copied by it?",
    level=CRITICAL,
    why="Nothing is copied, and the standby would start with old data.",
    mend="apt install rsync",
)
INOTIFY = Check(
    word="inotify",
    asks="Can changes be seen at once, where a class of data has on_change?",
    level=WARNING,
    why="The copy is as old as `every` says, not two seconds.",
    mend="apt install inotify-tools",
)
COPIER = Check(
    word="copier",
    asks="Is the copier at work?",
    level=CRITICAL,
    why="Without it the standby starts with data that grows older by the minute.",
    mend="systemctl enable --now understudy-copier; journalctl -u understudy-copier",
)
COPY_FRESH = Check(
    word="copy-fresh",
    asks="Is every class of data that was copied fresh enough?",
    level=CRITICAL,
    why="What was recorded since would be missing after a failover; a class that refuses keeps it from happening.",
    mend="journalctl -u understudy-copier",
)
COPY_READABLE = Check(
    word="copy-readable",
    asks="May the other node read all that is to be copied?",
    level=CRITICAL,
    why="A class of which one file cannot be read is not copied at all: half a copy is none.",
    mend="ls -l the file; id {user}; usermod -a -G GROUP {user}, or exclude it",
)
MARIADB_TOOLS = Check(
    word="mariadb-tools",
    asks="Are PyMySQL, mariadb-dump and mariadb-binlog there, where MariaDB is copied?",
    level=CRITICAL,
    why="The agent cannot open the database when it takes over, or a standby cannot be given the data anew.",
    mend="apt install mariadb-client",
)
MARIADB = Check(
    word="mariadb",
    asks="Can MariaDB be asked here, and is it 10.5.9 or later?",
    level=CRITICAL,
    why="A database that nobody can ask stays read-only after a failover: the PBX starts and records nothing.",
    mend="systemctl status mariadb",
)
MARIADB_RIGHTS = Check(
    word="mariadb-rights",
    asks="May the agent's user open, close and read MariaDB?",
    level=CRITICAL,
    why="It cannot open the database in a failover; or the other node is given a dump without all that is in it.",
    mend="understudy init --install",
)
MARIADB_PASSWORD = Check(
    word="mariadb-password",
    asks="Is the other node's password for MariaDB there, and closed to others?",
    level=CRITICAL,
    why="Without it this node cannot copy after the roles have changed; whoever reads it reads every database.",
    mend="copy {file} from the other node, then: chmod 600 {file}; understudy init --install",
)
MARIADB_SETTINGS = Check(
    word="mariadb-settings",
    asks="Is MariaDB set as copying needs it (binary log, GTID, server-id, TLS, semi-synchronous)?",
    level=CRITICAL,
    why="The other node cannot copy from this one, or rows that were acknowledged are gone after a failover.",
    mend="understudy init --install, then once: systemctl restart mariadb",
)
MARIADB_BOOT = Check(
    word="mariadb-boot",
    asks="Is MariaDB read-only when it starts?",
    level=CRITICAL,
    why="A node that comes back at night takes rows that the active one does not have: two databases, and neither "
    "is whole.",
    mend="understudy init --install, then once: systemctl restart mariadb",
)
MARIADB_DATABASES = Check(
    word="mariadb-databases",
    asks="Are the databases that are here those that the configuration names?",
    level=WARNING,
    why="What is written to another one is copied too, but a standby that is filled anew does not get it: from the "
    "first such row on it copies nothing.",
    mend="mend [copies.NAME] databases on both nodes, then there: understudy init --install",
)
MARIADB_TABLES = Check(
    word="mariadb-tables",
    asks="Is every table of the databases that are copied transactional?",
    level=CRITICAL,
    why="A power cut in the middle of a statement leaves half of it, on one node: the copy breaks or differs.",
    mend="on the active node: ALTER TABLE {table} ENGINE=InnoDB",
)
MARIADB_MERGE = Check(
    word="mariadb-merge",
    asks="Have the tables that are to be merged the key columns that are named?",
    level=WARNING,
    why="Rows that only the dead node had are kept aside after a failover, and not merged.",
    mend="mend [copies.NAME] merge",
)
MARIADB_WRITES = Check(
    word="mariadb-writes",
    asks="Does MariaDB take writes on the active node, and nowhere else?",
    level=CRITICAL,
    why="A row that is written on the standby stops the copying; where nobody takes writes nothing is recorded.",
    mend='mariadb -e "SET GLOBAL read_only = ON"; who writes here?  SHOW PROCESSLIST',
)
MARIADB_REPLICATION = Check(
    word="mariadb-replication",
    asks="Does the standby's MariaDB copy from the active one's?",
    level=CRITICAL,
    why="Every row since it stopped would be missing after a failover.",
    mend='journalctl -u understudy-copier; mariadb -e "SHOW SLAVE STATUS\\G"',
)
MARIADB_SEMI_SYNC = Check(
    word="mariadb-semi-sync",
    asks="Does the standby have each row before it is acknowledged?",
    level=WARNING,
    why="What was recorded in the last moments before a failover may be lost, though the PBX was told that it is safe.",
    mend="understudy doctor, on the standby: does it copy?",
)

MAIL = Check(
    word="mail",
    asks="Does a message go out, by every way that is configured?",
    level=CRITICAL,
    why="Nobody is told of a failover, or that there is nobody left to take over.",
    mend="mend [notify], then: understudy doctor --mail",
)

CHECKS: Mapping[str, tuple[Check, ...]] = {
    "Both nodes": (
        OTHER_NODE,
        CONFIGURATION,
        SETTINGS,
        CONFIGURATION_NOTES,
        VERSIONS,
        CLOCKS,
        NTP,
    ),
    "The claim and the agent": (
        CLAIM,
        CLAIM_ANNOUNCED,
        CLAIM_EPOCH,
        CLAIM_DIGEST,
        PAUSE,
        BREAK_GLASS,
        AGENT,
        AGENT_AT_BOOT,
        GUARD,
        PHASE,
        JOURNAL,
    ),
    "Check points": (
        CHECKPOINT_ANSWERS,
        CHECKPOINT_PLUGIN,
        CHECKPOINT_SEES,
        CHECKPOINT_KNOWN,
        CHECKPOINT_STANDBY,
        CERTIFICATE,
    ),
    "Name servers": (
        NAME,
        NAME_SERVERS,
        NAME_TTL,
        TSIG_MAY,
        TSIG_NARROW,
        PRIMARY,
        PRIMARY_ADDRESS,
        PRIMARY_SITE,
    ),
    "The PBX": (
        PBX,
        UNIT,
        UNIT_DISABLED,
        UNIT_GUARDED,
        UNIT_RESTART,
        UNIT_STOP,
        UNIT_PLACE,
        LAST_RESORT,
    ),
    "The copy of the data": (RSYNC, INOTIFY, COPIER, COPY_FRESH, COPY_READABLE),
    "MariaDB": (
        MARIADB_TOOLS,
        MARIADB,
        MARIADB_RIGHTS,
        MARIADB_PASSWORD,
        MARIADB_SETTINGS,
        MARIADB_BOOT,
        MARIADB_DATABASES,
        MARIADB_TABLES,
        MARIADB_MERGE,
        MARIADB_WRITES,
        MARIADB_REPLICATION,
        MARIADB_SEMI_SYNC,
    ),
    "The machine": (SSH, SSH_FORCED, SSH_FORWARDING, DISK, INODES, SECRETS, MAIL),
}
