"""What a comparison writes: its record, and a page of it."""
import json
import os


def write(out, name, record, lines):
    """OUT/NAME and OUT/README.md."""
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, name), "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    with open(os.path.join(out, "README.md"), "w") as file:
        file.write("\n".join(lines) + "\n")
