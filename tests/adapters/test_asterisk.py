"""What Asterisk's console prints, from a stand-in for the program; the real one is in the laboratory."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from understudy.adapters import asterisk
from understudy.cli.main import main
from understudy.errors import Denied, Unreachable

HEAD = """
 Endpoint:  <Endpoint/CID.....................................>  <State.....>  <Channels.>
    I/OAuth:  <AuthId/UserName...........................................................>
        Aor:  <Aor............................................>  <MaxContact>
      Contact:  <Aor/ContactUri..........................> <Hash....> <Status> <RTT(ms)..>
  Transport:  <TransportId........>  <Type>  <cos>  <tos>  <BindAddress..................>
   Identify:  <Identify/Endpoint.........................................................>
        Match:  <criteria.........................>
    Channel:  <ChannelId......................................>  <State.....>  <Time.....>
        Exten: <DialedExten...........>  CLCID: <ConnectedLineCID.......>
==========================================================================================

"""
TABLE = f"""{HEAD} Endpoint:  101/101                                              Not in use    0 of inf
     InAuth:  auth101/101
        Aor:  101                                                1
      Contact:  101/sip:101@192.0.2.101:5060               3a5b1c9d7e Avail        12.345
  Transport:  udp                       udp      3     96  0.0.0.0:5060

 Endpoint:  102                                                  Unavailable   0 of inf
     InAuth:  auth102/102
        Aor:  102                                                1

 Endpoint:  103/Reception                                        Unavailable   0 of 1
        Aor:  desk                                               2
      Contact:  desk/sip:103@198.51.100.3:5061;transport=t  1111111111 NonQual         nan
      Contact:  desk/sip:103@198.51.100.4:5062;transport=t  2222222222 Created       0.000

 Endpoint:  trunk one                                            In use        1 of inf
        Aor:  trunk one                                          0
      Contact:  trunk one/sip:203.0.113.9                  4444444444 Unavail       0.000
   Identify:  trunk one/trunk one
        Match: 203.0.113.9/32
    Channel: PJSIP/trunk one-00000001/Dial                Up            00:00:07
        Exten: 4930123456                CLCID: "A" <101>

 Endpoint:  a-name-that-is-longer-than-the-column-of-the-table-  Not in use    0 of inf
        Aor:  a-name-that-is-longer-than-the-column-of-the-t     1
      Contact:  a-name-that-is-longer-than-the-column-of-the-table-is/sip:9@192.0.2.9:5060 5555555555 Avail  1.000


Objects found: 5

"""
NAMES = (
    "101",
    "103",
    "trunk one",
    "a-name-that-is-longer-than-the-column-of-the-table-is",
)
STAND_IN = """#!/bin/sh
# asterisk -rx COMMAND
cd {folder} || exit 9
printf '%s\\n' "$2" >>asked
case "$2" in
"core waitfullybooted")
    test -e deaf || test -e shy && {{
        rm -f shy
        echo "Unable to connect to remote asterisk (does /run/asterisk/asterisk.ctl exist?)" >&2
        exit 1
    }}
    test -e slow && exec sleep 100
    echo "Asterisk has fully booted." ;;
"pjsip show endpoints") cat table ;;
"pjsip qualify "*)
    mkdir running/$$; ls running | wc -l >>beside; sleep 0.2; rmdir running/$$
    test -e stuck && exec sleep 100
    case "$2" in
    *102) echo "Unable to retrieve endpoint 102" ;;
    *) echo "Qualifying AOR 'x' on endpoint 'x'" ;;
    esac ;;
