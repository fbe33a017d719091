"""``escra top``: the whole system on one screen, live."""
