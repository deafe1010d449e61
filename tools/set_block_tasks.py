"""Tasks whose answers can be checked, made from a seed: what tools/experiments_sbd.py trains on and asks.

Each is a prompt and its only right answer. Answers are long enough that deciding several tokens at once can pay, and
differ in how much one token of them says about the others.
"""

import random

NAMES = "Anna Bruno Clara David Emma Felix Greta Henry Iris Jonas Karla Leo Maria Nora Oskar Paula".split()
PLACES = "Rome Paris London Verona Venice Athens Troy Corinth Padua Windsor".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WORDS = "king crown sword night heart blood love time hand eye death heaven earth fire sea wind rose stone star gold".split()
TRADES = "baker tailor soldier doctor sailor farmer merchant painter".split()


def copy(rng):
    words = " ".join(rng.choice(WORDS) for _ in range(rng.randint(8, 14)))
    return f"copy: {words}", words


def sort(rng):
    words = rng.sample(WORDS, rng.randint(5, 8))
    return f"sort: {' '.join(words)}", " ".join(sorted(words))


def add(rng):
    sums = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(6)]
    return f"add: {', '.join(f'{a} + {b}' for a, b in sums)}", ", ".join(f"{a} + {b} = {a + b}" for a, b in sums)


def record(rng):
    name, place, trade, age = rng.choice(NAMES), rng.choice(PLACES), rng.choice(TRADES), rng.randint(20, 79)
    return (
        f"record: {name} is a {trade} of {age} years and lives in {place}.",
        f'{{"name": "{name}", "trade": "{trade}", "age": {age}, "place": "{place}"}}',
    )


def letter(rng):
    name, other, place, day = *rng.sample(NAMES, 2), rng.choice(PLACES), rng.choice(DAYS)
    return (
        f"letter: from {name} to {other}, {place}, {day}",
        f"My dear {other}, I will come to {place} on {day}. Wait for me at the gate, and tell nobody that I am on my way. "
        f"Your friend {name}",
    )


TASKS = {"copy": copy, "sort": sort, "add": add, "record": record, "letter": letter}


def examples(count: int, seed: int, avoid=frozenset()):
    """`count` of each task, none of whose prompts is in `avoid`, in a random order."""
    rng = random.Random(seed)
    made = []
    for name, task in TASKS.items():
        while sum(e["category"] == name for e in made) < count:
            prompt, completion = task(rng)
            if prompt not in avoid:
                made.append({"category": name, "prompt": prompt, "completion": completion})
    rng.shuffle(made)
    return made
