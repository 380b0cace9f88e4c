"""How the managed plugin is built: `python3 -m plugin build` makes what `docker plugin create` takes.

The root file system is picked, not installed: an interpreter, the libraries it and its extension modules are linked
with, `nft`, a shell, the locked dependencies and our own package. See README.md beside this file.
"""
