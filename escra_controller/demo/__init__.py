"""``escra demo``: three services whose load moves, under fixed limits and then under Escra."""
