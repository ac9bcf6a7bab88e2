"""Run `verification.convergence.convergence` as a command."""

from verification.convergence.convergence import main

raise SystemExit(main())
