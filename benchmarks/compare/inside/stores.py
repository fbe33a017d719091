"""What each service asks of PostgreSQL and of redis; a unit is one statement, or one round of commands."""

import asyncio
import json
import random
from typing import Any, Protocol

import asyncpg
import redis.asyncio

Row = dict[str, Any]

# As many as postgres.sql makes.
PRODUCTS = 2000
KINDS = 40
USERS = 500
MOVIES = 800

_STATEMENTS = {
    "catalog": "SELECT id, name, price::float, stock FROM products WHERE kind = $1 ORDER BY price LIMIT 12",
    "recommendation": "SELECT b.product AS id, count(*) AS times FROM items a JOIN items b USING (purchase)"
    " WHERE a.product = $1 AND b.product <> $1 GROUP BY b.product ORDER BY times DESC LIMIT 5",
    "checkout": "WITH sold AS (UPDATE products SET stock = stock - 1 WHERE id = $1 RETURNING id, price),"
    " bought AS (INSERT INTO purchases (buyer) VALUES (1) RETURNING id)"
    " INSERT INTO items SELECT bought.id, sold.id, sold.price FROM bought, sold"
    " RETURNING purchase AS id, price::float",
    "movie": "SELECT id, title, year FROM movies WHERE id BETWEEN $1 AND $1 + 10",
    "plot": "SELECT id, plot FROM movies WHERE id = $1",
    "reviews": "SELECT movie AS id, stars, body FROM reviews WHERE movie = $1 ORDER BY id DESC LIMIT 10",
    "compose": "INSERT INTO reviews (movie, stars, body) VALUES ($1, 4, repeat('well made ', 20))"
    " RETURNING movie AS id, stars",
}
_HIGHEST = {"catalog": KINDS, "recommendation": PRODUCTS, "checkout": PRODUCTS}

# A cart, a timeline and what somebody looked at are forgotten after so long: redis grows and falls with use.
KEEP_S = 3
SEEN = b"\xff" * (24 << 10)


class Store(Protocol):
    async def ask(self, units: int) -> list[Row]:
        """What came of ``units`` statements."""
        ...


class Postgres:
    """Few connections, as behind a pool: who comes too many waits here."""

    def __init__(self, service: str) -> None:
        self._statement = _STATEMENTS.get(service, "")
        self._highest = _HIGHEST.get(service, MOVIES)
        self._pool = asyncpg.create_pool(
            host="postgres", user="postgres", database="postgres", min_size=1, max_size=4
        )
        self._connecting = asyncio.Lock()

    async def ask(self, units: int) -> list[Row]:
        async with self._connecting:
            await self._pool  # connects when it is first needed
        rows: list[Row] = []
        async with self._pool.acquire() as connection:
            for _ in range(units):
                found = await connection.fetch(self._statement, random.randint(1, self._highest))
                rows += map(dict, found)
        return rows


class Redis:
    def __init__(self, service: str) -> None:
        pool = redis.asyncio.BlockingConnectionPool(host="redis", max_connections=8, timeout=2)
        self._client = redis.asyncio.Redis(connection_pool=pool)
        self._service = service

    async def ask(self, units: int) -> list[Row]:
        rows: list[Row] = []
        for _ in range(units):
            key = f"{self._service}:{random.randint(1, USERS)}"
            if self._service == "timeline":
                rows += await self._listed(key)
            else:
                rows += await self._counted(key)
        return rows

    async def _counted(self, key: str) -> list[Row]:
        """A cart, a session or a rating: something more in it, and all that is."""
        async with self._client.pipeline(transaction=False) as batch:
            batch.hincrby(key, str(random.randint(1, PRODUCTS)), 1)
            batch.setex(f"{key}:seen:{random.randrange(10)}", KEEP_S, SEEN)
            batch.expire(key, KEEP_S)
            batch.hgetall(key)
            *_, found = await batch.execute()
        return [{"id": int(name), "count": int(count)} for name, count in found.items()]

    async def _listed(self, key: str) -> list[Row]:
        entry = json.dumps({"id": random.randint(1, MOVIES), "body": "read this " * 20})
        async with self._client.pipeline(transaction=False) as batch:
            batch.lpush(key, entry)
            batch.ltrim(key, 0, 49)
            batch.expire(key, KEEP_S)
            batch.lrange(key, 0, 9)
            *_, found = await batch.execute()
        return [json.loads(each) for each in found]


STORES: dict[str, type[Postgres] | type[Redis]] = {"postgres": Postgres, "redis": Redis}
