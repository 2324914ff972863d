"""Files by name: shipped ones, data sets on the Hugging Face hub, and files at a web address.

Only data are downloaded. A repository whose data are made by a loading script is refused, so that no code of it runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from refinerl.data import SHIPPED
from refinerl.data.files import replacing
from refinerl.errors import UserError, pip_install

PREFIX = "hub:"
PACKAGE = "shipped:"


def local(path: str) -> Path:
    """Return `path`, a file of the package (`shipped:NAME`), or the local copy of `hub:OWNER/NAME/FILE`.

    The copy is downloaded once into the hub's own cache. `hub:OWNER/NAME` is enough if the repository has a single
    file of JSON lines.

    Raises:
        UserError: the name is unknown or has another form, the machine is offline, there is no such repository or
            file, or its data are made by a script.

    >>> local("problems.jsonl").name
    'problems.jsonl'
    """
    if path.startswith(PACKAGE):
        name = path.removeprefix(PACKAGE)
        if name not in SHIPPED:
            raise UserError(
                f"no file {name!r} is shipped; the names are {', '.join(PACKAGE + each for each in SHIPPED)}"
            )
        return SHIPPED[name]
    if not path.startswith(PREFIX):
        return Path(path)
    parts = path.removeprefix(PREFIX).split("/", 2)
    if len(parts) < 2 or not all(parts):
        raise UserError(f"a data set of the hub must be given as hub:OWNER/NAME or hub:OWNER/NAME/FILE, got {path!r}")
    repository = "/".join(parts[:2])
    return _download(repository, parts[2] if len(parts) == 3 else None)


def _download(repository: str, name: str | None) -> Path:
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError as error:
        raise UserError(
            f"{repository} is on the hub, and huggingface_hub is not installed: {pip_install('huggingface_hub')}"
        ) from error
    try:
        if name is None:
            name = _only_file(repository, HfApi().list_repo_files(repository, repo_type="dataset"))
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except UserError:
        raise
    except Exception as error:  # the client's errors, and those of its HTTP library
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot get {repository}{f'/{name}' if name else ''} from the hub: {reason}; download it on a machine "
            "with a network and give the file's path"
        ) from error


def _only_file(repository: str, names: list[str]) -> str:
    data = sorted(name for name in names if name.endswith((".jsonl", ".jsonl.gz")))
    if len(data) == 1:
        return data[0]
    if data:
        raise UserError(f"{repository} has {len(data)} files of JSON lines; name one: hub:{repository}/{data[0]}, …")
    scripts = [name for name in names if name.endswith(".py")]
    if scripts:
        raise UserError(
            f"{repository} has no JSON lines: its data are made by a script ({scripts[0]}), which is not run; "
            "give a file of JSON lines"
        )
    raise UserError(f"{repository} has no file of JSON lines; it has {', '.join(sorted(names)[:5]) or 'nothing'}")


def fetched(address: str, digest: str) -> Path:
    """Return the local copy of a file on the web, downloaded once into `$REFINERL_CACHE/benchmarks`.

    Args:
        digest: the SHA-256 of the file's bytes.

    Raises:
        UserError: the file cannot be downloaded or written, or has another digest.
    """
    cache = Path(os.environ.get("REFINERL_CACHE") or Path.home() / ".cache" / "refinerl").expanduser() / "benchmarks"
    place = cache / address.rpartition("/")[2]
    if place.is_file() and _digest(place) == digest:
        return place
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(place) as partial:
            with urllib.request.urlopen(address, timeout=60) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            if (found := _digest(partial)) != digest:
                raise UserError(f"{address} has changed: its SHA-256 is {found}, not {digest}")
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"cannot download {address}: {reason}; get it on a machine with a network and give its folder with --data"
        ) from error
    return place


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
