"""Escra's rule, its peers' and fixed limits, under the same Ω and the same load, on this machine's cgroups.

An application of small services runs in cgroups of their own (``applications``), a policy is put in force
(``regimes``), requests come at times that were planned (``schedules``, ``generator``), and what happens is
seen from outside (``observer``).  Functions in short-lived containers have parts of their
own (``serverless``).  This file imports nothing: the services import it, too.
"""
