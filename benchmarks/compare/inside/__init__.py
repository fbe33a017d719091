"""What runs inside the containers of ``compare --docker``, with Debian's Python and libraries.

Only these modules, ``compare.httpwire`` and the standard library are there: nothing of the project's.
"""
