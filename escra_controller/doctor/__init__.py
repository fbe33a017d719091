"""`escra doctor`: is this host fit for Escra, and is Escra well on it?"""
