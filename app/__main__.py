"""`python -m app …` is `coseat …`."""

from app.commands import main

main()
