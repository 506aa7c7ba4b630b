"""Virtual environments of tools that need packages from PyPI."""
import shutil
import subprocess
import sys


def python_of(venv, packages):
    """Returns the Python of the virtual environment in the folder `venv`. If it does not exist, it is made with `packages`."""
    python, is_new = venv / "bin/python", not venv.exists()
    if not python.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            subprocess.run(pip, check=True, stdout=sys.stderr)
        except BaseException:
            # A folder without its packages would be taken for a whole one.
            if is_new:
                shutil.rmtree(venv, ignore_errors=True)
            raise
    return python
