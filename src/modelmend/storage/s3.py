"""``s3://`` through boto3: objects, prefixes as folders, the endpoint from the environment, bounded waiting."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from modelmend.errors import InputError, StorageError
from modelmend.storage.uri import NotFoundError

MANIFEST = "manifest.json"
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL")


def endpoint() -> str | None:
    """The S3 endpoint that the environment names, if any."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def _client() -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.Session()  # a fresh one: the default session keeps credentials that the environment has dropped
    patience = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 2, "mode": "standard"})
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or session.region_name
    return session.client("s3", endpoint_url=endpoint(), region_name=region or "us-east-1", config=patience)


def _bucket_key(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri, allow_fragments=False)
    key = uri.split("://", 1)[1].partition("/")[2]
    if not parts.netloc:
        raise InputError("the URI names no bucket", where=uri, fix="write s3://bucket/key")
    return parts.netloc, key


def fetch(uri: str, work: Path) -> None:
    """Copy an object to the file ``work``, or a prefix to the folder ``work``."""
    bucket, key = _bucket_key(uri)
    with _session(uri) as client:
        if _head(client, bucket, key) is not None:
            _download(client, bucket, key, work)
            return
        prefix = key if key.endswith("/") or not key else f"{key}/"
        keys = _keys(client, bucket, key)
        if not keys:
            raise NotFoundError("no object and no prefix of this name", where=uri, fix="check bucket and key")
        for name in keys:
            inside = PurePosixPath(name.removeprefix(prefix))
            if inside.is_absolute() or ".." in inside.parts:
                raise StorageError(f"the key {name!r} would leave its folder", where=uri, fix="rename the object")
            (work / inside).parent.mkdir(parents=True, exist_ok=True)
            _download(client, bucket, name, work / inside)


def _head(client: Any, bucket: str, key: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    if not key or key.endswith("/"):
        return None
    try:
        answer: dict[str, Any] = client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey", "NotFound"}:
            return None
        raise
    return answer


def _keys(client: Any, bucket: str, key: str, limit: int | None = None) -> list[str]:
    prefix = key if key.endswith("/") or not key else f"{key}/"
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, PaginationConfig={"MaxItems": limit}
    )
    return [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]


def _download(client: Any, bucket: str, key: str, target: Path) -> None:
    """One object; size and, where the ETag is the content's MD5, content are compared."""
    answer = client.get_object(Bucket=bucket, Key=key)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with target.open("wb") as out:
        for chunk in answer["Body"].iter_chunks(1 << 20):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    etag = answer["ETag"].strip('"')
    plain = re.fullmatch(r"[0-9a-f]{32}", etag) and answer.get("ServerSideEncryption", "AES256") == "AES256"
    plain = plain and "SSECustomerAlgorithm" not in answer
    if size != answer["ContentLength"] or (plain and digest.hexdigest() != etag):
        where = f"s3://{bucket}/{key}"
        raise StorageError(
            f"the download is damaged ({size} of {answer['ContentLength']} bytes)", where=where, fix="retry"
        )


def exists(uri: str) -> bool:
    """Whether there is an object or a prefix of this name; False when the bucket is missing."""
    bucket, key = _bucket_key(uri)
    try:
        with _session(uri) as client:
            return _head(client, bucket, key) is not None or bool(_keys(client, bucket, key, limit=1))
    except NotFoundError:
        return False


def put(local: Path, uri: str) -> None:
    """Copy a file to an object or a folder to a prefix; a manifest goes last."""
    bucket, key = _bucket_key(uri)
    with _session(uri) as client:
        if local.is_file():
            client.upload_file(str(local), bucket, key)
            return
        prefix = key if key.endswith("/") or not key else f"{key}/"
        old = set(_keys(client, bucket, key))
        if old and f"{prefix}{MANIFEST}" not in old:
            raise StorageError("other objects are in the way", where=uri, fix="name a new prefix")
        if old:
            client.delete_object(Bucket=bucket, Key=f"{prefix}{MANIFEST}")
        files = sorted((p for p in local.rglob("*") if p.is_file()), key=lambda p: (p.name == MANIFEST, p))
        new = [f"{prefix}{p.relative_to(local).as_posix()}" for p in files]
        for name in sorted(old - set(new)):
            client.delete_object(Bucket=bucket, Key=name)
        for path, name in zip(files, new, strict=True):
            client.upload_file(str(path), bucket, name)


@contextlib.contextmanager
def _session(uri: str) -> Iterator[Any]:
    """A client whose errors come out as ours."""
    try:
        from boto3.exceptions import Boto3Error
        from botocore import exceptions as b
    except ImportError as error:
        raise StorageError("s3:// needs boto3", where=uri, fix="pip install 'modelmend[s3]'") from error
    at = endpoint() or "AWS"
    try:
        yield _client()
    except (b.NoCredentialsError, b.PartialCredentialsError) as error:
        fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role"
        raise StorageError("no S3 credentials", where=uri, fix=fix) from error
    except (b.EndpointConnectionError, b.ConnectionError, b.HTTPClientError, b.IncompleteReadError) as error:
        fix = f"check the network and {_ENDPOINTS[0]} (now {at})"
        raise StorageError(f"the S3 endpoint {at} does not answer", where=uri, fix=fix) from error
    except b.ClientError as error:
        raise _client_error(error, uri, at) from error
    except (b.BotoCoreError, Boto3Error, ValueError) as error:
        raise StorageError(f"S3 refused: {error}", where=uri, fix="check the URI and the S3 settings") from error


def _client_error(error: Any, uri: str, at: str) -> StorageError:
    code = str(error.response.get("Error", {}).get("Code"))
    if code in {"NoSuchBucket", "NoSuchKey", "404", "NotFound"}:
        return NotFoundError(f"not there ({code})", where=uri, fix=f"check bucket, key and endpoint ({at})")
    if code in {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}:
        return StorageError(f"S3 denies access ({code})", where=uri, fix="check the credentials and their permissions")
    return StorageError(f"S3 refused: {error}", where=uri, fix=f"check the URI and the endpoint ({at})")
