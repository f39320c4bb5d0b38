"""Customers of the shop: a seeded mix of requests, each client asking again when it was answered.

python examples/shop/load.py http://127.0.0.1:8000 --clients 1
"""

import argparse
import random
import threading
import urllib.request
from collections.abc import Iterator

MIX = {  # path: how often
    "/recommend/{customer}": 4,
    "/basket/{first}": 4,
    "/cheapest": 1,
    "/reviews": 1,
    "/best-sellers": 2,
    "/checkout/{first}": 4,
}


def paths(seed: str) -> Iterator[str]:
    """Yield what one customer asks for, without end; the same for the same seed."""
    dice = random.Random(seed)
    while True:
        [path] = dice.choices(list(MIX), weights=list(MIX.values()))
        yield path.format(customer=dice.randrange(24_000), first=dice.randrange(20_000))


def shopping(url: str, seed: str) -> None:
    """Ask until the shop no longer answers."""
    for path in paths(seed):
        with urllib.request.urlopen(url + path, timeout=30) as answer:
            answer.read()


def main() -> None:
    """Start the clients."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the shop, for example http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    clients = [
        threading.Thread(target=shopping, args=(options.url, f"{options.seed}/{n}"), daemon=True)
        for n in range(options.clients)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


if __name__ == "__main__":
    main()
