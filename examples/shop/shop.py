"""What the shop does for its living. Each function spends its time in one way, and says in which.

Apart from each other, they call builtins only: what a profiler calls the self time of a function is
then the same as what the shop accounts for.
"""

import operator
import random
import re
import sqlite3
import time
from typing import Any

from truth import accounted

Product = dict[str, Any]

_random = random.Random(7)
PRODUCTS: list[Product] = [
    {"id": number, "price": _random.uniform(1, 500), "stock": _random.randrange(100)}
    for number in range(150_000)
]
TASTES = [[_random.random() for _ in range(12)] for _ in range(24_000)]  # a row a customer
REVIEWS = " ".join(_random.choices(["good", "bad", "fine", "cheap", "broken", "lovely"], k=180_000))
PRAISE = re.compile(r"(?:good|lovely) (?:\w+ )?cheap")
BY_PRICE = operator.itemgetter("price")

ORDERS = sqlite3.connect(":memory:", check_same_thread=False)
ORDERS.execute("CREATE TABLE orders (product INTEGER, pieces INTEGER)")
ORDERS.executemany(
    "INSERT INTO orders VALUES (?, ?)",
    ((_random.randrange(2_000), _random.randrange(1, 9)) for _ in range(50_000)),
)


@accounted("pure Python")
def recommend(customer: int) -> int:
    """Return the customer whose taste is nearest."""
    taste = TASTES[customer]
    nearest, least = customer, float("inf")
    for other, row in enumerate(TASTES):
        distance = 0.0
        for mine, theirs in zip(taste, row, strict=True):
            distance += (mine - theirs) * (mine - theirs)
        if distance < least and other != customer:
            nearest, least = other, distance
    return nearest


@accounted("pure Python")
def price_basket(first: int, pieces: int) -> float:
    """Return what a basket of neighbouring products costs, by every rule of the house."""
    total = 0.0
    for product in PRODUCTS[first : first + pieces]:
        price = product["price"]
        if product["stock"] > 50:
            price *= 0.9
        elif product["id"] % 7 == 0:
            price *= 0.95
        total += price - 0.01 if price > 100 else price
    return total


@accounted("C, holds the GIL")
def cheapest() -> list[Product]:
    """Return the ten products with the lowest price."""
    return sorted(PRODUCTS, key=BY_PRICE)[:10]


@accounted("C, holds the GIL")
def search_reviews() -> int:
    """Return how often customers praise a low price."""
    return len(PRAISE.findall(REVIEWS))


@accounted("database")
def best_sellers() -> list[tuple[int, int]]:
    """Return the ten products sold most, with their pieces."""
    return ORDERS.execute(
        "SELECT product, sum(pieces) FROM orders GROUP BY product ORDER BY 2 DESC LIMIT 10"
    ).fetchall()


@accounted("waits")
def pay(amount: float) -> str:
    """Return the receipt of a payment service that takes its time."""
    time.sleep(0.03)
    return f"paid {amount:.2f}"