*) echo "No such command '$2' (type 'core show help $2' for other possible commands)" ;;
esac
"""


class StandIn:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prints(self, table: str) -> None:
        (self.folder / "table").write_text(table)

    def has(self, state: str) -> None:
        (self.folder / state).touch()

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()

    @property
    def most_at_once(self) -> int:
        return max(map(int, (self.folder / "beside").read_text().split()))


@pytest.fixture
def pbx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    folder = tmp_path / "pbx"
    (folder / "running").mkdir(parents=True)
    program = tmp_path / "bin" / "asterisk"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    made = StandIn(folder)
    made.prints(TABLE)
    return made


def listed() -> tuple[str, ...]:
    return asyncio.run(asterisk.endpoints_with_contact())


def test_endpoints_with_a_contact_are_found_by_their_own_names(pbx: StandIn) -> None:
    assert listed() == NAMES


@pytest.mark.parametrize("table", ["No objects found.\n\n", HEAD])
def test_nobody_there_is_no_trouble(pbx: StandIn, table: str) -> None:
    pbx.prints(table)
    assert listed() == ()


def test_an_asterisk_without_pjsip_has_none(pbx: StandIn) -> None:
    pbx.prints(
        "No such command 'pjsip show endpoints' (type 'core show help pjsip show' for others)\n"
    )
    assert listed() == ()


def test_what_is_no_list_is_told(pbx: StandIn) -> None:
    pbx.prints("Unable to connect to remote asterisk (does /run/asterisk/asterisk.ctl exist?)\n")
    with pytest.raises(Denied, match="does not list its endpoints: Unable to connect"):
        listed()


def test_a_company_of_thousands_is_read_whole(pbx: StandIn) -> None:
    block = TABLE[len(HEAD) :].partition("\n\n")[0]
    pbx.prints(HEAD + "\n\n".join(block.replace("101", str(n)) for n in range(10_000, 12_000)))
    assert listed() == tuple(str(number) for number in range(10_000, 12_000))


def test_all_are_qualified_a_few_at_once(pbx: StandIn) -> None:
    names = [f"{number}" for number in range(200, 230)]
    assert asyncio.run(asterisk.qualify(names)) == {}
    assert sorted(pbx.asked) == [f"pjsip qualify {name}" for name in names]
    assert 1 < pbx.most_at_once <= asterisk.AT_ONCE


def test_names_come_as_one_word(pbx: StandIn) -> None:
    asyncio.run(asterisk.qualify(["trunk one", 'a"b\\c', "101"]))
    assert sorted(pbx.asked) == [
        r'pjsip qualify "a\"b\\c"',
        'pjsip qualify "trunk one"',
        "pjsip qualify 101",
    ]


def test_those_that_fail_are_told_and_the_others_done(pbx: StandIn) -> None:
    failed = asyncio.run(asterisk.qualify(["101", "102", "103"]))
    assert failed == {"102": "Unable to retrieve endpoint 102"}
    assert len(pbx.asked) == 3


def test_an_asterisk_that_hangs_holds_nobody_up(
    pbx: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx.has("stuck")
    monkeypatch.setattr(asterisk, "ALL_WITHIN", 1.0)
    monkeypatch.setattr(asterisk, "AT_ONCE", 2)
    names = [f"{number}" for number in range(200, 206)]
    failed = asyncio.run(asterisk.qualify(names))
    assert list(failed) == names
    assert "did not end within" in failed["200"]
    assert failed["205"] == "it was not reached within 1 s"


def test_a_start_is_waited_for(pbx: StandIn) -> None:
    pbx.has("shy")
    asyncio.run(asterisk.booted(60))
    assert len(pbx.asked) == 2


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("deaf", "did not answer within 0.5 s: Unable to connect"),
        ("slow", "still starting after 0.5 s"),
    ],
)
def test_a_start_is_not_waited_for_for_ever(pbx: StandIn, state: str, said: str) -> None:
    pbx.has(state)
    with pytest.raises(Unreachable, match=said):
        asyncio.run(asterisk.booted(0.5))


# The verb


def test_the_verb_says_how_many_and_which_failed(
    pbx: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    pbx.prints(TABLE.replace("102  ", "102x ").replace("101", "102"))
    assert main(["qualify"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("qualify: 3 of 4 endpoints, ")
    assert said.err == "qualify: not 102: Unable to retrieve endpoint 102\n"


def test_the_verb_for_scripts(pbx: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qualify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "qualified": 4, "failed": {}}
    assert pbx.asked[:2] == ["core waitfullybooted", "pjsip show endpoints"]


def test_the_verb_without_phones(pbx: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    pbx.prints(HEAD)
    assert main(["qualify"]) == 0
    assert "no PJSIP endpoint has a contact" in capsys.readouterr().out


def test_the_verb_without_an_asterisk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("understudy.adapters.processes.SYSTEM_FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["qualify"]) == 3
    assert "cannot run asterisk" in capsys.readouterr().err
