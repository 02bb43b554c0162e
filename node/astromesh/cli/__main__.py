"""`python -m astromesh.cli`."""

from astromesh.cli import main

main()
