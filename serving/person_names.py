"""Names of people: which are accepted, in one spelling each."""

import unicodedata

LONGEST_NAME = 200  # characters
# Characters that reorder the text around them: they can make one name look like another.
REORDERING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def checked_name(name: str) -> str:
    """A person's name in Unicode's composed form, or a ValueError that explains what is wrong."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name or not name.strip("."):
        raise ValueError(f"{name!r} is not a name; give letters.")
    if len(name) > LONGEST_NAME:
        raise ValueError(
            f"a name of {len(name)} characters is too long; give {LONGEST_NAME} or less."
        )
    for character in name:
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp") or character in REORDERING or character in "/\\":
            raise ValueError(
                f"the name {name[:40]!r} holds the character {character!r}; give a name without "
                "slashes, line breaks and control characters."
            )
    return name
