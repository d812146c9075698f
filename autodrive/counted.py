"""How many of something there are, in words."""


def counted(number: float, noun: str) -> str:
    """`1 clip`, `3 clips`; the last word of the noun takes the s."""
    return f"{number:.0f} {noun}" if number == 1 else f"{number:.0f} {noun}s"
