"""`python3 -m myoverlay` is `myoverlay`."""

from myoverlay.cli.main import main

if __name__ == "__main__":
    main()
