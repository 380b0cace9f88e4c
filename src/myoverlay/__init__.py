"""myoverlay: one network for the containers of many plain Docker hosts."""

__version__ = "0.1.0"
