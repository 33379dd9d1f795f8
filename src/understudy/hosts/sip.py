"""The PBXs must know the check points: an answer of 200 says more than 401, and strangers get banned."""

from understudy.config.schema import Config
from understudy.config.values import is_ip

from .piece import Choices, PbxKind, Piece

ASTERISK = "/etc/asterisk/understudy-checks.conf"
FAIL2BAN = "/etc/fail2ban/jail.d/understudy.local"


def pieces(config: Config, choices: Choices) -> tuple[Piece, ...]:
    addresses = askers(config)
    if not addresses:
        return ()
    found = []
    for node in config.nodes:
        match choices.pbx:
            case PbxKind.ASTERISK:
                found.append(_asterisk(node, addresses))
            case PbxKind.FREESWITCH:
                found.append(_freeswitch(node, addresses))
            case PbxKind.KAMAILIO:
                found.append(_kamailio(node, addresses))
            case PbxKind.OTHER:
                found.append(_other(node, addresses))
        found.append(_fail2ban(node, addresses))
    return tuple(found)


def askers(config: Config) -> tuple[str, ...]:
    """From where the nodes are asked by SIP: the check points, or the nodes themselves."""
    found = [getattr(c.settings, "address", None) for c in config.checkpoints.values()]
    if any(chosen.kind == "sip" for chosen in config.checkpoints.values()):
        found += [node.address for node in config.nodes.values()]
    return tuple(dict.fromkeys(str(each) for each in found if each))


def _asterisk(node: str, addresses: tuple[str, ...]) -> Piece:
    matches = "\n".join(f"match={each}" for each in addresses)
    # FreePBX writes pjsip.conf anew; its custom file is for people.
    include = (
        "cd /etc/asterisk; f=pjsip.conf; test -e pjsip_custom.conf && f=pjsip_custom.conf; "
        "grep -qsx '#tryinclude understudy-checks.conf' $f || "
        "printf '\\n#tryinclude understudy-checks.conf\\n' >>$f"
    )
    return Piece(
        host=node,
        path=ASTERISK,
        text=(
            "; Understudy (understudy init): the check points.  They send OPTIONS, and get 200; to any other\n"
            "; call of theirs there is no extension in this context.\n"
            "[understudy-checks]\ntype=endpoint\ncontext=understudy-checks\ndisallow=all\nallow=ulaw\n\n"
            f"[understudy-checks]\ntype=identify\nendpoint=understudy-checks\n{matches}\n"
        ),
        why="Asterisk knows the check points: OPTIONS gets 200, and a stop in progress shows as 503.",
        then=(include, "asterisk -rx 'pjsip reload' || true"),
        only_if="/etc/asterisk",
    )


def _freeswitch(node: str, addresses: tuple[str, ...]) -> Piece:
    return Piece(
        host=node,
        why="FreeSWITCH should answer the check points' OPTIONS with 200.",
        by_hand=(
            "where the SIP profile has auth-all-packets: an ACL with "
            f"{', '.join(addresses)} in acl.conf.xml, named by apply-inbound-acl of the profile",
        ),
    )


def _kamailio(node: str, addresses: tuple[str, ...]) -> Piece:
    known = " || ".join(f'$si == "{each}"' for each in addresses)
    return Piece(
        host=node,
        why="Kamailio should answer the check points' OPTIONS with 200 before it asks who they are.",
        by_hand=(
            "first in request_route of kamailio.cfg, with siputils.so loaded: "
            f'if (is_method("OPTIONS") && uri==myself && ({known})) {{ options_reply(); exit; }}',
        ),
    )


def _other(node: str, addresses: tuple[str, ...]) -> Piece:
    return Piece(
        host=node,
        why="The PBX should answer the check points' OPTIONS with 200.",
        by_hand=(f"let it know {', '.join(addresses)}",),
    )


def _fail2ban(node: str, addresses: tuple[str, ...]) -> Piece:
    """ignorecommand, because ignoreip of a drop-in would replace the administrator's own.

    (`%(known/ignoreip)s` would keep it, but stops fail2ban where nobody has set one; tried with 1.0.2.)
    """
    numbers = [each for each in addresses if is_ip(each)]
    names = [each for each in addresses if not is_ip(each)]
    tests = " || ".join(f'[ "<ip>" = {each} ]' for each in numbers) or "false"
    return Piece(
        host=node,
        path=FAIL2BAN,
        text=(
            "# Understudy (understudy init): who is never banned, beside those in ignoreip.\n"
            f"[DEFAULT]\nignorecommand = {tests}\n"
        ),
        why="A check point that is banned cannot see this node any more.",
        then=("fail2ban-client reload || true",),
        by_hand=tuple(f"{each} is a name: add its address to ignoreip" for each in names),
        only_if="/etc/fail2ban",
    )
