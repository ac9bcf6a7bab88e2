"""How fast the service is, beside the fastest thing that could stand in its place on the same machine.

Absolute numbers say more of the machine than of the code, and a shared machine drifts by half within minutes. So
every benchmark runs its targets in turn, round after round, and reports the ratio within each round.
"""
