"""`python -m verification.adversary.canaries`: planted secrets and personal data, and where they turn up.

Processes and commands run at LOG_LEVEL=debug, with the SDK's own debugging asked for, through a lively day: every
route, refusals of every kind, a Stripe and webhook endpoints whose answers repeat what they were sent, rows that
Postgres refuses, lost connections, killed processes. Then everything that was printed, every error answer, the metrics,
the server's log, every column of every table, and all events as they were posted, read and shown are searched. One JSON
line; exit code 1 where a mark stands anywhere but in a column that is named for it, or in a posted invitation, or where
an event has a field that no catalogue lists.
"""

import argparse
import json
import sys
import time

from testkit.simulator import running_simulator
from verification.adversary.canary_day import Day, Found
from verification.adversary.grounds import server_at_hand


def report(found: Found, seconds: float) -> dict[str, object]:
    return {
        "benchmark": "canaries",
        "passed": not found.hits and not found.unseen,
        "canaries": len(found.canaries),
        "hits": len(found.hits),
        "where": found.hits,
        "kept_where_allowed": sum(len(columns) for columns in found.kept.values()),
        "not_planted": found.unseen,
        "processes": found.processes,
        "log_bytes": found.log_bytes,
        "error_answers": found.error_answers,
        "metrics_bytes": found.metrics_bytes,
        "events": sum(found.events.values()),
        "columns": found.columns,
        "rows": found.rows,
        "seconds": round(seconds, 1),
    }


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    started = time.monotonic()
    with running_simulator() as simulator, server_at_hand() as (server_url, log):
        found = Day(simulator, server_url, log).run()
    told = report(found, time.monotonic() - started)
    print(json.dumps(told))
    return 0 if told["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
