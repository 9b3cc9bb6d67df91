"""URI to local path and back: files, ``s3://`` through boto3, ``models:/`` and ``runs:/`` through MLflow.

Nothing that is fetched is loaded or run here. A file or folder appears at its destination whole or not at all.
"""

from modelmend.storage.transfer import exists, fetch, put
from modelmend.storage.uri import NotFoundError, check_kfp_path, join, local_path, scheme

__all__ = ["NotFoundError", "check_kfp_path", "exists", "fetch", "join", "local_path", "put", "scheme"]
