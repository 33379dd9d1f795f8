"""What the demo's PBX records is counted by what it wrote down beside it."""

from pathlib import Path

from understudy.demo.data import (
    AGENT_EVERY,
    Kept,
    Recorder,
    database,
    kept,
    kept_in_place,
    recorded,
)


def test_every_item_is_in_its_place_and_in_the_ledger(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "pbx01")
    assert kept_in_place(tmp_path) == Kept()
    for _ in range(AGENT_EVERY):
        recorder.call()
    found = kept_in_place(tmp_path)
    assert str(found) == "5 messages, 1 agents"
    assert recorded([tmp_path]) == found.all
    assert kept(tmp_path) == found


def test_a_pbx_that_starts_again_records_nothing_under_an_old_name(tmp_path: Path) -> None:
    for _ in range(3):
        recorder = Recorder(tmp_path, "pbx01")
        for _ in range(7):
            recorder.call()
    names = (tmp_path / "recorded").read_text().splitlines()
    assert len(names) == len(set(names)) >= 3
    assert recorded([tmp_path]) == kept_in_place(tmp_path).all


def test_what_is_kept_aside_counts_and_what_is_gone_does_not(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "pbx01")
    for _ in range(5):
        recorder.call()
    (message,) = recorded([tmp_path])
    place = tmp_path / "voicemail" / message
    aside = tmp_path / "copies/voicemail/aside/x/root/voicemail"
    aside.mkdir(parents=True)
    place.rename(aside / message)
    assert kept_in_place(tmp_path).all == frozenset()
    assert kept(tmp_path).all == {message}
    (aside / message).unlink()
    database(tmp_path).write_bytes(b"no database")
    assert kept(tmp_path).all == frozenset()
