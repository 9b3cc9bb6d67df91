"""Signing a model directory with a key, by OpenSSF model signing (optional extra ``signing``)."""

from __future__ import annotations

import os
from pathlib import Path

from modelmend.errors import RegistryError
from modelmend.registry.model_dir import SIGNATURE_FILE, UNSIGNED

KEY_VARIABLE = "MODELMEND_SIGNING_KEY"
PASSWORD_VARIABLE = "MODELMEND_SIGNING_KEY_PASSWORD"  # noqa: S105 - the variable's name


def signing_key(given: Path | None) -> Path | None:
    """The key file given, else that of ``MODELMEND_SIGNING_KEY``; ``None`` when there is neither."""
    path = given or (Path(os.environ[KEY_VARIABLE]) if os.environ.get(KEY_VARIABLE) else None)
    if path is not None and not path.is_file():
        raise RegistryError(
            "the signing key is not there", where=path, fix=f"give an EC private key or unset {KEY_VARIABLE}"
        )
    return path


def sign_dir(folder: Path, key: Path) -> Path:
    """Sign every file of a model directory; returns the signature file inside it.

    Args:
        folder: The model directory.
        key: EC private key in PEM; its password, if any, comes from ``MODELMEND_SIGNING_KEY_PASSWORD``.

    Raises:
        RegistryError: the extra is not installed, or the key cannot be used.
    """
    try:
        from model_signing import hashing, signing
    except ImportError as error:
        raise RegistryError(f"signing is not installed: {error}", fix="pip install 'modelmend[signing]'") from error
    signature = folder / SIGNATURE_FILE
    signature.parent.mkdir(parents=True, exist_ok=True)
    try:
        config = signing.Config().use_elliptic_key_signer(
            private_key=key, password=os.environ.get(PASSWORD_VARIABLE) or None
        )
        config.set_hashing_config(
            hashing.Config().set_ignored_paths(paths=[Path(name) for name in UNSIGNED], ignore_git_paths=False)
        )
        config.sign(folder, signature)
    except (ValueError, TypeError, OSError) as error:
        raise RegistryError(f"cannot sign: {error}", where=key, fix="give an EC private key in PEM (P-256)") from error
    return signature


def check_signature(folder: Path, public_key: Path) -> str | None:
    """Why the signature does not hold over *exactly* the files of a directory; ``None`` when it holds.

    Files that were not there at signing fail too: MLflow would load an added ``data/model.pth`` first.
    """
    try:
        from model_signing import hashing, verifying
    except ImportError as error:
        raise RegistryError(f"signing is not installed: {error}", fix="pip install 'modelmend[signing]'") from error
    if not public_key.is_file():
        raise RegistryError("the public key is not there", where=public_key, fix="give the signer's public key in PEM")
    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        return "there is no signature"
    config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    config.set_hashing_config(
        hashing.Config().set_ignored_paths(paths=[Path(name) for name in UNSIGNED], ignore_git_paths=False)
    )
    try:
        config.verify(folder, signature)
    except Exception as error:  # any failure of a verification is a failed verification
        return str(error).strip() or type(error).__name__
    return None
