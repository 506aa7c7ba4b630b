"""Writes the results of a comparison: its record as JSON and a page."""
import json
import os


def write(out, name, record, lines):
    """Writes OUT/NAME and OUT/README.md."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, name), "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    with open(os.path.join(out, "README.md"), "w") as file:
        file.write("\n".join(lines) + "\n")
