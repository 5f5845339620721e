"""`python -m fiberscope`."""

from fiberscope.cli import main

if __name__ == "__main__":
    main()
