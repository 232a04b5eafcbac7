"""Names of containers: their grammar, and random ones."""

import random
import re
from collections.abc import Callable

from barque.base.errors import InvalidInputError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ADJECTIVES = ["able", "agile", "amber", "ample", "apt", "arctic", "artful", "azure", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid", "casual", "cheerful", "civil", "clever", "coastal", "cosmic", "cosy", "crisp", "curious", "dapper", "daring", "deft", "eager", "earnest", "easy", "elated", "epic", "exact", "fair", "famous", "fearless", "fine", "fluent", "fond", "frank", "fresh", "friendly", "gallant", "gentle", "gifted", "glad", "golden", "graceful", "grand", "happy", "hardy", "hearty", "honest", "hopeful", "humble", "ideal", "jolly", "jovial", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "quirky", "rapid", "ready", "robust", "serene", "sharp", "silent", "sincere", "sleek", "smart", "snug", "solid", "spry", "stable", "steady", "stoic", "sunny", "swift", "tidy", "tranquil", "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty", "zealous", "zesty"]
_SURNAMES = ["abel", "agnesi", "ampere", "archimedes", "babbage", "banach", "bardeen", "bell", "bernoulli", "bohr", "boole", "born", "bose", "brahe", "bragg", "brahmagupta", "cantor", "carson", "cauchy", "cayley", "celsius", "chandra", "cori", "coulomb", "curie", "dalton", "darwin", "descartes", "dirac", "doppler", "einstein", "elion", "erdos", "euclid", "euler", "faraday", "fermat", "fermi", "feynman", "fibonacci", "fourier", "franklin", "galileo", "galois", "gauss", "germain", "goldberg", "hamilton", "hawking", "heisenberg", "hertz", "hilbert", "hodgkin", "hopper", "hubble", "huygens", "hypatia", "jemison", "johnson", "joliot", "joule", "kepler", "khorana", "kirchhoff", "kovalevskaya", "lagrange", "lamarr", "laplace", "leavitt", "leibniz", "lovelace", "lumiere", "maxwell", "mayer", "mcclintock", "meitner", "mendel", "mirzakhani", "newton", "noether", "nobel", "ohm", "pascal", "pasteur", "pauling", "payne", "planck", "poincare", "ptolemy", "ramanujan", "riemann", "ride", "rubin", "sagan", "shannon", "snell", "somerville", "tesla", "tharp", "torvalds", "turing", "volta", "watt", "wiles", "wozniak", "wright", "yalow", "yonath"]


def check_name(name: str) -> str:
    """Return a name without its leading slash.

    Raises:
        InvalidInputError: it has characters that no name may have.
    """
    plain = name.removeprefix("/")
    if not _NAME.fullmatch(plain):
        raise InvalidInputError(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return plain


def random_name(taken: Callable[[str], bool]) -> str:
    """Return a name such as `nimble_noether` that is not taken."""
    for attempt in range(100):
        name = f"{random.choice(_ADJECTIVES)}_{random.choice(_SURNAMES)}"
        if attempt > 5:
            name += str(random.randrange(10 * attempt))
        if not taken(name):
            return name
    return f"container_{random.getrandbits(64):016x}"
