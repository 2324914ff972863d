"""Upload of a model with its card to the Hugging Face hub, by the hub's own client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refinerl.data.terminal import visible
from refinerl.errors import UserError
from refinerl.report.model import contents


@dataclass(frozen=True)
class Upload:
    """Files for a repository of models."""

    repository: str
    """OWNER/NAME, or NAME for one of the user's own."""
    files: dict[str, Path]
    """By their place in the repository."""
    public: bool
    """Create a repository that does not exist as a public one; else it is private."""

    @staticmethod
    def of(repository: str, model: Path, more: Sequence[Path], *, public: bool) -> Upload:
        """Collect the files of a model's folder, and more files, which replace those of the same name.

        Raises:
            UserError: the repository's name cannot be one.
        """
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(repository)
        except HFValidationError as error:
            raise UserError(f"--push must be OWNER/NAME on the hub, got {repository!r}: {_first(error)}") from error
        files = {
            path.relative_to(model).as_posix(): path
            for each in contents(model)
            for path in ([each] if each.is_file() else sorted(each.rglob("*")))
            if path.is_file()
        }
        return Upload(repository, files | {path.name: path for path in more}, public)

    def plan(self) -> Iterator[str]:
        """Describe what is uploaded, in lines."""
        from huggingface_hub import constants

        kind = "public" if self.public else "private"
        size = sum(path.stat().st_size for path in self.files.values() if path.exists())
        yield (
            f"{len(self.files)} files, {size / 1e6:,.1f} MB, for {constants.ENDPOINT}/{self.repository}, which is "
            f"created as a {kind} repository if there is none:"
        )
        yield from (f"  {''.join(map(visible, name))}" for name in sorted(self.files))

    def check(self) -> None:
        """Check that the hub may be called.

        Raises:
            UserError: the hub's client is offline, or there is no token.
        """
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise UserError("nothing was uploaded, because HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set: unset it")
        try:
            token = get_token()
        except Exception as error:  # of a token that is exchanged or refreshed over the network
            raise UserError(f"nothing was uploaded: there is no token ({_first(error)})") from error
        if not token:
            raise UserError("nothing was uploaded, because there is no token: set HF_TOKEN, or call `hf auth login`")

    def send(self) -> str:
        """Upload the files in one commit; return the repository's address.

        Raises:
            UserError: the hub cannot be reached, or refuses.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        try:
            hub = HfApi()
            created = hub.create_repo(self.repository, private=not self.public, exist_ok=True)
            hub.create_commit(
                created.repo_id,
                [CommitOperationAdd(name, str(path)) for name, path in self.files.items()],
                commit_message="Upload a model that refinerl trained",
            )
        except Exception as error:  # the client's errors, and those of its HTTP library
            raise UserError(
                f"cannot upload to {self.repository}: {_first(error)}; `hf auth whoami` names the owner of the token, "
                "and --dry-run shows what is uploaded"
            ) from error
        return str(created)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
