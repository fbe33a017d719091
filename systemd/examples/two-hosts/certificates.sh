#!/bin/sh
# On the controller's machine, as root: a CA, and a certificate for each part.  Which file goes where is
# printed, and in the README under "TLS in five minutes".  ca.key stays here.
set -eu
escra-controller pki init
escra-controller pki issue --controller ctl --ip 192.0.2.10
escra-controller pki issue host-1
escra-controller pki issue host-2
