"""Lets ``python -m lmflow_core.testing`` run the contracts of a plugin."""

import sys

from lmflow_core.testing.checking import main

main(sys.argv[1:])
