"""`python -m edgeasr`: the same as the program `edgeasr`."""

from edgeasr.cli.start import main

if __name__ == "__main__":
    main()
