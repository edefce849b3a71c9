"""Make .venv and install the tested set into it: `python tools/environment.py lab|test|... [PIP ARGUMENTS]`.

The course and JupyterLab always, and a dependency group of pyproject.toml if one has that name; for tests also the group
`alone`, without what it requires. Groups are read here, and not by pip's --group, because the pip that comes with Python 3.11
knows no groups.
Runs under whatever `python3` is, so that one that is too old can say so: no syntax here is newer than 2.7.
"""

import os
import subprocess
import sys
import time

NEEDED = (3, 11)
PYTHON_IN_VENV = os.path.join(".venv", "bin", "python")

# In .venv, whose Python can read TOML: the requirements of a group, one a line.
GROUP = """
import sys, tomllib
groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]
def items(name):
    for item in groups.get(name, ()):
        yield from items(item["include-group"]) if isinstance(item, dict) else [item]
for item in items(sys.argv[1]):
    print(item)
"""
TOO_OLD = "Python %d.%d found, %d.%d or newer needed: name one, for example  make lab PYTHON=python3.12"
NO_VENV = (
    "This Python has no module %s, which makes environments.\n"
    "On Debian and Ubuntu: apt-get install python3-venv, or name another Python: make lab PYTHON=python3.12"
)
FAILED = (
    "The installation did not finish. Check the network and run the same command again: it continues.\n"
    "Without a network, or behind a mirror, PIP_ARGS is passed on to pip, for example\n"
    "    make lab PIP_ARGS='--no-index --find-links FOLDER_OF_WHEELS'"
)


def say(line):
    print(line)
    sys.stdout.flush()


def check_python():
    if sys.version_info < NEEDED:
        sys.exit(TOO_OLD % (sys.version_info[:2] + NEEDED))
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        sys.exit(NO_VENV % error.name)


def venv_works():
    """False also for a half-made environment, and for one whose Python was upgraded away."""
    probe = "import sys, pip; sys.exit(sys.version_info < %r)" % (NEEDED,)
    try:
        with open(os.devnull, "w") as devnull:
            return subprocess.call([PYTHON_IN_VENV, "-c", probe], stderr=devnull) == 0
    except OSError:
        return False


def requirements(group):
    return subprocess.check_output([PYTHON_IN_VENV, "-c", GROUP, group], universal_newlines=True).splitlines()


def pip_install(arguments):
    """Run pip; of its output only the larger downloads and the errors are shown."""
    command = [PYTHON_IN_VENV, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
    command += ["--no-compile"]  # Python compiles what it imports; compiling all of it here takes 40 s
    command += ["-c", "requirements-tested.txt"] + arguments
    pip = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    errors = []
    for line in pip.stdout:
        if line.strip().startswith("Downloading ") and "MB" in line:
            say("  " + line.strip().rsplit("/", 1)[-1])
        elif "error:" in line.lower():
            errors.append(line)
    if pip.wait() != 0:
        sys.exit("".join(errors[-4:]) + FAILED)


def main(group, pip_args):
    start = time.time()
    if not venv_works():
        check_python()
        say("Making .venv ...")
        subprocess.check_call([sys.executable, "-m", "venv", "--clear", ".venv"])
    say("Installing the tested set: a minute or two and 1.5 GB, more where pip picks a torch with CUDA ...")
    pip_install(["-e", ".[lab]"] + requirements(group) + pip_args)
    if group not in ("lab", "site"):
        pip_install(["--no-deps"] + requirements("alone") + pip_args)
    say("Installed in %.0f s." % (time.time() - start))


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2:])
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. Run the same command again: it continues.")
