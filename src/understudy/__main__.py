"""The program: `understudy`, `python -m understudy`."""

import sys

from understudy import knock


def main() -> int:
    arguments = sys.argv[1:]
    if knock.is_request(arguments):
        status = knock.knock(arguments)
        if status is not None:
            return status
    from understudy.cli.main import main as all_of_it  # Heavy: a doorkeeper has it loaded.

    return all_of_it()


if __name__ == "__main__":
    sys.exit(main())
