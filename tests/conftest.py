"""What all layers stand on."""

from hypothesis import settings

# An example takes as long as it takes: a machine that stands still for 0.3 s fails nothing.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")
