"""`run` and `tick`: the agent."""

import click

from .session import Session, pass_session


@click.command()
@pass_session
def run(session: Session) -> int:
    """Be the agent of this node: the daemon, for systemd.

    SIGTERM ends it and leaves the PBX exactly as it is.
    """
    from understudy.runtime import daemon

    session.insist_on_files()
    for note in session.config.notes:
        click.echo(note, err=True)
    return daemon.run_daemon(session.node)


@click.command()
@pass_session
def tick(session: Session) -> int:
    """Make one round and end: for cron, once per interval.

    It stays longer where a failover is near or under way, and ends at once when another agent is at
    work.
    """
    from understudy.runtime import daemon

    session.insist_on_files()
    return daemon.run_tick(session.node)
