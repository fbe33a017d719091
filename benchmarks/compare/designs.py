"""Two applications as call trees, each once for bare cgroups and once of real software in containers.

``shop`` is shaped like HipsterShop and TeaStore: a front end that asks many others at once.  ``media`` is
shaped like DeathStarBench's media service: chains of calls, one after the other.

In bare cgroups all services are one program (``service``), which does as much work as it is told.  In
containers nginx is in front, redis and PostgreSQL are at the ends, and the services between them do work of
their trade (``inside``): the same units, about a fifth of a millisecond of CPU each.
"""

from benchmarks.compare.applications import Call, Design

# ---- in bare cgroups ---------------------------------------------------------------

_CATALOG = Call("catalog", 5)
_RECOMMENDED = Call("recommendation", 8, ((_CATALOG,),), hold_kib=128)
SHOP = Design(
    "shop",
    {
        "home": Call(
            "frontend", 8, ((_CATALOG, Call("currency", 2), Call("cart", 3)), (Call("ads", 4),)), 64
        ),
        "product": Call(
            "frontend",
            7,
            ((Call("catalog", 3), Call("currency", 3), Call("cart", 2)), (_RECOMMENDED, Call("ads", 4))),
            64,
        ),
        "basket": Call(
            "frontend", 6, ((Call("cart", 5), Call("shipping", 4), Call("currency", 3)), (_RECOMMENDED,)), 64
        ),
        "checkout": Call(
            "frontend",
            7,
            (
                (
                    Call(
                        "checkout",
                        7,
                        (
                            (Call("cart", 3), Call("catalog", 4)),
                            (Call("currency", 3), Call("shipping", 5)),
                            (Call("payment", 9),),
                            (Call("email", 8), Call("cart", 2)),
                        ),
                        128,
                    ),
                ),
            ),
            64,
        ),
    },
    {"home": 0.5, "product": 0.3, "basket": 0.12, "checkout": 0.08},
)


def _chain(*links: tuple[str, int]) -> Call:
    (service, work), *rest = links
    return Call(service, work, ((_chain(*rest),),) if rest else (), 64)


MEDIA = Design(
    "media",
    {
        "compose": Call(
            "gateway",
            5,
            (
                (_chain(("user", 3), ("login", 4)), Call("unique-id", 1), Call("text", 8, hold_kib=256)),
                (_chain(("movie-id", 3), ("rating", 3), ("compose", 6), ("reviews", 8), ("timeline", 5)),),
            ),
            128,
        ),
        "page": Call(
            "gateway", 4, ((_chain(("page", 6), ("movie-info", 6), ("plot", 4), ("reviews", 6)),),), 128
        ),
        "timeline": _chain(("gateway", 4), ("user", 2), ("timeline", 6), ("reviews", 5)),
    },
    {"compose": 0.4, "page": 0.4, "timeline": 0.2},
)

BARE = {design.name: design for design in (SHOP, MEDIA)}

# ---- in containers -----------------------------------------------------------------


def _asking(service: str, work: int, store: str, statements: int, hold_kib: int = 32) -> Call:
    """A service in front of a database."""
    return Call(service, work, ((Call(store, statements, hold_kib=0),),), hold_kib)


def _front(call: Call) -> Call:
    return Call("nginx", 0, ((call,),), 0)


_LISTED = _asking("catalog", 2, "postgres", 2)
_CART = _asking("cart", 1, "redis", 2)
_ALSO_BOUGHT = Call(
    "recommendation", 4, ((Call("postgres", 1, hold_kib=0), _asking("catalog", 1, "postgres", 1)),), 128
)
_CHECKOUT = Call(
    "checkout",
    5,
    (
        (_asking("cart", 2, "redis", 3), _asking("catalog", 2, "postgres", 3)),
        (Call("currency", 4),),
        (Call("postgres", 3, hold_kib=0),),
        (_asking("cart", 1, "redis", 1),),
    ),
    128,
)
REAL_SHOP = Design(
    "shop",
    {
        "home": _front(Call("frontend", 8, ((_LISTED, _CART), (Call("currency", 2),)), 64)),
        "product": _front(
            Call(
                "frontend",
                7,
                ((_asking("catalog", 1, "postgres", 1), _CART), (_ALSO_BOUGHT, Call("currency", 2))),
                64,
            )
        ),
        "basket": _front(
            Call("frontend", 6, ((_asking("cart", 2, "redis", 4), Call("currency", 4)), (_ALSO_BOUGHT,)), 64)
        ),
        "checkout": _front(Call("frontend", 5, ((_CHECKOUT,),), 64)),
        "image": _front(Call("images", 25, hold_kib=64)),
    },
    {"home": 0.3, "product": 0.25, "basket": 0.1, "checkout": 0.07, "image": 0.28},
)

_KEPT_TIMELINE = _asking("timeline", 3, "redis", 2)
_USER = _asking("user", 3, "redis", 1)
_COMPOSED = Call(
    "movie",
    2,
    (
        (Call("postgres", 1, hold_kib=0),),
        (
            Call(
                "rating",
                2,
                (
                    (Call("redis", 1, hold_kib=0),),
                    (Call("compose", 4, ((Call("postgres", 2, hold_kib=0),), (_KEPT_TIMELINE,)), 64),),
                ),
            ),
        ),
    ),
    64,
)
REAL_MEDIA = Design(
    "media",
    {
        # The longest way: nginx, gateway, user, movie, rating, compose, timeline, redis.
        "compose": _front(
            Call(
                "gateway",
                4,
                (
                    (Call("text", 6, hold_kib=256),),
                    (Call("user", 3, ((Call("redis", 1, hold_kib=0),), (_COMPOSED,))),),
                ),
                128,
            )
        ),
        "page": _front(
            Call(
                "gateway",
                6,
                (
                    (
                        Call(
                            "movie",
                            2,
                            (
                                (Call("postgres", 1, hold_kib=0),),
                                (_asking("plot", 3, "postgres", 2), _asking("reviews", 4, "postgres", 2)),
                            ),
                            64,
                        ),
                    ),
                ),
                128,
            )
        ),
        "timeline": _front(
            Call("gateway", 4, ((_USER,), (_KEPT_TIMELINE,), (_asking("reviews", 3, "postgres", 1),)), 64)
        ),
        "poster": _front(Call("images", 15, hold_kib=64)),
    },
    {"compose": 0.35, "page": 0.3, "timeline": 0.15, "poster": 0.2},
)
REAL = {design.name: design for design in (REAL_SHOP, REAL_MEDIA)}
