from .fetch import (
    download_artifact_from_s3 as download_artifact_from_s3,
    load_latest as load_latest,
    load_latest_from_s3 as load_latest_from_s3,
    load_published as load_published,
)
from .publish import (
    prune_versions as prune_versions,
    publish_to_folder as publish_to_folder,
    published_datasets as published_datasets,
    published_version as published_version,
    published_versions as published_versions,
    rollback as rollback,
    upload_artifact_to_s3 as upload_artifact_to_s3,
    verify_published as verify_published,
)
