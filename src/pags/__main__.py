"""`python -m pags`."""

from pags.cli import main

main()
