"""``python -m lmflow_core``: the command line, in the form that ``torchrun -m`` needs."""

from lmflow_core.cli.main import main

if __name__ == "__main__":
    main()
