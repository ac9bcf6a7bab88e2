"""What `coseat dev` adds to the API in its own process: the portal at `/`, and the routes under `/dev`.

On a developer's machine the process stands for the application that uses Coseat. It signs the tokens of its people,
receives events, and shows what it would have sent by mail. `coseat serve` has none of this. Its routes are in
docs/reference/development.md.
"""

from typing import Final

ENDPOINT_FILE: Final = "webhook-endpoint.json"
"""The file in the state's directory with the id and the signing secret of the application's own webhook endpoint."""
RECEIVED_FILE: Final = "received-events.jsonl"
"""The file beside it with the events that have arrived there."""
