"""Run `verification.simulation.schedules` as a command."""

from verification.simulation.schedules import main

raise SystemExit(main())
