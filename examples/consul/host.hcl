# What myoverlay's host HOST_ID may do in Consul: `myoverlay host policy` prints it.
key_prefix "myoverlay/" { policy = "read" }                 # all hosts read all
key "myoverlay/alive/HOST_ID" { policy = "write" }          # this host's own: that it is there
key_prefix "myoverlay/hosts/HOST_ID/" { policy = "write" }  # this host's own: its endpoints
key_prefix "myoverlay/overlays/" { policy = "write" }       # definitions, members, rings of changes, and the arp/ and fib/ index
key_prefix "myoverlay/subnets/" { policy = "write" }        # pools
key_prefix "myoverlay/pools/" { policy = "write" }          # leases
key_prefix "myoverlay/vni/" { policy = "write" }            # which overlay has a VNI
key_prefix "myoverlay/incarnation" { policy = "write" }     # which store this is, and questions to all hosts
key_prefix "myoverlay/witness/" { policy = "write" }        # that a host is heard which is cut off
key_prefix "myoverlay/networks" { policy = "write" }        # networks of all hosts
key_prefix "myoverlay/answers/" { policy = "write" }        # answers
key_prefix "myoverlay/outlooks/" { policy = "write" }       # what hosts see of each other, while somebody looks
key_prefix "myoverlay/path-answers/" { policy = "write" }   # answers about paths
key_prefix "myoverlay/seek-answers/" { policy = "write" }   # answers about names
session_prefix "" { policy = "write" }                      # the session that tells that it is there; better: of its own agent alone
