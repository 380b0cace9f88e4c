"""What hypothesis draws from: addresses, MACs and rows of every kind."""

from __future__ import annotations

from hypothesis import strategies as st

from myoverlay.values import Address, Fdb, Mac, Neigh

v4 = st.binary(min_size=4, max_size=4).map(Address.unpack)
v6 = st.binary(min_size=16, max_size=16).map(Address.unpack)
addresses = st.one_of(v4, v6)
macs = st.binary(min_size=6, max_size=6).filter(lambda raw: not raw[0] & 1 and any(raw)).map(Mac.unpack)
neighs = st.builds(Neigh, address=addresses, mac=macs)
fdbs = st.builds(Fdb, mac=macs, vtep=addresses)
rows = st.one_of(neighs, fdbs)
