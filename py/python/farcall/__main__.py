"""`python -m farcall report QUESTION`: the same JSON as `farcall report QUESTION --json`."""

from __future__ import annotations

import argparse
import json
import sys

from farcall import report


def main() -> int:
    """Prints one report."""
    parser = argparse.ArgumentParser(prog="python -m farcall", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    ask = commands.add_parser("report", help="print a report as JSON; the program `farcall` prints tables")
    ask.add_argument(
        "question",
        help="vendors, endpoints, customers, callers, coverage, calls, incidents, quotas, budgets, notices, "
        "findings, advise or all",
    )
    ask.add_argument("filters", nargs="*", metavar="FILTER", help="vendor=stripe, 'status>=500'")
    ask.add_argument("--since", default="1h", help="15m, 1h, 7d")
    ask.add_argument("--limit", type=int, default=50, help="the most single calls, quotas or notices")
    ask.add_argument("--home", help="the ledger's folder (default: FARCALL_HOME, else the XDG state folder)")
    asked = parser.parse_args()
    try:
        answer = report(asked.question, asked.since, asked.filters, asked.limit, asked.home)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"farcall: {error}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
