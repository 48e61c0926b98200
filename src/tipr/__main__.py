"""`python -m tipr` is the `tipr` command."""

from tipr.cli import main

if __name__ == "__main__":
    main()
